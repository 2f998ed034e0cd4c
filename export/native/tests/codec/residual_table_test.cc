// The reader of DQA_RESIDUAL against buffers that Python wrote, and every rule of the
// format broken alone.
#include "dqa/residual_table.h"

#include <algorithm>
#include <functional>
#include <memory>

#include "codec/crc32.h"
#include "tests/checks.h"

namespace {

struct Close {
  void operator()(DqaTables* tables) const { dqa_tables_close(tables); }
};
using Tables = std::unique_ptr<DqaTables, Close>;

// A copy of its exact size, so that a sanitizer sees every byte read beyond it; it is
// gone when the tables are used.
DqaStatus open(const Bytes& bytes, Tables* tables, DqaError* error) {
  const std::unique_ptr<uint8_t[]> exact(new uint8_t[bytes.size()]);
  std::copy(bytes.begin(), bytes.end(), exact.get());
  DqaTables* opened = nullptr;
  const DqaStatus status = dqa_tables_open(exact.get(), bytes.size(), &opened, error);
  CHECK((opened != nullptr) == (status == DQA_OK));
  tables->reset(opened);
  return status;
}

Tables opened(const Bytes& bytes) {
  Tables tables;
  DqaError error = {};
  if (open(bytes, &tables, &error) != DQA_OK) {
    std::fprintf(stderr, "%s\n", error.message);
    std::exit(1);
  }
  return tables;
}

const DqaLayer* find(const Tables& tables, const std::string& name) {
  return dqa_tables_find(tables.get(), name.data(), name.size());
}

void put(Bytes* bytes, size_t at, uint64_t value, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    (*bytes)[at + i] = static_cast<uint8_t>(value >> (8 * i));
  }
}

Bytes joined(const Bytes& first, const Bytes& second) {
  Bytes both(first.size() + second.size());
  std::copy(first.begin(), first.end(), both.begin());
  std::copy(second.begin(), second.end(),
            both.end() - static_cast<long>(second.size()));
  return both;
}

// Records with the header and the checksum that fit them.
Bytes buffer(const Bytes& records, uint64_t count) {
  const Bytes header = {'D', 'Q', 'A', 'R', 1, 0, 0, 0, 0, 0, 0, 0};
  Bytes bytes = joined(joined(header, records), Bytes(4));
  put(&bytes, 6, count, 2);
  put(&bytes, 8, bytes.size(), 4);
  put(&bytes, bytes.size() - 4, dqa::crc32(bytes.data(), bytes.size() - 4), 4);
  return bytes;
}

// n = 1, m = 1, signed, shape (2, 3), mask 101: the example of the Python tests.
Bytes record(const std::string& name) {
  Bytes size(2);
  put(&size, 0, name.size(), 2);
  const Bytes rest = {1, 1,    1, 2, 2,    0,    0, 0, 3, 0,    0, 0, 5, 0, 0,
                      0, 0x3f, 0, 0, 0x80, 0x3f, 0, 0, 0, 0x40, 1, 1, 1, 1};
  return joined(joined(size, Bytes(name.begin(), name.end())), rest);
}

// Where the parts of record("r") begin.
constexpr size_t kBits = 3, kExtraBits = 4, kSigned = 5, kRank = 6, kChannels = 11,
                 kScale = 16, kResidualLengths = 28, kBaseLengths = 30;

