// A plan in memory. export/FORMAT.md describes what its fields mean.
#ifndef DQA_RUNTIME_PLAN_PLAN_H_
#define DQA_RUNTIME_PLAN_PLAN_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "dqa/codec.h"
#include "runtime/plan/op_table.h"

namespace dqa {

constexpr uint32_t kNone = 0xffffffff;
constexpr size_t kBlock = 16;  // output channels that a kernel computes at once
constexpr size_t kGroup = 4;   // input channels that it multiplies at once

// A piecewise linear function of wide codes has a value every kKnotStep codes.
constexpr uint32_t kKnotStep = 128;
constexpr size_t kKnots = 65536 / kKnotStep + 1;
constexpr unsigned kMaxTaps = 255;  // rows of a window
constexpr size_t kSlack = 64;       // readable bytes after the last buffer

enum class Kind : uint8_t { kLineBuffer, kStored, kInput, kOutput };
enum class Type : uint8_t { kCodes, kWide, kFloat };

struct Buffer {
  Kind kind;
  Type type;
  uint8_t zero;
  uint8_t group;  // blocks of channels; see is_grouped
  uint32_t height, width, channels, rows;
  uint16_t left, right;
  uint32_t offset, size, table, slot, peak;

  size_t element_bytes() const {
    return type == Type::kFloat ? 4 : type == Type::kWide ? 2 : 1;
  }
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
  OpCode code;
  uint8_t link_count;
  uint16_t first_link, output;
  uint16_t rows;  // that it computes at once, if they exist
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
  uint32_t zero_point = 0;       // how many base codes lie below 0
  DqaStorage storage = DQA_RAW;  // rows of other classes vary in size
  // Codes of unimportant channels are stored without their low `extra_bits`, which are
  // 0. `code * widen` shifts a stored code up; `code * narrow >> 8` shifts it down.
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

  const Link& link(const Op& op, size_t k) const { return links[op.first_link + k]; }

  // The buffer of an op's first link.
  const Buffer& input(const Op& op) const { return buffers[link(op, 0).buffer]; }

  bool is_coded(const Buffer& b) const {
    return b.kind == Kind::kStored && b.table != kNone &&
           tables[b.table].storage != DQA_RAW;
  }

  const float* floats(uint32_t offset) const {
    return reinterpret_cast<const float*>(constants + offset);
  }
};

// Whether a row of a store is packed where it lies in a line buffer: it has what the
// row has, in the same order.
inline bool packs_in_line(const Table& table, size_t channels) {
  return table.storage == DQA_RAW && channels % kGroup == 0;
}

// Rows first..end.
struct Rows {
  uint32_t first, end;
};

// Buffers in the arena begin at multiples of 64 bytes.
inline size_t align(size_t size) { return (size + 63) / 64 * 64; }

inline bool is_line_buffer(const Buffer& b) { return b.kind == Kind::kLineBuffer; }

// Whether a depthwise convolution has the rows of a buffer computed, by the op in front
// of it, a group of channels after the other: each in the row scratch, for its window.
// The buffer keeps the last rows for the next window: [group][row][pixel][channel], or
// packed if it has tables, one for each group.
inline bool is_grouped(const Buffer& b) { return is_line_buffer(b) && b.group != 0; }

// Channels of the group that begins at one.
inline size_t group_channels(const Buffer& b, size_t first) {
  return std::min(size_t{b.group} * kBlock, b.channels - first);
}

// Bytes of a row that a grouped buffer keeps of the group that begins at a channel.
inline size_t kept_row_bytes(const Plan& plan, const Buffer& b, size_t first) {
  if (b.table == kNone) return b.width * group_channels(b, first);
  const Table& table = plan.tables[b.table + first / (b.group * kBlock)];
  return dqa_strip_bound(table.codec.get(), DQA_RAW, b.width);
}

// Groups and blocks of channels, the last of which may be incomplete.
inline size_t groups_of(const Buffer& b) { return (b.channels + kGroup - 1) / kGroup; }
inline size_t blocks_of(const Buffer& b) { return (b.channels + kBlock - 1) / kBlock; }

}  // namespace dqa

#endif  // DQA_RUNTIME_PLAN_PLAN_H_
