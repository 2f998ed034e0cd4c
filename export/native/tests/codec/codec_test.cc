// The codec against the golden vectors, and every path of this machine against the
// scalar one: `codec_test path/to/tests/golden`. Runs wherever the library does; under
// qemu it is what checks NEON.
#include "dqa/codec.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "tests/checks.h"

namespace {

struct Destroy {
  void operator()(DqaCodec* codec) const { dqa_codec_destroy(codec); }
};
using Codec = std::unique_ptr<DqaCodec, Destroy>;

Codec codec_of(const Table& table, DqaIsa isa) {
  const DqaTable view = table.view();
  DqaCodec* created = nullptr;
  DqaError error;
  if (dqa_codec_create(&view, isa, &created, &error) != DQA_OK) {
    std::fprintf(stderr, "%s\n", error.message);
    std::exit(1);
  }
  return Codec(created);
}

// What creating a codec of a bad table gives.
DqaStatus refusal_of(const Table& table) {
  const DqaTable view = table.view();
  DqaCodec* created = nullptr;
  DqaError error = {};
  const DqaStatus status = dqa_codec_create(&view, DQA_AUTO, &created, &error);
  CHECK(created == nullptr && std::strstr(error.message, "Received") != nullptr);
  return status;
}

// xorshift64: the same numbers everywhere.
struct Random {
  uint64_t state;
  uint32_t next() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return static_cast<uint32_t>(state >> 32);
  }
  uint32_t below(uint32_t limit) { return next() % limit; }
  float unit() { return static_cast<float>(next() >> 8) / 16777216.0f; }
};

