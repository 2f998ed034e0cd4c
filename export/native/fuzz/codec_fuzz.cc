// libFuzzer target: a table and some bytes to read with it, or a metadata buffer, all
// hostile. Checks memory through the sanitizers, and that the scalar and the best path
// say and give the same.
//
// Input: 8 bytes (bits, extra bits, signed, channels, rows, row pixels, strip rows,
// mode), the table's arrays (mask, scales, residual lengths, base lengths), then the
// bytes. For a metadata buffer only the mode counts, and it follows the 8 bytes.
// fuzz/make_corpus.py writes seeds in this form.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "codec/crc32.h"
#include "dqa/codec.h"
#include "dqa/residual_table.h"

namespace {

using Bytes = std::vector<uint8_t>;

enum Mode {
  kBlob,
  kBlobOnThreads,
  kStripRaw,
  kStripResidual,
  kStripAll,
  kPack,
  kMetadata,
  kModes
};

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s does not hold\n", what);
  std::abort();
}

// Two blocks of base codes; more would only take time.
constexpr size_t kMaxValues = 20000;

struct Destroy {
  void operator()(DqaCodec* codec) const { dqa_codec_destroy(codec); }
};

// A table seen lately. Building its look-ups takes longer than reading most blobs, and
// a mutation seldom touches the table.
struct Known {
  std::string key;
  std::unique_ptr<DqaCodec, Destroy> scalar, best;
};

const Known* codecs_for(const DqaTable& table, const std::string& key) {
  static std::list<Known> recent;
  for (auto known = recent.begin(); known != recent.end(); ++known) {
    if (known->key == key) {
      recent.splice(recent.begin(), recent, known);
      return &recent.front();
    }
  }
  DqaCodec *scalar = nullptr, *best = nullptr;
  DqaError error = {};
  const DqaStatus status = dqa_codec_create(&table, DQA_SCALAR, &scalar, &error);
  require(dqa_codec_create(&table, DQA_AUTO, &best, nullptr) == status, "same status");
  if (status != DQA_OK) {
    require(scalar == nullptr && error.message[0] != 0, "refused with a message");
    return nullptr;
  }
  Known known{key, {}, {}};
  known.scalar.reset(scalar);
  known.best.reset(best);
  recent.push_front(std::move(known));
  if (recent.size() > 64) recent.pop_back();
  return &recent.front();
}

constexpr size_t kHead = 8;

// The arrays of a table that is out of range only have to be there: it is refused.
size_t residual_lengths(size_t extra_bits) { return size_t{1} << (extra_bits & 7); }
size_t base_lengths(size_t bits) { return size_t{1} << (bits & 15); }

Mode mode_of(const uint8_t* data) { return static_cast<Mode>(data[7] % kModes); }

// Where the bytes to read begin; beyond any input if there is no whole table.
size_t body_offset(const uint8_t* data, size_t size) {
  if (size < kHead) return ~size_t{0};
  if (mode_of(data) == kMetadata) return kHead;
  return kHead + 5 * size_t{data[3]} + residual_lengths(data[1]) +
         base_lengths(data[0]);
}

struct Result {
  DqaStatus status;
  Bytes codes, floats;
};

Result read(const DqaCodec* codec, Mode mode, const uint8_t* bytes, size_t size,
            size_t rows, size_t pixels, size_t channels) {
  Result result;
  const size_t count = rows * pixels * channels;
  result.codes.resize(count);
  result.floats.resize(count * sizeof(float));
  const auto one = [&](DqaType type, Bytes* out) {
    DqaError error = {};
    DqaStatus status;
    if (mode == kBlob || mode == kBlobOnThreads) {
      status = dqa_unpack(codec, type, bytes, size, rows, pixels,
                          mode == kBlobOnThreads ? 3 : 1, out->data(), &error);
    } else {
      const auto storage = static_cast<DqaStorage>(mode - kStripRaw);
      Bytes scratch(dqa_strip_scratch(codec, storage, rows * pixels));
      status = dqa_unpack_strip(codec, storage, type, bytes, size, rows * pixels,
                                out->data(), scratch.data(), &error);
    }
    require(status == DQA_OK || error.message[0] != 0, "refused with a message");
    return status;
  };
  result.status = one(DQA_CODES, &result.codes);
  require(one(DQA_FLOAT32, &result.floats) == result.status, "same status");
  return result;
}

// Packs the bytes as codes; what comes back must pack to the same blob.
Bytes pack(const DqaCodec* codec, const uint8_t* codes, DqaGeometry geometry,
           size_t count) {
  Bytes all;
  for (int s = DQA_RAW; s <= DQA_ALL; ++s) {
    const auto storage = static_cast<DqaStorage>(s);
    Bytes blob(dqa_blob_bound(codec, storage, &geometry)), back(count);
    size_t size = 0;
    require(dqa_pack(codec, storage, DQA_CODES, codes, &geometry, 1, blob.data(),
                     blob.size(), &size, nullptr) == DQA_OK,
            "packs");
    require(dqa_unpack(codec, DQA_CODES, blob.data(), size, geometry.rows,
                       geometry.row_pixels, 1, back.data(), nullptr) == DQA_OK,
            "unpacks");
    Bytes again(blob.size());
    size_t again_size = 0;
    require(dqa_pack(codec, storage, DQA_CODES, back.data(), &geometry, 2, again.data(),
                     again.size(), &again_size, nullptr) == DQA_OK,
            "packs");
    blob.resize(size);
    again.resize(again_size);
    require(blob == again, "same blob");
    all.insert(all.end(), blob.begin(), blob.end());
  }
  return all;
}

