// Reading DQA_RESIDUAL: one pass checks where everything ends, then memory is taken and
// a second pass copies the records and checks their numbers.
#include "dqa/residual_table.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <new>

#include "codec/bits.h"
#include "codec/crc32.h"
#include "codec/errors.h"
#include "codec/table.h"

namespace {

using dqa::crc32;
using dqa::fail;

constexpr uint8_t kMagic[4] = {'D', 'Q', 'A', 'R'};
constexpr unsigned kWithoutZeroPoints = 1, kVersion = 2;
constexpr size_t kHeader = 12;
constexpr size_t kChecksum = 4;

// Bytes of the character at `at`, 0 if it is not UTF-8 (Unicode 15, table 3-7).
size_t utf8_bytes(const uint8_t* at, size_t left) {
  const uint8_t first = at[0];
  if (first < 0x80) return 1;
  size_t bytes = 0;
  uint8_t low = 0x80, high = 0xbf;  // of the second byte
  if (first >= 0xc2 && first <= 0xdf) {
    bytes = 2;
  } else if (first >= 0xe0 && first <= 0xef) {
    bytes = 3;
    if (first == 0xe0) low = 0xa0;   // no longer than needed
    if (first == 0xed) high = 0x9f;  // no surrogates
  } else if (first >= 0xf0 && first <= 0xf4) {
    bytes = 4;
    if (first == 0xf0) low = 0x90;
    if (first == 0xf4) high = 0x8f;  // not beyond U+10FFFF
  }
  if (bytes == 0 || bytes > left || at[1] < low || at[1] > high) return 0;
  for (size_t i = 2; i < bytes; ++i) {
    if (at[i] < 0x80 || at[i] > 0xbf) return 0;
  }
  return bytes;
}

bool is_utf8(const uint8_t* text, size_t size) {
  for (size_t at = 0; at < size;) {
    const size_t bytes = utf8_bytes(text + at, size - at);
    if (bytes == 0) return false;
    at += bytes;
  }
  return true;
}

// Reads bytes one after the other and never past the end of the records.
class Reader {
 public:
  Reader(const uint8_t* data, size_t size) : at_(data), left_(size) {}

  // `count` elements of `bytes` bytes, NULL if they are not all there.
  const uint8_t* read(size_t count, size_t bytes) {
    if (count > left_ / bytes) return nullptr;
    const uint8_t* const start = at_;
    at_ += count * bytes;
    left_ -= count * bytes;
    return start;
  }
  size_t left() const { return left_; }

 private:
  const uint8_t* at_;
  size_t left_;
};

// Where one record's parts begin in the buffer.
struct Record {
  size_t name_size, rank, channels;
  uint32_t bits, extra_bits, sign;
  const uint8_t *name, *shape, *mask, *scale, *residual_lengths, *base_lengths;
};

DqaStatus ends_early(size_t index, DqaError* error) {
  return fail(error, DQA_TRUNCATED,
              "DQA_RESIDUAL: every record must end before the checksum; it is "
              "truncated. Received: record %zu, which does not",
              index);
}

DqaStatus read_record(Reader* reader, unsigned version, size_t index, Record* record,
                      DqaError* error) {
  const uint8_t* const name_size = reader->read(1, 2);
  if (name_size == nullptr) return ends_early(index, error);
  record->name_size = static_cast<size_t>(dqa::load_bytes(name_size, 2));
  record->name = reader->read(record->name_size, 1);
  if (record->name == nullptr) return ends_early(index, error);
  if (!is_utf8(record->name, record->name_size)) {
    return fail(error, DQA_CORRUPT,
                "DQA_RESIDUAL: a layer's name must be UTF-8. Received: record %zu, "
                "whose is not",
                index);
  }
  const uint8_t* const numbers = reader->read(4, 1);
  if (numbers == nullptr) return ends_early(index, error);
  record->bits = numbers[0];
  record->extra_bits = numbers[1];
  record->sign = numbers[2];
  if (record->sign > 1 && version == kWithoutZeroPoints) {
    return fail(
        error, DQA_BAD_TABLE,
        "DQA_RESIDUAL, record %zu: sign must be 0 or 1 in version %u. Received: "
        "sign=%u",
        index, version, record->sign);
  }
  record->rank = numbers[3];
  DqaError rule = {};
  if (const DqaStatus status =
          dqa::check_numbers(record->bits, record->extra_bits, record->sign, &rule)) {
    return fail(error, status, "DQA_RESIDUAL, record %zu: %s", index, rule.message);
  }
  if (record->rank < 1) {
    return fail(error, DQA_BAD_TABLE,
                "DQA_RESIDUAL, record %zu: rank must be at least 1. Received: rank=0",
                index);
  }
  record->shape = reader->read(record->rank, 4);
  if (record->shape == nullptr) return ends_early(index, error);
  const uint8_t* const last = record->shape + 4 * (record->rank - 1);
  record->channels = static_cast<size_t>(dqa::load_bytes(last, 4));
  if (record->channels < 1) {
    return fail(error, DQA_BAD_TABLE,
                "DQA_RESIDUAL, record %zu: shape must end in the number of channels, "
                "at least 1. Received: 0",
                index);
  }
  record->mask = reader->read(record->channels / 8 + (record->channels % 8 != 0), 1);
  if (record->mask == nullptr) return ends_early(index, error);
  record->scale = reader->read(record->channels, sizeof(float));
  if (record->scale == nullptr) return ends_early(index, error);
  record->residual_lengths = reader->read(size_t{1} << record->extra_bits, 1);
  if (record->residual_lengths == nullptr) return ends_early(index, error);
  record->base_lengths = reader->read(size_t{1} << record->bits, 1);
  if (record->base_lengths == nullptr) return ends_early(index, error);
  return DQA_OK;
}

// What all records together need. No sum can overflow: each is below the buffer's size
// plus a byte for each record.
struct Needs {
  size_t bytes = 0;  // names with their terminators, masks, lengths
  size_t shapes = 0, scales = 0;