template <typename T>
std::vector<T> as(const Bytes& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void check_golden(const std::string& folder, DqaIsa isa) {
  Fields fields = golden_fields(folder);
  const Table table = golden_table(fields);
  const Codec codec = codec_of(table, isa);
  CHECK(dqa_codec_isa(codec.get()) == isa);
  const auto values = as<float>(read_bytes(folder + "/values.bin"));
  const Bytes codes = read_bytes(folder + "/codes.bin");
  const auto& shape = fields["shape"];
  DqaGeometry geometry = {1, 1, as_number(fields["strip_rows"][0])};
  for (size_t axis = 0; axis + 1 < shape.size(); ++axis) {
    (axis < 2 ? geometry.rows : geometry.row_pixels) *= as_number(shape[axis]);
  }
  const char* names[] = {"raw", "residual", "all"};
  for (int s = DQA_RAW; s <= DQA_ALL; ++s) {
    const auto storage = static_cast<DqaStorage>(s);
    const Bytes blob = read_bytes(folder + "/" + names[s] + ".bin");
    const size_t bound = dqa_blob_bound(codec.get(), storage, &geometry);
    for (const uint32_t threads : {1u, 2u, 5u}) {
      for (const DqaType type : {DQA_FLOAT32, DQA_CODES}) {
        const void* from = type == DQA_FLOAT32 ? static_cast<const void*>(values.data())
                                               : codes.data();
        Bytes out(bound);
        size_t size = 0;
        CHECK(dqa_pack(codec.get(), storage, type, from, &geometry, threads, out.data(),
                       out.size(), &size, nullptr) == DQA_OK);
        out.resize(size);
        CHECK(out == blob);
      }
      Bytes back(codes.size());
      CHECK(dqa_unpack(codec.get(), DQA_CODES, blob.data(), blob.size(), geometry.rows,
                       geometry.row_pixels, threads, back.data(), nullptr) == DQA_OK);
      CHECK(back == codes);
      std::vector<float> floats(codes.size()), wanted(codes.size());
      CHECK(dqa_unpack(codec.get(), DQA_FLOAT32, blob.data(), blob.size(),
                       geometry.rows, geometry.row_pixels, threads, floats.data(),
                       nullptr) == DQA_OK);
      for (size_t i = 0; i < codes.size(); ++i) {
        const int q = table.sign != 0 ? static_cast<int8_t>(codes[i]) : codes[i];
        wanted[i] = static_cast<float>(q) * table.scale[i % table.scale.size()];
      }
      CHECK(same(floats, wanted));
    }
  }
}

// A complete code: the first symbol takes 1 bit, the others share the other branch.
Bytes uneven_lengths(uint32_t width) {
  const uint32_t symbols = 1u << width, others = symbols - 1;
  if (width == 0) return {0};
  uint32_t level = 0;
  while ((1u << level) < others) ++level;
  const uint32_t shorter = (1u << level) - others;  // leaves one bit above the rest
  Bytes lengths(1, 1);
  for (uint32_t i = 0; i < others; ++i) {
    lengths.push_back(static_cast<uint8_t>(1 + level - (i < shorter ? 1 : 0)));
  }
  return lengths;
}

Table random_table(uint32_t bits, uint32_t extra_bits, uint32_t channels,
                   Random* random) {
  Table table;
  table.bits = bits;
  table.extra_bits = extra_bits;
  table.sign = random->below(2);
  if (table.sign != 0 && table.bits > 1 && table.bits + table.extra_bits < 8) {
    table.sign += random->below(1u << (table.bits - 1));
  }
  const uint32_t share = random->below(4);  // none, few, most or all
  for (uint32_t c = 0; c < channels; ++c) {
    table.mask.push_back(random->below(3) < share);
    table.scale.push_back(0.01f + random->unit());
  }
  table.residual_lengths = uneven_lengths(extra_bits);
  table.base_lengths = uneven_lengths(bits);
  return table;
}

std::vector<float> random_values(const Table& table, size_t count, Random* random) {
  std::vector<float> values(count);
  const uint32_t kind = random->below(4);  // sparse, wide, halves, saturated
  for (size_t i = 0; i < count; ++i) {
    const float scale = table.scale[i % table.scale.size()];
    const float unit = random->unit();
    switch (kind) {
      case 0: values[i] = unit < 0.7f ? 0.0f : (unit - 0.7f) * 60 * scale; break;
      case 1: values[i] = (unit - 0.5f) * 600 * scale; break;
      case 2: values[i] = std::floor((unit - 0.5f) * 1100) * 0.5f * scale; break;
      default: values[i] = unit < 0.5f ? 1e30f : -1e30f; break;
    }
    if (random->below(50) == 0) {
      values[i] = std::numeric_limits<float>::quiet_NaN();
    } else if (random->below(50) == 0) {
      values[i] = std::numeric_limits<float>::infinity();
    }
  }
  return values;
}

// Both codecs must give the same strip and read it back to the same values.
void check_same(const Table& table, DqaIsa isa, size_t pixels, Random* random) {
  const Codec scalar = codec_of(table, DQA_SCALAR), other = codec_of(table, isa);
  const size_t count = pixels * table.mask.size();
  const std::vector<float> values = random_values(table, count, random);
  for (int s = DQA_RAW; s <= DQA_ALL; ++s) {
    const auto storage = static_cast<DqaStorage>(s);
    const size_t bound = dqa_strip_bound(scalar.get(), storage, pixels);
    Bytes scratch(dqa_strip_scratch(scalar.get(), storage, pixels));
    Bytes strips[2], codes[2];
    std::vector<float> floats[2];
    for (int side = 0; side < 2; ++side) {
      const DqaCodec* codec = (side == 0 ? scalar : other).get();
      Bytes& strip = strips[side];
      strip.resize(bound);
      size_t size = 0;
      CHECK(dqa_pack_strip(codec, storage, DQA_FLOAT32, values.data(), pixels,
                           strip.data(), strip.size(), &size, scratch.data(),
                           nullptr) == DQA_OK);
      strip.resize(size);
      codes[side].resize(count);
      floats[side].resize(count);
      CHECK(dqa_unpack_strip(codec, storage, DQA_CODES, strip.data(), size, pixels,
                             codes[side].data(), scratch.data(), nullptr) == DQA_OK);
      CHECK(dqa_unpack_strip(codec, storage, DQA_FLOAT32, strip.data(), size, pixels,
                             floats[side].data(), scratch.data(), nullptr) == DQA_OK);
      Bytes again(bound);
      CHECK(dqa_pack_strip(codec, storage, DQA_CODES, codes[side].data(), pixels,
                           again.data(), again.size(), &size, scratch.data(),
                           nullptr) == DQA_OK);
      again.resize(size);
      CHECK(again == strip);
    }
    CHECK(strips[0] == strips[1]);
    CHECK(codes[0] == codes[1]);
    CHECK(same(floats[0], floats[1]));
  }
}

void check_every_width(DqaIsa isa) {
  Random random{88172645463325252u};
  for (uint32_t bits = 1; bits <= 8; ++bits) {
    for (uint32_t extra_bits = 0; extra_bits <= 4 && bits + extra_bits <= 8;
         ++extra_bits) {
      for (uint32_t channels = 1; channels <= 257; ++channels) {
        check_same(random_table(bits, extra_bits, channels, &random), isa,
                   1 + random.below(channels < 40 ? 40 : 5), &random);
      }
      // Several blocks a section, the last one short.
      check_same(random_table(bits, extra_bits, 24, &random), isa, 1500, &random);
    }
  }
}

Table plain_table() {
  Table table;
  table.mask = {1, 0, 0, 1, 0};
  table.scale = {0.5f, 1.0f, 0.25f, 0.125f, 2.0f};
  table.residual_lengths = {1, 2, 3, 3};
  table.base_lengths = Bytes(16, 4);
  return table;
}

void check_bad_tables() {
  const auto refused = [](void (*harm)(Table*)) {
    Table table = plain_table();
    harm(&table);
    return refusal_of(table) == DQA_BAD_TABLE;
  };
  CHECK(refused([](Table* t) { t->bits = 0; }));
  CHECK(refused([](Table* t) { t->bits = 9; }));
  CHECK(refused([](Table* t) { t->bits = 7; }));
  CHECK(refused([](Table* t) { t->sign = (1u << (t->bits - 1)) + 1; }));
  CHECK(refused([](Table* t) { t->sign = 2, t->extra_bits = 8 - t->bits; }));
  CHECK(refused([](Table* t) { t->mask.clear(); }));
  CHECK(refused([](Table* t) { t->mask[1] = 2; }));
  CHECK(refused([](Table* t) { t->scale[1] = 0; }));
  CHECK(refused([](Table* t) { t->scale[1] = -1; }));
  CHECK(refused([](Table* t) { t->scale[1] = INFINITY; }));
  CHECK(refused([](Table* t) { t->scale[1] = NAN; }));
  CHECK(refused([](Table* t) { t->residual_lengths = {1, 1, 2, 2}; }));  // over
  CHECK(refused([](Table* t) { t->residual_lengths = {2, 2, 3, 3}; }));  // incomplete
  CHECK(refused([](Table* t) { t->residual_lengths = {0, 1, 2, 2}; }));
  CHECK(refused([](Table* t) { t->residual_lengths = {1, 2, 13, 13}; }));
  CHECK(refused([](Table* t) { t->base_lengths[3] = 5; }));
  CHECK(refused([](Table* t) {
    t->extra_bits = 0;
    t->residual_lengths = {1};
  }));
}

// A codec with some of the codewords packs what needs no others, to the same bytes.
void check_without_codewords() {
  const Table table = plain_table();
  const Codec whole = codec_of(table, DQA_AUTO);
  const DqaGeometry geometry = {6, 7, 2};
  Bytes codes(6 * 7 * 5);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i % 16);
  DqaError error;
  const auto blob_of = [&](const DqaCodec* codec, DqaStorage storage) {
    Bytes blob(dqa_blob_bound(codec, storage, &geometry));
    size_t size = 0;
    const DqaStatus status =
        dqa_pack(codec, storage, DQA_CODES, codes.data(), &geometry, 1, blob.data(),
                 blob.size(), &size, &error);
    CHECK(status == DQA_OK || status == DQA_BAD_ARGUMENT);
    blob.resize(status == DQA_OK ? size : 0);
    return blob;
  };
  for (const int highest : {DQA_RAW, DQA_RESIDUAL}) {
    DqaTable view = table.view();
    view.base_lengths = nullptr;
    if (highest == DQA_RAW) view.residual_lengths = nullptr;
    DqaCodec* created = nullptr;
    CHECK(dqa_codec_create(&view, DQA_AUTO, &created, &error) == DQA_OK);
    const Codec codec(created);
    for (const DqaStorage storage : {DQA_RAW, DQA_RESIDUAL, DQA_ALL}) {
      const Bytes wanted = blob_of(whole.get(), storage);
      const Bytes blob = blob_of(codec.get(), storage);
      CHECK(storage <= highest ? blob == wanted : blob.empty());
      Bytes back(codes.size());
      CHECK(dqa_unpack(codec.get(), DQA_CODES, wanted.data(), wanted.size(), 6, 7, 1,
                       back.data(),
                       &error) == (storage <= highest ? DQA_OK : DQA_BAD_ARGUMENT));
    }
    uint8_t plane[16];
    CHECK(dqa_decode_blocks(codec.get(), DQA_ALL, codes.data(), 4, 4, plane, &error) ==
          DQA_BAD_ARGUMENT);
  }
}

