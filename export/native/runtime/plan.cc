// Parsing and checking a plan.
#include "plan.h"

#include <cstring>

#include "../src/crc32.h"
#include "../src/errors.h"

namespace dqa {
namespace {

constexpr uint32_t kVersion = 1;
constexpr uint32_t kMaxSide = 1u << 16;
constexpr uint64_t kMaxBytes = uint64_t{1} << 31;

// Takes numbers off the bytes of a plan, whose length was checked.
class Reader {
 public:
  explicit Reader(const uint8_t* data) : at_(data) {}

  template <typename T>
  T take() {
    T value;
    std::memcpy(&value, at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  template <typename T>
  void take(T* value) {
    *value = take<T>();
  }

 private:
  const uint8_t* at_;
};

constexpr size_t kHeaderBytes = 32, kBufferBytes = 44, kTableBytes = 12, kOpBytes = 52,
                 kLinkBytes = 8, kStageBytes = 8;

struct Counts {
  uint16_t buffers, tables, ops, links, stages, reserved;
};

DqaStatus corrupt(DqaError* error, const char* rule, size_t op) {
  return fail(error, DQA_CORRUPT, "the plan is invalid: op %zu: %s", op, rule);
}

Buffer take_buffer(Reader* in) {
  Buffer b;
  b.kind = static_cast<Kind>(in->take<uint8_t>());
  b.type = static_cast<Type>(in->take<uint8_t>());
  in->take(&b.zero);
  b.zero_row = in->take<uint8_t>() != 0;
  for (uint32_t* field : {&b.height, &b.width, &b.channels, &b.rows}) in->take(field);
  in->take(&b.left);
  in->take(&b.right);
  for (uint32_t* field : {&b.offset, &b.size, &b.table, &b.slot, &b.peak}) {
    in->take(field);
  }
  return b;
}

Op take_op(Reader* in) {
  Op op;
  op.code = static_cast<Code>(in->take<uint8_t>());
  in->take(&op.link_count);
  in->take(&op.first_link);
  in->take(&op.output);
  in->take<uint16_t>();
  in->take(&op.taps_y);
  in->take(&op.taps_x);
  for (uint8_t* f : {&op.stride_y, &op.stride_x, &op.dilation_y, &op.dilation_x}) {
    in->take(f);
  }
  in->take(&op.top);
  in->take(&op.left);
  for (uint32_t* field : {&op.weights, &op.multiplier, &op.bias, &op.low, &op.high,
                          &op.power, &op.scratch, &op.shift}) {
    in->take(field);
  }
  return op;
}

bool is_float(const Buffer& b) { return b.type == Type::kFloat; }
bool is_ring(const Buffer& b) { return b.kind == Kind::kRing; }

bool same_size(const Buffer& a, const Buffer& b) {
  return a.height == b.height && a.width == b.width && a.channels == b.channels;
}

bool same_codes(const Buffer& a, const Buffer& b) {
  return a.type == b.type && a.zero == b.zero && a.slot == b.slot;
}

// What the checks of one plan share.
class Checker {
 public:
  Checker(Plan* plan, DqaIsa isa, DqaError* error)
      : plan_(*plan), isa_(isa), error_(error) {}

  DqaStatus tables(Reader* in, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const auto bits = in->take<uint8_t>(), extra = in->take<uint8_t>(),
                 is_signed = in->take<uint8_t>();
      in->take<uint8_t>();
      const auto channels = in->take<uint32_t>(), mask = in->take<uint32_t>();
      if (channels < 1 || channels > kMaxSide || bits < 1 || bits > 8 || extra > 4 ||
          !constant(mask, channels)) {
        return fail(error_, DQA_CORRUPT, "the plan is invalid: table %zu", i);
      }
      if (const DqaStatus status =
              table(bits, extra, is_signed != 0, channels, plan_.constants + mask)) {
        return status;
      }
    }
    return DQA_OK;
  }

  DqaStatus buffers() {
    for (size_t i = 0; i < plan_.buffers.size(); ++i) {
      if (!buffer(plan_.buffers[i])) {
        return fail(error_, DQA_CORRUPT, "the plan is invalid: buffer %zu", i);
      }
    }
    for (const Table& table : plan_.tables) {
      for (const Buffer& b : plan_.buffers) {
        if (b.table != kNone && &plan_.tables[b.table] == &table) {
          const size_t bytes = size_t{b.width} * b.channels;
          if (bytes > plan_.row_scratch) plan_.row_scratch = bytes;
        }
      }
    }
    // Codes are packed from here, and wide loads may reach past the last buffer.
    const uint64_t end = plan_.row_scratch + kSlack;
    for (size_t i = 0; i < plan_.buffers.size(); ++i) {
      const Buffer& b = plan_.buffers[i];
      if ((is_ring(b) || b.kind == Kind::kStored) &&
          (b.offset % 16 != 0 || uint64_t{b.offset} + b.size + end > plan_.arena)) {
        return fail(error_, DQA_CORRUPT,
                    "the plan is invalid: buffer %zu lies outside its arena", i);
      }
    }
    return DQA_OK;
  }

  DqaStatus ops() {
    std::vector<uint32_t> written(plan_.buffers.size(), kNone);
    size_t next = 0;
    for (size_t s = 0; s < plan_.stages.size(); ++s) {
      const Stage& stage = plan_.stages[s];
      if (stage.first != next || stage.count == 0 || stage.steps < 1 ||
          stage.steps > kMaxSide || next + stage.count > plan_.ops.size()) {
        return fail(error_, DQA_CORRUPT, "the plan is invalid: stage %zu", s);
      }
      for (size_t i = 0; i < stage.count; ++i, ++next) {
        const Op& op = plan_.ops[next];
        if (!links(op)) return corrupt(error_, "its buffers do not exist", next);
        const Buffer& output = plan_.buffers[op.output];
        if (output.kind == Kind::kInput || written[op.output] != kNone) {
          return corrupt(error_, "its output is written twice", next);
        }
        for (size_t k = 0; k < op.link_count; ++k) {
          const uint16_t read = link(op, k).buffer;
          const Buffer& b = plan_.buffers[read];
          const bool there = b.kind == Kind::kInput ||
                             (b.kind == Kind::kStored && written[read] != kNone) ||
                             (is_ring(b) && written[read] == s);
          if (!there) return corrupt(error_, "it reads what was not written", next);
        }
        written[op.output] = static_cast<uint32_t>(s);
        if (const char* rule = broken_rule(op)) return corrupt(error_, rule, next);
      }
    }
    if (next != plan_.ops.size()) {
      return fail(error_, DQA_CORRUPT, "the plan is invalid: stages miss ops");
    }
    for (const uint16_t output : plan_.outputs) {
      if (written[output] == kNone) {
        return fail(error_, DQA_CORRUPT, "the plan is invalid: no op writes output %u",
                    unsigned{output});
      }
    }
    return DQA_OK;
  }

  // Every row that an op reads is still in its ring.
  DqaStatus rings() {
    std::vector<uint32_t> rows(2 * plan_.buffers.size());
    return walk(
        plan_, &rows, [](size_t) { return DQA_OK; },
        [&](size_t index, Rows todo) {
          const Op& op = plan_.ops[index];
          const Buffer& output = plan_.buffers[op.output];
          if (is_ring(output) && todo.end - todo.first > output.rows) {
            return corrupt(error_, "its ring is too small", index);
          }
          for (size_t k = 0; k < op.link_count; ++k) {
            const Buffer& b = plan_.buffers[link(op, k).buffer];
            if (!is_ring(b)) continue;
            const Rows read = rows_read(plan_, op, link(op, k), todo);
            const uint32_t done = rows[link(op, k).buffer];
            if (read.end > done || done - read.first > b.rows) {
              return corrupt(error_, "it reads rows that its ring does not hold",
                             index);
            }
          }
          return DQA_OK;
        });
  }

 private:
  const Link& link(const Op& op, size_t k) const {
    return plan_.links[op.first_link + k];
  }

  bool constant(uint32_t offset, uint64_t bytes) const {
    return offset != kNone && offset + bytes <= plan_.constants_size;
  }

  // An array of a number for each output channel, in whole blocks.
  bool array(uint32_t offset, const Buffer& output) const {
    const uint64_t blocks = (output.channels + kBlock - 1) / kBlock;
    return offset % 4 == 0 && constant(offset, blocks * kBlock * sizeof(float));
  }

  DqaStatus table(uint32_t bits, uint32_t extra, bool is_signed, uint32_t channels,
                  const uint8_t* mask) {
    // Codewords do not matter to planes of bits: all symbols get the same length.
    const std::vector<uint8_t> residual(size_t{1} << extra,
                                        static_cast<uint8_t>(extra)),
        base(size_t{1} << bits, static_cast<uint8_t>(bits));
    const std::vector<float> scale(channels, 1.0f);
    const DqaTable description = {bits, extra,        is_signed,       channels,
                                  mask, scale.data(), residual.data(), base.data()};
    DqaCodec* codec = nullptr;
    if (const DqaStatus status = dqa_codec_create(&description, isa_, &codec, error_)) {
      return status;
    }
    Table made;
    made.codec.reset(codec);
    made.bits = bits;
    made.extra_bits = extra;
    made.is_signed = is_signed;
    made.channels = channels;
    for (uint32_t c = 0; c < channels; ++c) {
      const unsigned shift = mask[c] ? 0 : extra;
      made.widen.push_back(static_cast<uint8_t>(1u << shift));
      made.narrow.push_back(static_cast<int16_t>(256 >> shift));
    }
    plan_.tables.push_back(std::move(made));
    return DQA_OK;
  }

  bool buffer(const Buffer& b) {
    if (b.kind > Kind::kOutput || b.type > Type::kFloat || b.height < 1 ||
        b.width < 1 || b.channels < 1 || b.height > kMaxSide || b.width > kMaxSide ||
        b.channels > kMaxSide ||
        uint64_t{b.height} * b.width * b.channels > kMaxBytes ||
        (b.slot != kNone && b.slot >= plan_.inputs.size())) {
      return false;
    }
    if (b.kind == Kind::kInput) return b.type != Type::kWide;
    if (b.kind == Kind::kOutput) return is_float(b);
    if (is_float(b)) return false;
    if (is_ring(b)) {
      const uint64_t rows = uint64_t{b.rows} + b.zero_row;
      return b.rows >= 1 && b.rows <= kMaxSide && b.table == kNone &&
             (size_t{b.left} + b.width + b.right) * b.pixel_bytes() <= kMaxBytes &&
             rows * b.row_bytes() == b.size;
    }
    const uint64_t row = b.table == kNone
                             ? uint64_t{b.width} * b.channels * b.element_bytes()
                             : packed_row(b);
    return row != 0 && row * b.height == b.size;
  }

  // Bytes of a packed row; 0 if the table does not fit the buffer.
  uint64_t packed_row(const Buffer& b) const {
    if (b.table >= plan_.tables.size() || b.type != Type::kCodes) return 0;
    const Table& table = plan_.tables[b.table];
    const unsigned zero =
        table.is_signed ? 1u << (table.bits + table.extra_bits - 1) : 0;
    if (table.channels != b.channels || b.zero != zero) return 0;
    return dqa_strip_bound(table.codec.get(), DQA_RAW, b.width);
  }

  bool links(const Op& op) const {
    if (op.code > Code::kJoin || op.link_count < 1 ||
        op.output >= plan_.buffers.size() ||
        size_t{op.first_link} + op.link_count > plan_.links.size()) {
      return false;
    }
    for (size_t k = 0; k < op.link_count; ++k) {
      if (link(op, k).buffer >= plan_.buffers.size()) return false;
    }
    return true;
  }

  // The columns and rows that taps touch must be there, or be zeros.
  const char* broken_window(const Op& op, const Buffer& in, const Buffer& out,
                            bool zeros) const {
    if (op.taps_y < 1 || op.taps_x < 1 || op.stride_y < 1 || op.stride_x < 1 ||
        op.dilation_y < 1 || op.dilation_x < 1 || op.top < 0 || op.left < 0) {
      return "its window is empty";
    }
    const int64_t reach_y = int64_t{op.taps_y - 1} * op.dilation_y,
                  reach_x = int64_t{op.taps_x - 1} * op.dilation_x;
    const int64_t last_y = int64_t{out.height - 1} * op.stride_y - op.top,
                  last_x = int64_t{out.width - 1} * op.stride_x - op.left;
    if (zeros) {
      const bool rows = op.top == 0 && last_y + reach_y < in.height;
      if (!rows && !in.zero_row) return "its input has no row of zeros";
      if (op.left > in.left ||
          last_x + reach_x >= int64_t{in.width} + int64_t{in.right}) {
        return "its window reaches past the columns of its input";
      }
      return nullptr;
    }
    if (op.dilation_y != 1 || op.dilation_x != 1 || op.top > reach_y ||
        op.left > reach_x || last_y >= in.height || last_x >= in.width) {
      return "a window covers no input";
    }
    return nullptr;
  }

  // The arrays and addends behind a sum.
  const char* broken_epilogue(const Op& op, size_t operands) const {
    const Buffer& out = plan_.buffers[op.output];
    for (const uint32_t offset : {op.bias, op.low, op.high}) {
      if (!array(offset, out)) return "its arrays lie outside the constants";
    }
    if ((op.code != Code::kCombine && !array(op.multiplier, out)) ||
        (out.type == Type::kCodes && !array(op.power, out))) {
      return "its arrays lie outside the constants";
    }
    if (op.link_count - operands > 2) return "it has more than two addends";
    bool scaled = false;
    for (size_t k = 0; k < op.link_count; ++k) {
      const Buffer& b = plan_.buffers[link(op, k).buffer];
      scaled = scaled || b.slot != kNone;
      if (k < operands) continue;
      if (!is_ring(b) || link(op, k).addend != 1 || !same_size(b, out) ||
          !array(link(op, k).value, out)) {
        return "an addend does not fit";
      }
    }
    if (out.slot != kNone || (out.kind != Kind::kOutput && !is_ring(out))) {
      return "its output is of the wrong kind";
    }
    const uint64_t arrays = 1u + (op.link_count - operands);
    const uint64_t bytes =
        arrays * ((out.channels + kBlock - 1) / kBlock) * kBlock * sizeof(float);
    if (scaled != (op.scratch != kNone) ||
        (scaled && (op.scratch % 16 != 0 ||
                    op.scratch + bytes + plan_.row_scratch + kSlack > plan_.arena))) {
      return "its scratch lies outside the arena";
    }
    return nullptr;
  }

  const char* broken_rule(const Op& op) const {
    const Buffer& in = plan_.buffers[link(op, 0).buffer];
    const Buffer& out = plan_.buffers[op.output];
    const bool ring_to_ring = is_ring(in) && is_ring(out);
    const bool sums = op.code == Code::kConv || op.code == Code::kDepthwise ||
                      op.code == Code::kCombine || op.code == Code::kAverage;
    if (!sums && op.scratch != kNone) return "only sums have scratch";
    switch (op.code) {
      case Code::kRead:
        if (op.link_count != 1 || in.kind != Kind::kInput || !is_ring(out) ||
            out.type != Type::kWide || !same_size(in, out) || out.slot == kNone ||
            plan_.inputs[out.slot] != link(op, 0).buffer || op.shift < 1 ||
            op.shift > 32767 || (op.weights != kNone && !array(op.weights, out)) ||
            (op.multiplier != kNone && !array(op.multiplier, out))) {
          return "an input is read into wide codes of its size";
        }
        return nullptr;
      case Code::kLoad:
      case Code::kStore: {
        const bool load = op.code == Code::kLoad;
        const Buffer& ring = load ? out : in;
        const Buffer& stored = load ? in : out;
        if (op.link_count != 1 || !is_ring(ring) || stored.kind != Kind::kStored ||
            !same_size(in, out) || !same_codes(in, out)) {
          return "rows move between a ring and a store of one size";
        }
        return nullptr;
      }
      case Code::kConv:
      case Code::kDepthwise: {
        const bool depthwise = op.code == Code::kDepthwise;
        if (!is_ring(in) || link(op, 0).addend) return "its input is not a ring";
        if (const char* rule = broken_window(op, in, out, true)) return rule;
        const uint64_t taps = uint64_t{op.taps_y} * op.taps_x;
        const uint64_t groups = (in.channels + kGroup - 1) / kGroup;
        const uint64_t blocks = (out.channels + kBlock - 1) / kBlock;
        const uint64_t bytes = depthwise ? taps * blocks * kBlock
                                         : blocks * taps * groups * kBlock * kGroup;
        if (op.taps_y > kMaxTaps) return "its window has too many rows";
        if (depthwise && in.channels != out.channels) {
          return "a depthwise convolution keeps the number of channels";
        }
        if (!constant(op.weights, bytes)) return "its weights are of the wrong size";
        return broken_epilogue(op, 1);
      }
      case Code::kCombine: return broken_epilogue(op, 0);
      case Code::kAverage:
        if (!is_ring(in) || link(op, 0).addend || in.channels != out.channels) {
          return "an average keeps the number of channels";
        }
        if (const char* rule = broken_window(op, in, out, false)) return rule;
        return broken_epilogue(op, 1);
      case Code::kMaximum:
        if (op.link_count != 1 || !ring_to_ring || in.channels != out.channels ||
            !same_codes(in, out)) {
          return "a maximum keeps channels and codes";
        }
        return broken_window(op, in, out, false);
      case Code::kNearest:
      case Code::kBilinear: {
        const bool nearest = op.code == Code::kNearest;
        if (op.link_count != 1 || !ring_to_ring || in.channels != out.channels ||
            op.stride_y < 1 || op.stride_x < 1 ||
            uint64_t{in.height} * op.stride_y != out.height ||
            uint64_t{in.width} * op.stride_x != out.width) {
          return "an image grows by whole factors";
        }
        if (nearest ? !same_codes(in, out)
                    : in.type != Type::kCodes || in.zero != 0 || out.zero != 0 ||
                          op.stride_y > 8 || op.stride_x > 8 || op.shift > 16) {
          return "it cannot turn its input's codes into its output's";
        }
        return nullptr;
      }
      case Code::kJoin:
        for (size_t k = 0; k < op.link_count; ++k) {
          const Buffer& part = plan_.buffers[link(op, k).buffer];
          if (!is_ring(part) || !is_ring(out) || !same_codes(part, out) ||
              part.height != out.height || part.width != out.width ||
              uint64_t{link(op, k).value} + part.channels > out.channels) {
            return "what is joined must have one size and one kind of codes";
          }
        }
        return nullptr;
    }
    return "its code is unknown";
  }

  Plan& plan_;
  const DqaIsa isa_;
  DqaError* const error_;
};

}  // namespace

Rows rows_read(const Plan& plan, const Op& op, const Link& link, Rows output) {
  const Buffer& in = plan.buffers[link.buffer];
  const bool windowed = op.code == Code::kConv || op.code == Code::kDepthwise ||
                        op.code == Code::kAverage || op.code == Code::kMaximum;
  const int64_t height = in.height;
  int64_t first = output.first, end = output.end;
  if (link.addend == 0 && windowed) {
    first = first * op.stride_y - op.top;
    end = (end - 1) * op.stride_y - op.top + (op.taps_y - 1) * op.dilation_y + 1;
  } else if (op.code == Code::kNearest) {
    first = first / op.stride_y;
    end = (end - 1) / op.stride_y + 1;
  } else if (op.code == Code::kBilinear) {
    // Pixel centres: a row lies between row floor((y + 1/2) / s - 1/2) and the next.
    const int64_t s = op.stride_y;
    first = (2 * first + 1 + s) / (2 * s) - 1;
    end = (2 * (end - 1) + 1 + s) / (2 * s) + 1;
  }
  first = first < 0 ? 0 : first > height - 1 ? height - 1 : first;
  end = end > height ? height : end < first + 1 ? first + 1 : end;
  return {static_cast<uint32_t>(first), static_cast<uint32_t>(end)};
}

DqaStatus read_plan(const uint8_t* data, size_t size, const uint8_t* constants,
                    size_t constants_size, DqaIsa isa, Plan* plan, DqaError* error) {
  if (size < kHeaderBytes + 4 || std::memcmp(data, "DQAG", 4) != 0) {
    return fail(error, DQA_CORRUPT,
                "a plan begins with DQAG and has at least %zu bytes. Received: %zu "
                "bytes",
                kHeaderBytes + 4, size);
  }
  Reader in(data + 4);
  const auto version = in.take<uint16_t>();
  if (version != kVersion) {
    return fail(error, DQA_BAD_VERSION,
                "this runtime reads plans of version %u. Received: version %u. Upgrade "
                "dqa_keras, or export the file again",
                kVersion, unsigned{version});
  }
  in.take<uint16_t>();
  const auto total = in.take<uint32_t>();
  if (total > size || total < kHeaderBytes + 4) {
    return fail(error, DQA_TRUNCATED, "the plan has %zu bytes and needs %u", size,
                total);
  }
  Reader end(data + total - 4);
  if (crc32(data, total - 4) != end.take<uint32_t>()) {
    return fail(error, DQA_CORRUPT, "the plan is damaged: its checksum does not match");
  }
  plan->arena = in.take<uint32_t>();
  const auto wanted = in.take<uint32_t>();
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
  const auto counts = in.take<Counts>();
  const size_t records = counts.buffers * kBufferBytes + counts.tables * kTableBytes +
                         counts.ops * (kOpBytes + 1) + counts.links * kLinkBytes +
                         counts.stages * kStageBytes;
  if (kHeaderBytes + records + 4 > total) {
    return fail(error, DQA_TRUNCATED, "the plan has %u bytes and needs %zu", total,
                kHeaderBytes + records + 4);
  }
  Reader tables(data + kHeaderBytes + counts.buffers * kBufferBytes);
  for (size_t i = 0; i < counts.buffers; ++i) {
    const Buffer b = take_buffer(&in);
    if (b.kind == Kind::kInput) plan->inputs.push_back(static_cast<uint16_t>(i));
    if (b.kind == Kind::kOutput) plan->outputs.push_back(static_cast<uint16_t>(i));
    plan->buffers.push_back(b);
  }
  Checker check(plan, isa, error);
  if (const DqaStatus status = check.tables(&tables, counts.tables)) return status;
  for (size_t i = 0; i < counts.ops; ++i) plan->ops.push_back(take_op(&tables));
  for (size_t i = 0; i < counts.links; ++i) {
    const auto buffer = tables.take<uint16_t>(), addend = tables.take<uint16_t>();
    plan->links.push_back({buffer, addend, tables.take<uint32_t>()});
  }
  for (size_t i = 0; i < counts.stages; ++i) {
    const auto first = tables.take<uint16_t>(), count = tables.take<uint16_t>();
    plan->stages.push_back({first, count, tables.take<uint32_t>()});
  }
  if (const DqaStatus status = check.buffers()) return status;
  if (const DqaStatus status = check.ops()) return status;
  return check.rings();
}

}  // namespace dqa
