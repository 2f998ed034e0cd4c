// A plan in memory, checked: see FORMAT.md and export/plan.py.
#ifndef DQA_RUNTIME_PLAN_H_
#define DQA_RUNTIME_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "dqa/codec.h"

namespace dqa {

constexpr uint32_t kNone = 0xffffffff;
constexpr size_t kBlock = 16;       // output channels that are computed together
constexpr size_t kGroup = 4;        // input channels that are multiplied together
constexpr unsigned kMaxTaps = 255;  // rows of a window
constexpr size_t kSlack = 64;       // readable bytes behind the last buffer

enum class Kind : uint8_t { kRing, kStored, kInput, kOutput };
enum class Type : uint8_t { kCodes, kWide, kFloat };
enum class Code : uint8_t {
  kRead,
  kLoad,
  kStore,
  kConv,
  kDepthwise,
  kCombine,
  kAverage,
  kMaximum,
  kNearest,
  kBilinear,
  kJoin
};
constexpr uint8_t kCodes = 11;

struct Buffer {
  Kind kind;
  Type type;
  uint8_t zero;
  bool zero_row;
  uint32_t height, width, channels, rows;
  uint16_t left, right;
  uint32_t offset, size, table, slot, peak;

  size_t element_bytes() const { return type == Type::kWide ? 2 : 1; }
  size_t pixel_bytes() const {
    return (channels + kGroup - 1) / kGroup * kGroup * element_bytes();
  }
  size_t row_bytes() const { return (size_t{left} + width + right) * pixel_bytes(); }
};

struct Link {
  uint16_t buffer;
  uint16_t addend;
  uint32_t value;
};

struct Op {
  Code code;
  uint8_t link_count;
  uint16_t first_link, output;
  uint16_t taps_y, taps_x;
  uint8_t stride_y, stride_x, dilation_y, dilation_x;
  int16_t top, left;
  uint32_t weights, multiplier, bias, low, high, power, scratch, shift;
};

struct Stage {
  uint16_t first, count;
  uint32_t steps;
};

struct CodecDeleter {
  void operator()(DqaCodec* codec) const { dqa_codec_destroy(codec); }
};

// How the codes of a stored buffer are packed.
struct Table {
  std::unique_ptr<DqaCodec, CodecDeleter> codec;
  uint32_t bits = 0, extra_bits = 0, channels = 0;
  bool is_signed = false;
  // A code is stored without its low `extra_bits` where its channel is not important:
  // there they are 0. Multiplying by `widen` puts them back; by `narrow`, and dropping
  // eight bits, takes them off.
  std::vector<uint8_t> widen;
  std::vector<int16_t> narrow;
};

struct Plan {
  uint32_t arena = 0;
  const uint8_t* constants = nullptr;
  size_t constants_size = 0;
  std::vector<Buffer> buffers;
  std::vector<Table> tables;
  std::vector<Op> ops;
  std::vector<Link> links;
  std::vector<Stage> stages;
  std::vector<uint16_t> inputs, outputs;  // buffers
  size_t row_scratch = 0;                 // bytes at the end of the arena

  const float* floats(uint32_t offset) const {
    return reinterpret_cast<const float*>(constants + offset);
  }
};

// Rows first..end of an input.
struct Rows {
  uint32_t first, end;
};

// The rows of a link that rows first..end (not empty) of the op's output are made of.
Rows rows_read(const Plan& plan, const Op& op, const Link& link, Rows output);

// The rows of an output of `height` rows that are there after `step` of `steps`.
inline uint32_t rows_after(uint32_t height, uint32_t step, uint32_t steps) {
  return static_cast<uint32_t>((uint64_t{height} * (step + 1) + steps - 1) / steps);
}

// Parses and checks. On success every access that the ops make is within bounds.
DqaStatus read_plan(const uint8_t* data, size_t size, const uint8_t* constants,
                    size_t constants_size, DqaIsa isa, Plan* plan, DqaError* error);

// Calls `visit(op index, rows)` for every run of rows that an op of a stage computes,
// in order, and `begin(stage index)` before a stage. Stops at the first failure.
template <class Begin, class Visit>
DqaStatus walk(const Plan& plan, std::vector<uint32_t>* done_and_needed, Begin begin,
               Visit visit) {
  std::vector<uint32_t>& rows = *done_and_needed;
  const size_t count = plan.buffers.size();
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const Stage& stage = plan.stages[s];
    if (const DqaStatus status = begin(s)) return status;
    for (size_t i = 0; i < stage.count; ++i) {
      rows[plan.ops[stage.first + i].output] = 0;
    }
    for (uint32_t step = 0; step < stage.steps; ++step) {
      uint32_t* const needed = rows.data() + count;
      for (size_t i = 0; i < stage.count; ++i) {
        const uint16_t output = plan.ops[stage.first + i].output;
        const Buffer& buffer = plan.buffers[output];
        needed[output] = buffer.kind == Kind::kRing
                             ? 0
                             : rows_after(buffer.height, step, stage.steps);
      }
      for (size_t i = stage.count; i-- > 0;) {
        const Op& op = plan.ops[stage.first + i];
        const Rows output{rows[op.output], needed[op.output]};
        if (output.end <= output.first) continue;
        for (size_t k = 0; k < op.link_count; ++k) {
          const Link& link = plan.links[op.first_link + k];
          const uint32_t end = rows_read(plan, op, link, output).end;
          if (end > needed[link.buffer]) needed[link.buffer] = end;
        }
      }
      for (size_t i = 0; i < stage.count; ++i) {
        const size_t index = stage.first + i;
        const uint16_t output = plan.ops[index].output;
        const Rows todo{rows[output], needed[output]};
        if (todo.end <= todo.first) continue;
        if (const DqaStatus status = visit(index, todo)) return status;
        rows[output] = todo.end;
      }
    }
  }
  return DQA_OK;
}

}  // namespace dqa

#endif  // DQA_RUNTIME_PLAN_H_
