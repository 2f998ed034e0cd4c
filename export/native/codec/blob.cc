// Writing and reading a whole tensor: header, directory, strips, threads.
#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "codec/codec.h"
#include "codec/errors.h"
#include "codec/parallel.h"

namespace {

using dqa::fail;
using dqa::load_bytes;
using dqa::store_bytes;

constexpr uint8_t kMagic[4] = {'D', 'Q', 'A', 'P'};
constexpr uint8_t kVersion = 1;
constexpr size_t kHeader = 16;
constexpr size_t kMaxRows = 0xffffffff;

size_t strips_of(size_t rows, size_t strip_rows) {
  return rows / strip_rows + (rows % strip_rows != 0);
}

bool fits(const DqaCodec& codec, const DqaGeometry& g) {
  return g.rows >= 1 && g.rows <= kMaxRows && g.strip_rows >= 1 &&
         g.strip_rows <= g.rows && g.row_pixels >= 1 &&
         g.row_pixels <= dqa::kMaxValues / codec.channels / g.rows;
}

// A tensor cut into strips.
struct Cut {
  const DqaCodec& codec;
  DqaStorage storage;
  DqaGeometry geometry;
  size_t strips;
  size_t strip_pixels;  // of all but perhaps the last
  size_t value_bytes;   // of one value
  size_t parts;         // threads

  Cut(const DqaCodec& its_codec, DqaStorage its_storage, DqaType type,
      const DqaGeometry& g, uint32_t threads)
      : codec(its_codec),
        storage(its_storage),
        geometry(g),
        strips(strips_of(g.rows, g.strip_rows)),
        strip_pixels(g.strip_rows * g.row_pixels),
        value_bytes(type == DQA_FLOAT32 ? sizeof(float) : 1),
        parts(std::min({size_t{threads}, strips, dqa::kMaxThreads})) {}

  size_t pixels(size_t strip) const {
    const size_t before = strip * geometry.strip_rows;
    return std::min(geometry.strip_rows, geometry.rows - before) * geometry.row_pixels;
  }
  size_t value_offset(size_t strip) const {
    return strip * strip_pixels * codec.channels * value_bytes;
  }
  size_t bound() const {  // of all strips but perhaps the last
    return dqa_strip_bound(&codec, storage, strip_pixels);
  }
  size_t scratch() const { return dqa_strip_scratch(&codec, storage, strip_pixels); }
};

DqaStatus check_threads(uint32_t threads, DqaError* error) {
  if (threads >= 1) return DQA_OK;
  return fail(error, DQA_BAD_ARGUMENT,
              "threads must be at least 1. Received: threads=0");
}

DqaStatus no_memory(DqaError* error, size_t bytes) {
  return fail(error, DQA_NO_MEMORY, "no memory for %zu bytes of scratch", bytes);
}

// What a blob says of itself, checked.
struct Header {
  DqaStorage storage;
  size_t rows, strip_rows, strips;
};

DqaStatus read_header(const uint8_t* blob, size_t size, Header* header,
                      DqaError* error) {
  if (size < kHeader) {
    return fail(error, DQA_TRUNCATED,
                "a blob must have at least %zu bytes; it is truncated. Received: %zu "
                "bytes",
                kHeader, size);
  }
  if (std::memcmp(blob, kMagic, sizeof kMagic) != 0) {
    return fail(error, DQA_CORRUPT,
                "a blob must start with DQAP. Received: bytes %02x %02x %02x %02x",
                unsigned{blob[0]}, unsigned{blob[1]}, unsigned{blob[2]},
                unsigned{blob[3]});
  }
  if (blob[4] != kVersion) {
    return fail(error, DQA_BAD_VERSION, "version must be %u. Received: version=%u",
                unsigned{kVersion}, unsigned{blob[4]});
  }
  if (blob[5] > DQA_ALL || blob[6] != 0 || blob[7] != 0) {
    return fail(error, DQA_CORRUPT,
                "storage class must be in 0..2 and the reserved bytes 0. Received: "
                "storage=%u, reserved=%u %u",
                unsigned{blob[5]}, unsigned{blob[6]}, unsigned{blob[7]});
  }
  header->storage = static_cast<DqaStorage>(blob[5]);
  header->rows = static_cast<size_t>(load_bytes(blob + 8, 4));
  header->strip_rows = static_cast<size_t>(load_bytes(blob + 12, 4));
  if (header->strip_rows < 1 || header->strip_rows > header->rows) {
    return fail(error, DQA_CORRUPT,
                "rows and strip_rows must be 1 <= strip_rows <= rows. Received: "
                "rows=%zu, strip_rows=%zu",
                header->rows, header->strip_rows);
  }
  header->strips = strips_of(header->rows, header->strip_rows);
  if ((size - kHeader) / 4 < header->strips) {
    return fail(error, DQA_TRUNCATED,
                "a directory of %zu strips must have %zu bytes; the blob is truncated. "
                "Received: %zu bytes",
                header->strips, 4 * header->strips, size - kHeader);
  }
  size_t previous = 0;
  for (size_t strip = 0; strip < header->strips; ++strip) {
    const size_t end = static_cast<size_t>(load_bytes(blob + kHeader + 4 * strip, 4));
    if (end <= previous) {
      return fail(error, DQA_CORRUPT,
                  "the directory's strip ends must rise. Received: %zu after %zu", end,
                  previous);
    }
    previous = end;
  }
  const size_t end = kHeader + 4 * header->strips + previous;
  if (end != size) {
    return fail(error, end > size ? DQA_TRUNCATED : DQA_OVERSIZED,
                "a blob must end with its last strip, at byte %zu; it is %s. Received: "
                "%zu bytes",
                end, end > size ? "truncated" : "oversized", size);
  }
  return DQA_OK;
}

}  // namespace