void check_bad_calls() {
  const Table table = plain_table();
  const Codec codec = codec_of(table, DQA_AUTO);
  const DqaGeometry geometry = {6, 7, 2};
  const std::vector<float> values(6 * 7 * 5, 2.0f);
  Bytes blob(dqa_blob_bound(codec.get(), DQA_ALL, &geometry));
  size_t size = 0;
  DqaError error;
  const auto pack = [&](DqaGeometry g, uint32_t threads, size_t capacity) {
    return dqa_pack(codec.get(), DQA_ALL, DQA_FLOAT32, values.data(), &g, threads,
                    blob.data(), capacity, &size, &error);
  };
  CHECK(pack(geometry, 0, blob.size()) == DQA_BAD_ARGUMENT);
  CHECK(pack({0, 7, 1}, 1, blob.size()) == DQA_BAD_ARGUMENT);
  CHECK(pack({6, 0, 1}, 1, blob.size()) == DQA_BAD_ARGUMENT);
  CHECK(pack({6, 7, 0}, 1, blob.size()) == DQA_BAD_ARGUMENT);
  CHECK(pack({6, 7, 7}, 1, blob.size()) == DQA_BAD_ARGUMENT);
  CHECK(pack({6, ~size_t{0}, 2}, 1, blob.size()) == DQA_BAD_ARGUMENT);
  CHECK(pack(geometry, 1, blob.size() - 1) == DQA_NO_SPACE);
  CHECK(pack(geometry, 1, blob.size()) == DQA_OK);
  blob.resize(size);
  std::vector<float> back(values.size());
  const auto unpack = [&](const Bytes& bytes, size_t rows = 6, size_t pixels = 7,
                          uint32_t threads = 1) {
    // A copy of its exact size, so that a sanitizer sees every byte read beyond it.
    const std::unique_ptr<uint8_t[]> exact(new uint8_t[bytes.size()]);
    std::copy(bytes.begin(), bytes.end(), exact.get());
    return dqa_unpack(codec.get(), DQA_FLOAT32, exact.get(), bytes.size(), rows, pixels,
                      threads, back.data(), &error);
  };
  const auto with = [&](size_t at, uint8_t value) {
    Bytes bytes = blob;
    bytes[at] = value;
    return bytes;
  };
  CHECK(unpack(blob) == DQA_OK && same(back, values));
  CHECK(unpack(blob, 6, 7, 0) == DQA_BAD_ARGUMENT);
  CHECK(unpack(blob, 5) == DQA_BAD_ARGUMENT);
  CHECK(unpack(blob, 6, 0) == DQA_BAD_ARGUMENT);
  CHECK(unpack(blob, 6, 6) != DQA_OK);
  for (size_t length = 0; length < blob.size(); ++length) {
    CHECK(unpack(Bytes(blob.begin(), blob.begin() + static_cast<long>(length))) ==
          DQA_TRUNCATED);
  }
  Bytes longer = blob;
  longer.push_back(0);
  CHECK(unpack(longer) == DQA_OVERSIZED);
  CHECK(unpack(with(0, 'X')) == DQA_CORRUPT);
  CHECK(unpack(with(4, 2)) == DQA_BAD_VERSION);
  CHECK(std::strcmp(error.message, "version must be 1. Received: version=2") == 0);
  CHECK(unpack(with(5, 3)) == DQA_CORRUPT);
  CHECK(unpack(with(6, 1)) == DQA_CORRUPT);
  CHECK(unpack(with(12, 0)) == DQA_CORRUPT);
  CHECK(unpack(with(12, 7)) == DQA_CORRUPT);
  CHECK(unpack(with(20, 0)) == DQA_CORRUPT);
  // Two-thread failures are reported as well.
  CHECK(unpack(with(28, 0xff), 6, 7, 2) != DQA_OK);
  CHECK(dqa_pack_strip(codec.get(), static_cast<DqaStorage>(3), DQA_FLOAT32,
                       values.data(), 1, blob.data(), blob.size(), &size, nullptr,
                       &error) == DQA_BAD_ARGUMENT);
  CHECK(dqa_pack_strip(codec.get(), DQA_RAW, DQA_FLOAT32, values.data(), 0, blob.data(),
                       blob.size(), &size, nullptr, &error) == DQA_BAD_ARGUMENT);
  CHECK(dqa_pack_strip(codec.get(), DQA_RAW, DQA_FLOAT32, values.data(), 1, blob.data(),
                       1, &size, nullptr, &error) == DQA_NO_SPACE);
  CHECK(dqa_unpack_strip(codec.get(), DQA_RAW, DQA_FLOAT32, blob.data(), 2, 1,
                         back.data(), nullptr, &error) == DQA_TRUNCATED);
  CHECK(dqa_unpack_strip(codec.get(), DQA_RAW, DQA_FLOAT32, blob.data(), 9, 1,
                         back.data(), nullptr, &error) == DQA_OVERSIZED);
  DqaCodec* none = nullptr;
  const DqaTable view = table.view();
  const DqaIsa absent = dqa_codec_isa(nullptr) == DQA_NEON ? DQA_AVX2 : DQA_NEON;
  CHECK(dqa_codec_create(&view, absent, &none, &error) == DQA_BAD_ARGUMENT);
}