// Opens a metadata buffer; reads every byte of every layer, so that the sanitizers see
// them, and finds each by its name. Every 16th gets codecs: building them takes longer
// than anything else here.
void open_tables(const uint8_t* data, size_t size) {
  static unsigned opened = 0;
  DqaTables* tables = nullptr;
  DqaError error = {};
  {
    const Bytes copy(data, data + size);  // gone when the layers are read
    const DqaStatus status = dqa_tables_open(copy.data(), size, &tables, &error);
    require((status == DQA_OK) == (tables != nullptr),
            "tables if and only if it is OK");
  }
  if (tables == nullptr) {
    require(error.message[0] != 0, "refused with a message");
    return;
  }
  const bool with_codecs = ++opened % 16 == 0;
  const size_t count = dqa_tables_count(tables);
  require(dqa_tables_layer(tables, count) == nullptr, "no layer beyond the last");
  for (size_t i = 0; i < count; ++i) {
    const DqaLayer& layer = *dqa_tables_layer(tables, i);
    require(dqa_tables_find(tables, layer.name, layer.name_size) == &layer, "found");
    require(layer.name[layer.name_size] == 0, "terminated");
    const DqaTable& table = layer.table;
    require(layer.shape[layer.rank - 1] == table.channels, "channels come last");
    float sum = 0;
    unsigned important = 0;
    for (size_t c = 0; c < table.channels; ++c) {
      sum += table.scale[c];
      important += table.mask[c];
    }
    require(sum > 0 && important <= table.channels, "scales and mask");
    if (!with_codecs) continue;
    DqaCodec* codec = nullptr;
    require((dqa_codec_create(&table, DQA_AUTO, &codec, nullptr) == DQA_OK) ==
                (table.channels <= 65536),
            "what was read makes a codec");
    dqa_codec_destroy(codec);
  }
  dqa_tables_close(tables);
}

void store4(uint8_t* to, uint32_t value) {
  for (int i = 0; i < 4; ++i) to[i] = static_cast<uint8_t>(value >> (8 * i));
}

// Makes a mutated metadata buffer agree with its own length and checksum, without which
// no reader looks at its records.
void make_consistent(uint8_t* data, size_t size) {
  if (size < 16) return;
  store4(data + 8, static_cast<uint32_t>(size));
  store4(data + size - 4, dqa::crc32(data, size - 4));
}

}  // namespace

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

// Fifteen times in sixteen the table stays: its look-ups take longer to build than most
// bytes take to read. Three mutated metadata buffers in four are made consistent.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  const size_t body = body_offset(data, size);
  if (seed % 16 == 0 || size <= body || max_size <= body) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  const size_t mutated = LLVMFuzzerMutate(data + body, size - body, max_size - body);
  if (mode_of(data) == kMetadata && seed / 16 % 4 != 0) {
    make_consistent(data + body, mutated);
  }
  return body + mutated;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const size_t body = body_offset(data, size);
  if (size < body) return 0;
  if (mode_of(data) == kMetadata) {
    open_tables(data + body, size - body);
    return 0;
  }
  DqaTable table = {};
  table.bits = data[0];
  table.extra_bits = data[1];
  table.sign = data[2];
  table.channels = data[3];
  const size_t rows = data[4], pixels = data[5], strip_rows = data[6];
  const Mode mode = mode_of(data);
  const size_t channels = table.channels;
  const uint8_t* at = data + kHead;
  table.mask = at;
  at += channels;
  std::vector<float> scale(channels);
  if (channels > 0) std::memcpy(scale.data(), at, 4 * channels);
  table.scale = scale.data();
  at += 4 * channels;
  table.residual_lengths = at;
  table.base_lengths = at + residual_lengths(table.extra_bits);
  const std::string key =
      std::string(data, data + 4) + std::string(data + kHead, data + body);
  const Known* const codecs = codecs_for(table, key);
  const size_t values = rows * pixels * channels;
  if (codecs == nullptr || values == 0 || values > kMaxValues) return 0;
  // A copy of its exact size, so that every byte read beyond it is seen.
  const Bytes payload(data + body, data + size);
  if (mode == kPack) {
    const DqaGeometry geometry = {rows, pixels, strip_rows};
    if (payload.size() < values || strip_rows < 1 || strip_rows > rows) return 0;
    require(pack(codecs->scalar.get(), payload.data(), geometry, values) ==
                pack(codecs->best.get(), payload.data(), geometry, values),
            "same blobs");
    return 0;
  }
  const Result first = read(codecs->scalar.get(), mode, payload.data(), payload.size(),
                            rows, pixels, channels);
  const Result second = read(codecs->best.get(), mode, payload.data(), payload.size(),
                             rows, pixels, channels);
  require(first.status == second.status, "same status");
  if (first.status == DQA_OK) {
    require(first.codes == second.codes && first.floats == second.floats,
            "same values");
  }
  return 0;
}