  void add(const Record& record) {
    bytes += record.name_size + 1 + record.channels + (size_t{1} << record.extra_bits) +
             (size_t{1} << record.bits);
    shapes += record.rank;
    scales += record.channels;
  }
};

// The buffer's own claims, and where its records are.
DqaStatus read_header(const uint8_t* data, size_t size, size_t* count, Reader* records,
                      DqaError* error) {
  if (size < kHeader) {
    return fail(error, DQA_TRUNCATED,
                "DQA_RESIDUAL must have a header of %zu bytes; it is truncated. "
                "Received: %zu bytes",
                kHeader, size);
  }
  if (std::memcmp(data, kMagic, sizeof kMagic) != 0) {
    return fail(error, DQA_CORRUPT,
                "DQA_RESIDUAL must start with DQAR. Received: bytes %02x %02x %02x "
                "%02x",
                unsigned{data[0]}, unsigned{data[1]}, unsigned{data[2]},
                unsigned{data[3]});
  }
  const auto version = static_cast<unsigned>(dqa::load_bytes(data + 4, 2));
  if (version < kWithoutZeroPoints || version > kVersion) {
    return fail(error, DQA_BAD_VERSION,
                "DQA_RESIDUAL: version must be %u or %u. Received: version=%u. Upgrade "
                "the library, or export the file again",
                kWithoutZeroPoints, kVersion, version);
  }
  const uint64_t stated = dqa::load_bytes(data + 8, 4);
  if (stated < kHeader + kChecksum) {
    return fail(error, DQA_CORRUPT,
                "DQA_RESIDUAL must state a size of at least %zu bytes. Received: "
                "size=%u",
                kHeader + kChecksum, static_cast<unsigned>(stated));
  }
  if (stated > size) {
    return fail(error, DQA_TRUNCATED,
                "DQA_RESIDUAL must have the %u bytes that it states; it is truncated. "
                "Received: %zu bytes",
                static_cast<unsigned>(stated), size);
  }
  const size_t body = static_cast<size_t>(stated) - kChecksum;
  const auto wanted = static_cast<uint32_t>(dqa::load_bytes(data + body, 4));
  const uint32_t actual = crc32(data, body);
  if (actual != wanted) {
    return fail(error, DQA_CORRUPT,
                "DQA_RESIDUAL: the CRC-32 must be that of the bytes. Received: %08x "
                "for bytes of %08x",
                unsigned{wanted}, unsigned{actual});
  }
  *count = static_cast<size_t>(dqa::load_bytes(data + 6, 2));
  *records = Reader(data + kHeader, body - kHeader);
  return DQA_OK;
}

// True if `a` comes before `b`: by size, then by bytes.
bool name_before(const char* a, size_t a_size, const char* b, size_t b_size) {
  if (a_size != b_size) return a_size < b_size;
  return a_size > 0 && std::memcmp(a, b, a_size) < 0;
}

}  // namespace

struct DqaTables {
  size_t count = 0;
  std::unique_ptr<DqaLayer[]> layers;
  std::unique_ptr<uint16_t[]> by_name;  // places of the layers in `name_before` order
  std::unique_ptr<uint8_t[]> bytes;
  std::unique_ptr<uint32_t[]> shapes;
  std::unique_ptr<float[]> scales;

  bool allocate(size_t layer_count, const Needs& needs) {
    count = layer_count;
    layers.reset(new (std::nothrow) DqaLayer[count]);
    by_name.reset(new (std::nothrow) uint16_t[count]);
    bytes.reset(new (std::nothrow) uint8_t[needs.bytes]);
    shapes.reset(new (std::nothrow) uint32_t[needs.shapes]);
    scales.reset(new (std::nothrow) float[needs.scales]);
    return layers && by_name && bytes && shapes && scales;
  }

  bool before(uint16_t a, uint16_t b) const {
    return name_before(layers[a].name, layers[a].name_size, layers[b].name,
                       layers[b].name_size);
  }
};