// Every golden case's table, under its name: of version 1, and the one of version 2.
void check_golden_tables(const std::string& golden) {
  const Tables tables = opened(read_bytes(golden + "/metadata/cases.bin"));
  const Tables tail = opened(read_bytes(golden + "/metadata/tail.bin"));
  CHECK(dqa_tables_count(tail.get()) == 1);
  CHECK(dqa_tables_count(tables.get()) == std::size(kGoldenCases) - 1);
  for (const char* name : kGoldenCases) {
    const Fields fields = golden_fields(golden + "/" + name);
    const Table wanted = golden_table(fields);
    const DqaLayer* const found = find(tables, name);
    const DqaLayer* const layer = found != nullptr ? found : find(tail, name);
    CHECK(layer != nullptr && layer->name == std::string(name));
    const auto& shape = fields.at("shape");  // with the batch axis
    CHECK(layer->rank + 1 == shape.size());
    for (size_t axis = 0; axis < layer->rank; ++axis) {
      CHECK(layer->shape[axis] == as_number(shape[axis + 1]));
    }
    const DqaTable& table = layer->table;
    CHECK(table.bits == wanted.bits && table.extra_bits == wanted.extra_bits);
    CHECK(table.sign == wanted.sign);
    CHECK(Bytes(table.mask, table.mask + table.channels) == wanted.mask);
    CHECK(table.channels == wanted.scale.size());
    CHECK(std::memcmp(table.scale, wanted.scale.data(), 4 * wanted.scale.size()) == 0);
    CHECK(Bytes(table.residual_lengths,
                table.residual_lengths + wanted.residual_lengths.size()) ==
          wanted.residual_lengths);
    CHECK(Bytes(table.base_lengths, table.base_lengths + wanted.base_lengths.size()) ==
          wanted.base_lengths);
    DqaCodec* codec = nullptr;
    CHECK(dqa_codec_create(&table, DQA_AUTO, &codec, nullptr) == DQA_OK);
    dqa_codec_destroy(codec);
  }
  CHECK(find(tables, "absent") == nullptr);
  CHECK(dqa_tables_layer(tables.get(), 0) != nullptr);
  CHECK(dqa_tables_layer(tables.get(), std::size(kGoldenCases) - 1) == nullptr);
}

// Names of every length of UTF-8, with a NUL, and none at all; a known size of 0.
void check_golden_names(const std::string& golden) {
  const Tables tables = opened(read_bytes(golden + "/metadata/names.bin"));
  const std::string names[] = {"",
                               "block/relu",
                               "zweite Schicht \xc3\xa4",
                               "\xe6\xbf\x80\xe6\xb4\xbb",
                               "\xf0\x9f\xa7\xaa",
                               std::string("a\0b", 3)};
  CHECK(dqa_tables_count(tables.get()) == std::size(names));
  for (size_t i = 0; i < std::size(names); ++i) {
    const DqaLayer* const layer = dqa_tables_layer(tables.get(), i);
    CHECK(std::string(layer->name, layer->name_size) == names[i]);
    CHECK(layer->name[layer->name_size] == 0);
    CHECK(find(tables, names[i]) == layer);
    CHECK(layer->rank == i + 1 && layer->table.channels == i + 1);
    for (size_t axis = 0; axis < i; ++axis) CHECK(layer->shape[axis] == 0);
    CHECK(layer->shape[i] == i + 1);
  }
  CHECK(find(tables, "a") == nullptr);
}

void check_header_rules() {
  Tables tables;
  DqaError error;
  const Bytes good = buffer(record("r"), 1);
  const auto with = [&](size_t at, uint8_t value) {
    Bytes bytes = good;
    bytes[at] = value;
    return bytes;
  };
  CHECK(open(good, &tables, &error) == DQA_OK);
  CHECK(open(buffer({}, 0), &tables, &error) == DQA_OK);
  CHECK(dqa_tables_count(tables.get()) == 0 && find(tables, "") == nullptr);
  CHECK(open(joined(good, Bytes(7, 0)), &tables, &error) == DQA_OK);
  for (size_t length = 0; length < good.size(); ++length) {
    const Bytes cut(good.begin(), good.begin() + static_cast<long>(length));
    CHECK(open(cut, &tables, &error) == DQA_TRUNCATED);
  }
  for (size_t bit = 0; bit < 8 * good.size(); ++bit) {
    CHECK(open(with(bit / 8, static_cast<uint8_t>(good[bit / 8] ^ 1 << bit % 8)),
               &tables, &error) != DQA_OK);
    CHECK(std::strstr(error.message, "Received") != nullptr);
  }
  CHECK(open(with(0, 'X'), &tables, &error) == DQA_CORRUPT);
  CHECK(open(with(4, 3), &tables, &error) == DQA_BAD_VERSION);
  CHECK(std::strcmp(error.message,
                    "DQA_RESIDUAL: version must be 1 or 2. Received: "
                    "version=3. Upgrade the library, or export the file again") == 0);
  CHECK(open(with(8, 15), &tables, &error) == DQA_CORRUPT);
  CHECK(open(with(11, 0x80), &tables, &error) == DQA_TRUNCATED);
  CHECK(open(with(20, 9), &tables, &error) == DQA_CORRUPT);
  CHECK(std::strstr(error.message, "CRC-32") != nullptr);
  CHECK(open(buffer(record("r"), 2), &tables, &error) == DQA_TRUNCATED);
  CHECK(open(buffer(record("r"), 0), &tables, &error) == DQA_OVERSIZED);
  CHECK(open(buffer(joined(record("r"), {0}), 1), &tables, &error) == DQA_OVERSIZED);
  CHECK(open(buffer(joined(record("r"), record("r")), 2), &tables, &error) ==
        DQA_CORRUPT);
  CHECK(std::strstr(error.message, "names must be unique") != nullptr);
  CHECK(open(buffer(joined(record("r"), record("s")), 2), &tables, &error) == DQA_OK);
}

