// Writing and reading one strip.
#include <algorithm>

#include "codec/codec.h"
#include "codec/errors.h"

namespace {

using dqa::blocks_bound;
using dqa::fail;
using dqa::kPlaneSlack;
using dqa::plane_bytes;

// What a strip of some pixels is made of.
struct Sections {
  size_t values, residuals;
  size_t base_plane, residual_plane;  // bytes

  Sections(const DqaCodec& codec, size_t pixels)
      : values(pixels * codec.channels),
        residuals(codec.residual_count(values)),
        base_plane(plane_bytes(values, codec.bits)),
        residual_plane(plane_bytes(residuals, codec.extra_bits)) {}
};

DqaStatus check(const DqaCodec& codec, DqaStorage storage, DqaType type, size_t pixels,
                DqaError* error) {
  const int storage_value = static_cast<int>(storage),
            type_value = static_cast<int>(type);
  if (storage_value < DQA_RAW || storage_value > DQA_ALL || type_value < DQA_FLOAT32 ||
      type_value > DQA_CODES) {
    return fail(
        error, DQA_BAD_ARGUMENT,
        "storage must be in 0..2 and type in 0..1. Received: storage=%d, type=%d",
        storage_value, type_value);
  }
  if (!codec.can_code(storage)) {
    return fail(error, DQA_BAD_ARGUMENT,
                "a codec without codeword lengths takes storage 0 alone. Received: "
                "storage=%d",
                storage_value);
  }
  const size_t max_pixels = dqa::kMaxValues / codec.channels;
  if (pixels < 1 || pixels > max_pixels) {
    return fail(error, DQA_BAD_ARGUMENT,
                "a strip must have 1..%zu pixels. Received: pixels=%zu", max_pixels,
                pixels);
  }
  return DQA_OK;
}

}  // namespace

size_t dqa_strip_bound(const DqaCodec* codec, DqaStorage storage, size_t pixels) {
  const Sections sections(*codec, pixels);
  return (storage == DQA_ALL ? blocks_bound(sections.values, codec->bits)
                             : sections.base_plane) +
         (storage == DQA_RAW ? sections.residual_plane
                             : blocks_bound(sections.residuals, codec->extra_bits));
}

size_t dqa_strip_scratch(const DqaCodec* codec, DqaStorage storage, size_t pixels) {
  const Sections sections(*codec, pixels);
  if (storage == DQA_RAW) return 0;
  return dqa::kEncodeScratch + sections.residual_plane + kPlaneSlack +
         (storage == DQA_ALL ? sections.base_plane + kPlaneSlack : 0);
}

DqaStatus dqa_pack_strip(const DqaCodec* codec, DqaStorage storage, DqaType type,
                         const void* values, size_t pixels, uint8_t* out,
                         size_t capacity, size_t* size, uint8_t* scratch,
                         DqaError* error) {
  if (const DqaStatus status = check(*codec, storage, type, pixels, error))
    return status;
  const size_t bound = dqa_strip_bound(codec, storage, pixels);
  if (capacity < bound) {
    return fail(error, DQA_NO_SPACE,
                "a strip of %zu pixels needs room for %zu bytes. Received: %zu", pixels,
                bound, capacity);
  }
  const Sections sections(*codec, pixels);
  uint8_t* const residual_plane =
      storage == DQA_RAW ? out + sections.base_plane : scratch + dqa::kEncodeScratch;
  uint8_t* const base_plane =
      storage == DQA_ALL ? residual_plane + sections.residual_plane + kPlaneSlack : out;
  codec->kernels->pack[type](*codec, values, sections.values, base_plane,
                             residual_plane);
  uint8_t* end = out + sections.base_plane;
  if (storage == DQA_ALL) {
    end = out + codec->kernels->encode(*codec->base_code, base_plane, sections.values,
                                       out, scratch);
  }
  if (storage == DQA_RAW) {
    end += sections.residual_plane;
  } else if (sections.residuals > 0) {
    end += codec->kernels->encode(*codec->residual_code, residual_plane,
                                  sections.residuals, end, scratch);
  }
  *size = static_cast<size_t>(end - out);
  return DQA_OK;
}

DqaStatus dqa_unpack_strip(const DqaCodec* codec, DqaStorage storage, DqaType type,
                           const uint8_t* strip, size_t size, size_t pixels,
                           void* values, uint8_t* scratch, DqaError* error) {
  if (const DqaStatus status = check(*codec, storage, type, pixels, error))
    return status;
  const Sections sections(*codec, pixels);
  const uint8_t* base_plane = strip;
  size_t used = sections.base_plane;
  if (storage == DQA_ALL) {
    uint8_t* const plane =
        scratch + dqa::kEncodeScratch + sections.residual_plane + kPlaneSlack;
    if (const DqaStatus status = codec->kernels->decode(
            *codec->base_code, strip, size, sections.values, plane, &used, error)) {
      return status;
    }
    base_plane = plane;
  }
  if (used > size) {
    return fail(error, DQA_TRUNCATED,
                "a strip's base codes must have %zu bytes; it is truncated. Received: "
                "%zu bytes",
                used, size);
  }
  const uint8_t* residual_plane = strip + used;
  if (storage == DQA_RAW) {
    used += sections.residual_plane;
  } else if (sections.residuals > 0) {
    uint8_t* const plane = scratch + dqa::kEncodeScratch;
    size_t section = 0;
    if (const DqaStatus status =
            codec->kernels->decode(*codec->residual_code, strip + used, size - used,
                                   sections.residuals, plane, &section, error)) {
      return status;
    }
    residual_plane = plane;
    used += section;
  }
  if (used != size) {
    const bool truncated = used > size;
    return fail(error, truncated ? DQA_TRUNCATED : DQA_OVERSIZED,
                "a strip's sections must fill it; it is %s. Received: sections of %zu "
                "bytes in %zu",
                truncated ? "truncated" : "oversized", used, size);
  }
  codec->kernels->unpack[type](*codec, base_plane, residual_plane, sections.values,
                               values);
  return DQA_OK;
}

DqaStatus dqa_decode_blocks(const DqaCodec* codec, DqaStorage which,
                            const uint8_t* section, size_t size, size_t count,
                            uint8_t* plane, DqaError* error) {
  const dqa::HuffmanCode* const code =
      (which == DQA_ALL ? codec->base_code : codec->residual_code).get();
  if (code == nullptr || count == 0) {
    return fail(error, DQA_BAD_ARGUMENT,
                "a section must have symbols of at least 1 bit, and the codec their "
                "codeword lengths. Received: count=%zu, width=%u",
                count, which == DQA_ALL ? codec->bits : codec->extra_bits);
  }
  size_t used = 0;
  if (const DqaStatus status =
          codec->kernels->decode(*code, section, size, count, plane, &used, error)) {
    return status;
  }
  if (used == size) return DQA_OK;
  return fail(error, DQA_OVERSIZED,
              "a section must end with its last block. Received: %zu bytes, %zu used",
              size, used);
}
