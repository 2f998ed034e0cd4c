#include "codec/errors.h"
#include "runtime/ops/coded.h"
#include "runtime/plan/check.h"

namespace dqa {
namespace {

constexpr uint32_t kMaxSide = 1u << 16;
constexpr uint64_t kMaxBytes = uint64_t{1} << (sizeof(size_t) > 4 ? 31 : 28);

// Bytes of a packed row, at most if it is coded; 0 if the table does not fit the
// buffer.
uint64_t packed_row(const Plan& plan, const Buffer& b) {
  if (b.table >= plan.tables.size() || b.type != Type::kCodes) return 0;
  const Table& table = plan.tables[b.table];
  const unsigned zero = table.zero_point << table.extra_bits;
  if (table.channels != b.channels || b.zero != zero) return 0;
  return dqa_strip_bound(table.codec.get(), table.storage, b.width);
}

// Bytes of a grouped buffer, each group of whose channels has a table of its own; 0 if
// tables do not fit the groups.
uint64_t packed_groups(const Plan& plan, const Buffer& b) {
  uint64_t bytes = 0;
  for (size_t first = 0, t = b.table; first < b.channels; ++t) {
    const size_t channels = group_channels(b, first);
    if (t >= plan.tables.size() || plan.tables[t].channels != channels ||
        plan.tables[t].storage != DQA_RAW ||
        b.zero != plan.tables[t].zero_point << plan.tables[t].extra_bits) {
      return 0;
    }
    bytes += kept_row_bytes(plan, b, first);
    first += channels;
  }
  return bytes;
}

bool is_valid(const Plan& plan, const Buffer& b) {
  if (b.kind > Kind::kOutput || b.type > Type::kFloat || b.height < 1 || b.width < 1 ||
      b.channels < 1 || b.height > kMaxSide || b.width > kMaxSide ||
      b.channels > kMaxSide || uint64_t{b.height} * b.width * b.channels > kMaxBytes ||
      (b.slot != kNone && b.slot >= plan.inputs.size())) {
    return false;
  }
  if (b.kind == Kind::kInput || b.kind == Kind::kOutput) return b.type != Type::kWide;
  if (b.type == Type::kFloat) return false;
  if (is_grouped(b)) {
    return b.type == Type::kCodes && b.group % 2 == 0 && b.channels % kBlock == 0 &&
           b.rows >= 1 && b.rows <= kMaxSide &&
           b.rows * (b.table == kNone ? uint64_t{b.width} * b.channels
                                      : packed_groups(plan, b)) ==
               b.size;
  }
  if (is_line_buffer(b)) {
    return b.rows >= 1 && b.rows <= kMaxSide && b.table == kNone &&
           (uint64_t{b.left} + b.width + b.right) * b.pixel_bytes() <= kMaxBytes &&
           uint64_t{b.rows} * b.row_bytes() == b.size;
  }
  const uint64_t row = b.table == kNone
                           ? uint64_t{b.width} * b.channels * b.element_bytes()
                           : packed_row(plan, b);
  if (row != 0 && plan.is_coded(b)) {
    return b.size > directory_bytes(b) && b.size <= directory_bytes(b) + row * b.height;
  }
  return row != 0 && row * b.height == b.size;
}

}  // namespace

DqaStatus check_buffers(const Plan& plan, DqaError* error) {
  for (size_t i = 0; i < plan.buffers.size(); ++i) {
    if (!is_valid(plan, plan.buffers[i])) {
      return fail(error, DQA_CORRUPT, "the plan is invalid: buffer %zu", i);
    }
  }
  // Wide loads may reach past the last buffer. What stages that need the row scratch
  // have in it is theirs to lose.
  if (plan.row_scratch + uint64_t{kSlack} > plan.arena) {
    return fail(error, DQA_CORRUPT, "the plan is invalid: no room for a row");
  }
  for (size_t i = 0; i < plan.buffers.size(); ++i) {
    const Buffer& b = plan.buffers[i];
    if ((is_line_buffer(b) || b.kind == Kind::kStored) &&
        (b.offset % 16 != 0 || uint64_t{b.offset} + b.size + kSlack > plan.arena)) {
      return fail(error, DQA_CORRUPT,
                  "the plan is invalid: buffer %zu lies outside its arena", i);
    }
  }
  return DQA_OK;
}

}  // namespace dqa