size_t dqa_blob_bound(const DqaCodec* codec, DqaStorage storage,
                      const DqaGeometry* geometry) {
  if (!fits(*codec, *geometry)) return 0;
  const Cut cut(*codec, storage, DQA_CODES, *geometry, 1);
  return kHeader + 4 * cut.strips + (cut.strips - 1) * cut.bound() +
         dqa_strip_bound(codec, storage, cut.pixels(cut.strips - 1));
}

DqaStatus dqa_pack(const DqaCodec* codec, DqaStorage storage, DqaType type,
                   const void* values, const DqaGeometry* geometry, uint32_t threads,
                   uint8_t* out, size_t capacity, size_t* size, DqaError* error) {
  if (const DqaStatus status = check_threads(threads, error)) return status;
  const size_t bound = dqa_blob_bound(codec, storage, geometry);
  // Strip ends are 32 bits.
  if (bound == 0 || bound > 0xffffffff) {
    return fail(error, DQA_BAD_ARGUMENT,
                "rows, row_pixels and strip_rows must give a blob below 4 GiB. "
                "Received: rows=%zu, row_pixels=%zu, strip_rows=%zu",
                geometry->rows, geometry->row_pixels, geometry->strip_rows);
  }
  if (capacity < bound) {
    return fail(error, DQA_NO_SPACE, "a blob needs room for %zu bytes. Received: %zu",
                bound, capacity);
  }
  const Cut cut(*codec, storage, type, *geometry, threads);
  // A strip is packed where it belongs if that is known beforehand: raw strips have
  // their static size, and one thread alone is never ahead of itself. Otherwise it is
  // packed into scratch, and copied out of the cache once the strips before it are
  // packed.
  const bool raw = storage == DQA_RAW;
  const size_t bound_of_strip = cut.bound(), work_bytes = cut.scratch();
  const size_t scratch_bytes =
      work_bytes + (raw || cut.parts == 1 ? 0 : bound_of_strip);
  const std::unique_ptr<uint8_t[]> scratch(new (std::nothrow)
                                               uint8_t[cut.parts * scratch_bytes]);
  if (scratch == nullptr) return no_memory(error, cut.parts * scratch_bytes);
  uint8_t* const directory = out + kHeader;
  uint8_t* const strips = directory + 4 * cut.strips;
  dqa::Queue queue;
  const auto pack = [&](size_t part, size_t strip, DqaError* strip_error) {
    uint8_t* const work = scratch.get() + part * scratch_bytes;
    const bool in_place = raw || queue.reached(strip);
    uint8_t* const to = !in_place
                            ? work + work_bytes
                            : strips + (raw ? strip * bound_of_strip : queue.end());
    size_t bytes = 0;
    const DqaStatus status = dqa_pack_strip(
        codec, storage, type,
        static_cast<const uint8_t*>(values) + cut.value_offset(strip),
        cut.pixels(strip), to, dqa_strip_bound(codec, storage, cut.pixels(strip)),
        &bytes, work, strip_error);
    const size_t begin = raw ? strip * bound_of_strip : queue.pass(strip, bytes);
    if (!in_place) std::memcpy(strips + begin, to, bytes);
    store_bytes(directory + 4 * strip, begin + bytes, 4);
    return status;
  };
  if (const DqaStatus status = dqa::run_strips(cut.parts, cut.strips, pack, error)) {
    return status;
  }
  std::memcpy(out, kMagic, sizeof kMagic);
  out[4] = kVersion;
  out[5] = static_cast<uint8_t>(storage);
  store_bytes(out + 6, 0, 2);
  store_bytes(out + 8, geometry->rows, 4);
  store_bytes(out + 12, geometry->strip_rows, 4);
  *size = raw ? bound : kHeader + 4 * cut.strips + queue.end();
  return DQA_OK;
}