namespace {

// Copies one record to where `bytes`, `shape` and `scale` point, and moves them on.
DqaLayer copy_record(const Record& record, uint8_t** bytes, uint32_t** shape,
                     float** scale) {
  const auto copy_bytes = [bytes](const uint8_t* from, size_t size) {
    uint8_t* const to = *bytes;
    std::memcpy(to, from, size);
    *bytes += size;
    return to;
  };
  DqaLayer layer = {};
  layer.name = reinterpret_cast<const char*>(copy_bytes(record.name, record.name_size));
  layer.name_size = record.name_size;
  *(*bytes)++ = 0;
  layer.shape = *shape;
  layer.rank = record.rank;
  std::memcpy(*shape, record.shape, 4 * record.rank);
  *shape += record.rank;
  uint8_t* const mask = *bytes;
  for (size_t c = 0; c < record.channels; ++c) {
    mask[c] = record.mask[c / 8] >> (c % 8) & 1;
  }
  *bytes += record.channels;
  std::memcpy(*scale, record.scale, sizeof(float) * record.channels);
  layer.table = {record.bits,
                 record.extra_bits,
                 record.sign,
                 static_cast<uint32_t>(record.channels),
                 mask,
                 *scale,
                 copy_bytes(record.residual_lengths, size_t{1} << record.extra_bits),
                 copy_bytes(record.base_lengths, size_t{1} << record.bits)};
  *scale += record.channels;
  return layer;
}

DqaStatus copy_records(Reader reader, DqaTables* tables, DqaError* error) {
  uint8_t* bytes = tables->bytes.get();
  uint32_t* shape = tables->shapes.get();
  float* scale = tables->scales.get();
  for (size_t index = 0; index < tables->count; ++index) {
    Record record = {};
    if (const DqaStatus status =
            read_record(&reader, kVersion, index, &record, error)) {
      return status;
    }
    tables->layers[index] = copy_record(record, &bytes, &shape, &scale);
    tables->by_name[index] = static_cast<uint16_t>(index);
    DqaError rule = {};
    if (const DqaStatus status = dqa::check_table(tables->layers[index].table, &rule)) {
      return fail(error, status, "DQA_RESIDUAL, record %zu: %s", index, rule.message);
    }
  }
  return DQA_OK;
}

// Sorts the layers by name; two of the same name end up side by side.
DqaStatus sort_names(DqaTables* tables, DqaError* error) {
  uint16_t* const order = tables->by_name.get();
  std::sort(order, order + tables->count,
            [tables](uint16_t a, uint16_t b) { return tables->before(a, b); });
  for (size_t i = 1; i < tables->count; ++i) {
    if (tables->before(order[i - 1], order[i])) continue;
    return fail(error, DQA_CORRUPT,
                "DQA_RESIDUAL: names must be unique. Received: records %u and %u of "
                "one name",
                unsigned{std::min(order[i - 1], order[i])},
                unsigned{std::max(order[i - 1], order[i])});
  }
  return DQA_OK;
}

}  // namespace

DqaStatus dqa_tables_open(const uint8_t* data, size_t size, DqaTables** tables,
                          DqaError* error) {
  *tables = nullptr;
  size_t count = 0;
  Reader records(nullptr, 0);
  if (const DqaStatus status = read_header(data, size, &count, &records, error)) {
    return status;
  }
  const auto version = static_cast<unsigned>(dqa::load_bytes(data + 4, 2));
  Needs needs;
  Reader reader = records;
  for (size_t index = 0; index < count; ++index) {
    Record record = {};
    if (const DqaStatus status = read_record(&reader, version, index, &record, error)) {
      return status;
    }
    needs.add(record);
  }
  if (reader.left() != 0) {
    return fail(error, DQA_OVERSIZED,
                "DQA_RESIDUAL must end with its last record; it is oversized. "
                "Received: %zu bytes behind it",
                reader.left());
  }
  std::unique_ptr<DqaTables> opened(new (std::nothrow) DqaTables);
  if (opened == nullptr || !opened->allocate(count, needs)) {
    return fail(error, DQA_NO_MEMORY, "no memory for the tables of %zu layers", count);
  }
  if (const DqaStatus status = copy_records(records, opened.get(), error))
    return status;
  if (const DqaStatus status = sort_names(opened.get(), error)) return status;
  *tables = opened.release();
  return DQA_OK;
}

void dqa_tables_close(DqaTables* tables) { delete tables; }

size_t dqa_tables_count(const DqaTables* tables) { return tables->count; }

const DqaLayer* dqa_tables_layer(const DqaTables* tables, size_t index) {
  return index < tables->count ? &tables->layers[index] : nullptr;
}

const DqaLayer* dqa_tables_find(const DqaTables* tables, const char* name,
                                size_t name_size) {
  const uint16_t* const begin = tables->by_name.get();
  const uint16_t* const end = begin + tables->count;
  const uint16_t* const match =
      std::lower_bound(begin, end, name, [&](uint16_t place, const char* wanted) {
        const DqaLayer& layer = tables->layers[place];
        return name_before(layer.name, layer.name_size, wanted, name_size);
      });
  if (match == end) return nullptr;
  const DqaLayer& layer = tables->layers[*match];
  return name_before(name, name_size, layer.name, layer.name_size) ? nullptr : &layer;
}