// Each under a checksum that fits.
void check_record_rules() {
  const auto refusal = [](const std::function<void(Bytes*)>& harm, const char* rule) {
    Bytes bytes = record("r");
    harm(&bytes);
    Tables tables;
    DqaError error = {};
    const DqaStatus status = open(buffer(bytes, 1), &tables, &error);
    CHECK(std::strstr(error.message, rule) != nullptr);
    return status;
  };
  const auto set = [&](size_t at, uint8_t value, const char* rule) {
    return refusal([=](Bytes* bytes) { (*bytes)[at] = value; }, rule);
  };
  CHECK(set(kBits, 0, "bits must be") == DQA_BAD_TABLE);
  CHECK(set(kBits, 9, "bits must be") == DQA_BAD_TABLE);
  CHECK(set(kExtraBits, 5, "extra_bits in 0..4") == DQA_BAD_TABLE);
  CHECK(set(kBits, 8, "their sum at most 8") == DQA_BAD_TABLE);
  CHECK(set(kSigned, 2, "sign must be") == DQA_BAD_TABLE);
  CHECK(set(kRank, 0, "rank must be") == DQA_BAD_TABLE);
  CHECK(set(kRank, 255, "record must end") == DQA_TRUNCATED);
  CHECK(set(kChannels, 0, "number of channels") == DQA_BAD_TABLE);
  CHECK(set(0, 0xff, "record must end") == DQA_TRUNCATED);
  // 2^32 - 1 channels: nothing of their size is asked for.
  CHECK(refusal([](Bytes* bytes) { put(bytes, kChannels, 0xffffffff, 4); },
                "record must end") == DQA_TRUNCATED);
  for (const uint64_t pattern :
       {0u, 0x80000000u, 0xbf800000u, 0x7f800000u, 0x7fc00000u, 0x7fffffffu}) {
    CHECK(refusal([=](Bytes* bytes) { put(bytes, kScale + 4, pattern, 4); },
                  "scale must be") == DQA_BAD_TABLE);
  }
  CHECK(set(kResidualLengths, 0, "must be in 1..12") == DQA_BAD_TABLE);
  CHECK(set(kResidualLengths, 13, "must be in 1..12") == DQA_BAD_TABLE);
  CHECK(set(kBaseLengths, 2, "incomplete") == DQA_BAD_TABLE);
  // n = 2 takes four base lengths.
  CHECK(refusal(
            [](Bytes* bytes) {
              (*bytes)[kBits] = 2;
              *bytes = joined(*bytes, {2, 2});
            },
            "over-subscribed") == DQA_BAD_TABLE);
  // m = 0 has one symbol, of no bits.
  CHECK(refusal(
            [](Bytes* bytes) {
              (*bytes)[kExtraBits] = 0;
              bytes->pop_back();
            },
            "a single symbol") == DQA_BAD_TABLE);
}

void check_utf8_rules() {
  const auto status_of = [](const std::string& name) {
    Tables tables;
    DqaError error;
    return open(buffer(record(name), 1), &tables, &error);
  };
  for (const char* name :
       {"\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
        "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    CHECK(status_of(name) == DQA_OK);
  }
  // Alone, overlong, surrogate, beyond U+10FFFF, cut short, not continued.
  for (const char* name :
       {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80",
        "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xc2",
        "\xe1\x80", "\xf1\x80\x80", "\xc2\x41", "\xe1\x80\x41", "\xf1\x80\x80\xc0"}) {
    CHECK(status_of(name) == DQA_CORRUPT);
  }
}

}  // namespace

void check_residual_tables(const std::string& golden) {
  check_golden_tables(golden);
  check_golden_names(golden);
  check_header_rules();
  check_record_rules();
  check_utf8_rules();
}