DqaStatus dqa_unpack(const DqaCodec* codec, DqaType type, const uint8_t* blob,
                     size_t size, size_t rows, size_t row_pixels, uint32_t threads,
                     void* values, DqaError* error) {
  if (const DqaStatus status = check_threads(threads, error)) return status;
  Header header = {};
  if (const DqaStatus status = read_header(blob, size, &header, error)) return status;
  if (header.rows != rows) {
    return fail(error, DQA_BAD_ARGUMENT,
                "a tensor of %zu rows was asked for. Received: a blob of %zu rows",
                rows, header.rows);
  }
  const DqaGeometry geometry = {rows, row_pixels, header.strip_rows};
  if (!fits(*codec, geometry)) {
    return fail(
        error, DQA_BAD_ARGUMENT,
        "rows and row_pixels must give at most 2^40 values. Received: rows=%zu, "
        "row_pixels=%zu",
        rows, row_pixels);
  }
  const Cut cut(*codec, header.storage, type, geometry, threads);
  const size_t scratch_bytes = cut.scratch();
  const std::unique_ptr<uint8_t[]> scratch(new (std::nothrow)
                                               uint8_t[cut.parts * scratch_bytes]);
  if (scratch == nullptr) return no_memory(error, cut.parts * scratch_bytes);
  const uint8_t* const directory = blob + kHeader;
  const uint8_t* const strips = directory + 4 * cut.strips;
  const auto unpack = [&](size_t part, size_t strip, DqaError* strip_error) {
    const size_t begin =
        strip == 0 ? 0 : static_cast<size_t>(load_bytes(directory + 4 * strip - 4, 4));
    const size_t end = static_cast<size_t>(load_bytes(directory + 4 * strip, 4));
    return dqa_unpack_strip(codec, header.storage, type, strips + begin, end - begin,
                            cut.pixels(strip),
                            static_cast<uint8_t*>(values) + cut.value_offset(strip),
                            scratch.get() + part * scratch_bytes, strip_error);
  };
  return dqa::run_strips(cut.parts, cut.strips, unpack, error);
}