// Many strips on many threads: the bytes are those of one thread, and so is the
// failure.
void check_threads() {
  Random random{88172645463325252u};
  const Table table = random_table(4, 2, 24, &random);
  const Codec codec = codec_of(table, DQA_AUTO);
  const DqaGeometry geometry = {97, 60, 2};
  const std::vector<float> values = random_values(table, 97u * 60 * 24, &random);
  for (int s = DQA_RAW; s <= DQA_ALL; ++s) {
    const auto storage = static_cast<DqaStorage>(s);
    Bytes first, blob(dqa_blob_bound(codec.get(), storage, &geometry));
    std::vector<float> first_back, back(values.size());
    DqaError first_error = {}, error = {};
    for (const uint32_t threads : {1u, 2u, 3u, 8u, 100u}) {
      size_t size = 0;
      CHECK(dqa_pack(codec.get(), storage, DQA_FLOAT32, values.data(), &geometry,
                     threads, blob.data(), blob.size(), &size, nullptr) == DQA_OK);
      Bytes written(blob.begin(), blob.begin() + static_cast<long>(size));
      CHECK(dqa_unpack(codec.get(), DQA_FLOAT32, written.data(), size, 97, 60, threads,
                       back.data(), nullptr) == DQA_OK);
      if (threads == 1) {
        first = written;
        first_back = back;
      }
      CHECK(written == first && same(back, first_back));
      // Strips 5 and 6 end elsewhere, each off by an amount of its own.
      written[16 + 4 * 4] ^= 1;
      written[16 + 4 * 6] ^= 6;
      CHECK(dqa_unpack(codec.get(), DQA_FLOAT32, written.data(), size, 97, 60, threads,
                       back.data(), &error) != DQA_OK);
      if (threads == 1) first_error = error;
      CHECK(std::strcmp(error.message, first_error.message) == 0);
    }
  }
}

