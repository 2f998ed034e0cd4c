#include "runtime/plan/read_plan.h"

#include <algorithm>
#include <cstring>

#include "codec/crc32.h"
#include "codec/errors.h"
#include "codec/table.h"
#include "dqa/residual_table.h"
#include "runtime/ops/coded.h"
#include "runtime/ops/winograd.h"
#include "runtime/plan/check.h"
#include "runtime/schedule/row_schedule.h"

namespace dqa {
namespace {

constexpr uint32_t kVersion = 6;

// Reads numbers one after the other. The length of the bytes was checked.
class Reader {
 public:
  explicit Reader(const uint8_t* data) : at_(data) {}

  template <typename T>
  T read() {
    T value;
    std::memcpy(&value, at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  template <typename T>
  void read(T* value) {
    *value = read<T>();
  }

 private:
  const uint8_t* at_;
};

constexpr size_t kHeaderBytes = 32, kBufferBytes = 44, kTableBytes = 12, kOpBytes = 52,
                 kLinkBytes = 8, kStageBytes = 8;
// Where in the header the counts are, and in a table its class.
constexpr size_t kCountsAt = 20, kStorageAt = 3;

struct Counts {
  uint16_t buffers, tables, ops, links, stages, reserved;
};

Buffer read_buffer(Reader* in) {
  Buffer b;
  b.kind = static_cast<Kind>(in->read<uint8_t>());
  b.type = static_cast<Type>(in->read<uint8_t>());
  in->read(&b.zero);
  in->read(&b.group);
  for (uint32_t* field : {&b.height, &b.width, &b.channels, &b.rows}) in->read(field);
  in->read(&b.left);
  in->read(&b.right);
  for (uint32_t* field : {&b.offset, &b.size, &b.table, &b.slot, &b.peak}) {
    in->read(field);
  }
  return b;
}

Op read_op(Reader* in) {
  Op op;
  op.code = static_cast<OpCode>(in->read<uint8_t>());
  in->read(&op.link_count);
  in->read(&op.first_link);
  in->read(&op.output);
  in->read(&op.rows);
  in->read(&op.taps_y);
  in->read(&op.taps_x);
  for (uint8_t* f : {&op.stride_y, &op.stride_x, &op.dilation_y, &op.dilation_x}) {
    in->read(f);
  }
  in->read(&op.top);
  in->read(&op.left);
  for (uint32_t* field : {&op.weights, &op.multiplier, &op.bias, &op.low, &op.high,
                          &op.power, &op.scratch, &op.shift}) {
    in->read(field);
  }
  return op;
}

constexpr uint32_t kMaxChannels = 1u << 16;

// The codewords of a layer, from the model's metadata. A plan names the layer after
// its table's mask: a byte of length, and as many of the name.
class Codewords {
 public:
  Codewords(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  ~Codewords() { dqa_tables_close(tables_); }
  Codewords(const Codewords&) = delete;
  Codewords& operator=(const Codewords&) = delete;

  // Sets the lengths of a table that is otherwise complete, as far as its class has
  // codewords.
  DqaStatus find(const Plan& plan, uint64_t name_at, DqaStorage storage,
                 DqaTable* table, DqaError* error) {
    if (name_at >= plan.constants_size ||
        name_at + 1 + plan.constants[name_at] > plan.constants_size) {
      return fail(error, DQA_CORRUPT, "the plan is invalid: a layer's name is cut off");
    }
    const uint8_t* const name = plan.constants + name_at + 1;
    const int shown = name[-1];
    const auto* const text = reinterpret_cast<const char*>(name);
    if (data_ == nullptr) {
      return fail(error, DQA_BAD_TABLE,
                  "the plan needs the codewords of layer %.*s: the model has no "
                  "metadata DQA_RESIDUAL. Export the file again",
                  shown, text);
    }
    if (tables_ == nullptr) {
      if (const DqaStatus status = dqa_tables_open(data_, size_, &tables_, error)) {
        return status;
      }
    }
    const DqaLayer* const layer = dqa_tables_find(tables_, text, name[-1]);
    if (layer == nullptr || !is_alike(layer->table, *table)) {
      return fail(error, DQA_BAD_TABLE,
                  "the plan needs the codewords of layer %.*s: the metadata "
                  "DQA_RESIDUAL %s. Export the file again",
                  shown, text,
                  layer == nullptr ? "has no such layer" : "describes another");
    }
    table->residual_lengths = layer->table.residual_lengths;
    if (storage == DQA_ALL) table->base_lengths = layer->table.base_lengths;
    return DQA_OK;
  }

 private:
  static bool is_alike(const DqaTable& a, const DqaTable& b) {
    return a.bits == b.bits && a.extra_bits == b.extra_bits && a.sign == b.sign &&
           a.channels == b.channels && std::memcmp(a.mask, b.mask, a.channels) == 0;
  }

  const uint8_t* data_;
  size_t size_;
  DqaTables* tables_ = nullptr;
};

DqaStatus add_table(Plan* plan, DqaIsa isa, DqaStorage storage, const DqaTable& table,
                    DqaError* error) {
  DqaCodec* codec = nullptr;
  if (const DqaStatus status =
          dqa_codec_create(&table, isa == DQA_SCALAR ? isa : DQA_AUTO, &codec, error)) {
    return status;
  }
  Table added;
  added.codec.reset(codec);
  added.bits = table.bits;
  added.extra_bits = table.extra_bits;
  added.zero_point = zero_point_of(table.bits, table.sign);
  added.channels = table.channels;
  added.storage = storage;
  for (uint32_t c = 0; c < table.channels; ++c) {
    const unsigned shift = table.mask[c] ? 0 : table.extra_bits;
    added.widen.push_back(static_cast<uint8_t>(1u << shift));
    added.narrow.push_back(static_cast<int16_t>(256 >> shift));
  }
  plan->tables.push_back(std::move(added));
  return DQA_OK;
}

DqaStatus read_tables(Reader* in, size_t count, DqaIsa isa, Codewords* codewords,
                      Plan* plan, DqaError* error) {
  for (size_t i = 0; i < count; ++i) {
    const auto bits = in->read<uint8_t>(), extra = in->read<uint8_t>(),
               sign = in->read<uint8_t>(), storage = in->read<uint8_t>();
    const auto channels = in->read<uint32_t>(), mask = in->read<uint32_t>();
    if (channels < 1 || channels > kMaxChannels || bits < 1 || bits > 8 || extra > 4 ||
        storage > DQA_ALL || !is_constant(*plan, mask, channels)) {
      return fail(error, DQA_CORRUPT, "the plan is invalid: table %zu", i);
    }
    const std::vector<float> scale(channels, 1.0f);
    DqaTable table = {bits,         extra,   sign,   channels, plan->constants + mask,
                      scale.data(), nullptr, nullptr};
    if (storage != DQA_RAW) {
      if (const DqaStatus status =
              codewords->find(*plan, uint64_t{mask} + channels,
                              static_cast<DqaStorage>(storage), &table, error)) {
        return status;
      }
    }
    if (const DqaStatus status =
            add_table(plan, isa, static_cast<DqaStorage>(storage), table, error)) {
      return status;
    }
  }
  return DQA_OK;
}

// Bytes that the longest row of codes takes on its way to or from a store, or the tiles
// of a convolution. Buffers that are refused later do not count.
size_t longest_row(const Plan& plan) {
  size_t longest = 0;
  for (const Buffer& b : plan.buffers) {
    if (b.table >= plan.tables.size() || b.width < 1 || b.width > kMaxChannels ||
        b.channels != plan.tables[b.table].channels) {
      continue;
    }
    const Table& table = plan.tables[b.table];
    if (packs_in_line(table, b.channels)) continue;
    const size_t bytes =
        plan.is_coded(b) ? RowRoom(table, b).end : size_t{b.width} * b.channels;
    if (bytes > longest) longest = bytes;
  }
  for (const Op& op : plan.ops) {
    if (op.code == OpCode::kDepthwise && op.first_link < plan.links.size() &&
        plan.links[op.first_link].buffer < plan.buffers.size() &&
        is_grouped(plan.input(op))) {
      longest = std::max(longest, group_window(op, plan.input(op)));
    }
    if (op.code != OpCode::kWinograd || op.first_link >= plan.links.size()) continue;
    const uint16_t in = plan.links[op.first_link].buffer;
    if (in >= plan.buffers.size() || op.output >= plan.buffers.size()) continue;
    const Buffer &from = plan.buffers[in], &to = plan.buffers[op.output];
    if (from.channels < 1 || from.channels > kTileChannels) continue;
    longest = std::max(longest, TileRoom(from, to).end);
  }
  return longest;
}

}  // namespace

bool needs_tables(const uint8_t* data, size_t size) {
  if (size < kHeaderBytes) return false;
  Reader header(data + kCountsAt);
  const auto counts = header.read<Counts>();
  const size_t begin = kHeaderBytes + counts.buffers * kBufferBytes;
  if (begin + counts.tables * kTableBytes > size) return false;
  for (size_t i = 0; i < counts.tables; ++i) {
    if (data[begin + i * kTableBytes + kStorageAt] != DQA_RAW) return true;
  }
  return false;
}

DqaStatus read_plan(const uint8_t* data, size_t size, const uint8_t* constants,
                    size_t constants_size, const uint8_t* tables_data,
                    size_t tables_size, DqaIsa isa, Plan* plan, DqaError* error) {
  if (size < kHeaderBytes + 4 || std::memcmp(data, "DQAG", 4) != 0) {
    return fail(error, DQA_CORRUPT,
                "a plan begins with DQAG and has at least %zu bytes. Received: %zu "
                "bytes",
                kHeaderBytes + 4, size);
  }
  Reader in(data + 4);
  const auto version = in.read<uint16_t>();
  if (version != kVersion) {
    return fail(error, DQA_BAD_VERSION,
                "this runtime reads plans of version %u. Received: version %u. Upgrade "
                "dqa_keras, or export the file again",
                kVersion, unsigned{version});
  }
  in.read<uint16_t>();
  const auto total = in.read<uint32_t>();
  if (total > size || total < kHeaderBytes + 4) {
    return fail(error, DQA_TRUNCATED, "the plan has %zu bytes and needs %u", size,
                total);
  }
  Reader end(data + total - 4);
  if (crc32(data, total - 4) != end.read<uint32_t>()) {
    return fail(error, DQA_CORRUPT, "the plan is damaged: its checksum does not match");
  }
  plan->arena = in.read<uint32_t>();
  const auto wanted = in.read<uint32_t>();
  if (wanted != constants_size) {
    return fail(error, DQA_CORRUPT,
                "the weights must have %u bytes. Received: %zu bytes", wanted,
                constants_size);
  }
  if (reinterpret_cast<uintptr_t>(constants) % sizeof(float) != 0) {
    return fail(error, DQA_BAD_ARGUMENT, "the weights must be aligned to 4 bytes");
  }
  plan->constants = constants;
  plan->constants_size = constants_size;
  const auto counts = in.read<Counts>();
  const size_t records = counts.buffers * kBufferBytes + counts.tables * kTableBytes +
                         counts.ops * (kOpBytes + 1) + counts.links * kLinkBytes +
                         counts.stages * kStageBytes;
  if (kHeaderBytes + records + 4 > total) {
    return fail(error, DQA_TRUNCATED, "the plan has %u bytes and needs %zu", total,
                kHeaderBytes + records + 4);
  }
  Reader tables(data + kHeaderBytes + counts.buffers * kBufferBytes);
  for (size_t i = 0; i < counts.buffers; ++i) {
    const Buffer b = read_buffer(&in);
    if (b.kind == Kind::kInput) plan->inputs.push_back(static_cast<uint16_t>(i));
    if (b.kind == Kind::kOutput) plan->outputs.push_back(static_cast<uint16_t>(i));
    plan->buffers.push_back(b);
  }
  Codewords codewords(tables_data, tables_size);
  if (const DqaStatus status =
          read_tables(&tables, counts.tables, isa, &codewords, plan, error)) {
    return status;
  }
  for (size_t i = 0; i < counts.ops; ++i) plan->ops.push_back(read_op(&tables));
  for (size_t i = 0; i < counts.links; ++i) {
    const auto buffer = tables.read<uint16_t>(), addend = tables.read<uint16_t>();
    plan->links.push_back({buffer, addend, tables.read<uint32_t>()});
  }
  for (size_t i = 0; i < counts.stages; ++i) {
    const auto first = tables.read<uint16_t>(), count = tables.read<uint16_t>();
    plan->stages.push_back({first, count, tables.read<uint32_t>()});
  }
  plan->row_scratch = longest_row(*plan);
  if (const DqaStatus status = check_buffers(*plan, error)) return status;
  if (const DqaStatus status = check_ops(*plan, error)) return status;
  return check_line_buffers(*plan, error);
}

}  // namespace dqa