// Every rule of a block, broken alone.
void check_bad_blocks() {
  const Codec codec = codec_of(plain_table(), DQA_AUTO);
  const size_t count = 2000;  // four streams of 504, 504, 504 and 488 zeros
  Bytes section = {63, 0, 63, 0, 63, 0, 61, 0};
  section.resize(8 + 63 * 3 + 61, 0);
  Bytes plane(count / 4 + 8);
  DqaError error;
  const auto decode = [&](const Bytes& bytes) {
    const std::unique_ptr<uint8_t[]> exact(new uint8_t[bytes.size()]);
    std::copy(bytes.begin(), bytes.end(), exact.get());
    return dqa_decode_blocks(codec.get(), DQA_RESIDUAL, exact.get(), bytes.size(),
                             count, plane.data(), &error);
  };
  const auto with = [&](size_t at, uint8_t value) {
    Bytes bytes = section;
    bytes[at] = value;
    return bytes;
  };
  CHECK(decode(section) == DQA_OK);
  for (size_t length = 0; length < section.size(); ++length) {
    CHECK(decode(Bytes(section.begin(), section.begin() + static_cast<long>(length))) ==
          DQA_TRUNCATED);
  }
  Bytes longer = section;
  longer.push_back(0);
  CHECK(decode(longer) == DQA_OVERSIZED);
  CHECK(decode(with(2, 0)) == DQA_CORRUPT);   // a stream of no bytes
  CHECK(decode(with(1, 2)) == DQA_CORRUPT);   // larger than the raw form
  CHECK(decode(with(0, 62)) == DQA_CORRUPT);  // symbols beyond the stream
  CHECK(decode(with(20, 0xff)) == DQA_CORRUPT);
  CHECK(decode(with(section.size() - 1, 0xff)) == DQA_CORRUPT);
  CHECK(decode(Bytes(100, 0)) == DQA_TRUNCATED);  // a raw block cut short
  CHECK(dqa_decode_blocks(codec.get(), DQA_RESIDUAL, section.data(), section.size(), 0,
                          plane.data(), &error) == DQA_BAD_ARGUMENT);
}

}  // namespace

int main(int arguments, char** values) {
  if (arguments != 2) {
    std::fprintf(stderr, "usage: codec_test path/to/tests/golden\n");
    return 2;
  }
  const DqaIsa best = dqa_codec_isa(nullptr);
  for (const char* name : kGoldenCases) {
    check_golden(std::string(values[1]) + "/" + name, DQA_SCALAR);
    check_golden(std::string(values[1]) + "/" + name, best);
  }
  check_every_width(best);
  check_bad_tables();
  check_without_codewords();
  check_bad_calls();
  check_threads();
  check_bad_blocks();
  check_residual_tables(values[1]);
  const char* const names[] = {"auto", "scalar", "avx2", "neon"};
  std::printf("codec_test: %d checks hold; scalar and %s agree\n", checks, names[best]);
  return 0;
}
