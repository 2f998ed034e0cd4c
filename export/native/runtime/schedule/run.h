// What ops need during a run: one object for each thread.
#ifndef DQA_RUNTIME_SCHEDULE_RUN_H_
#define DQA_RUNTIME_SCHEDULE_RUN_H_

#include <vector>

#include "runtime/kernels/kernels.h"
#include "runtime/ops/coded.h"
#include "runtime/ops/prepare.h"
#include "runtime/plan/plan.h"
#include "runtime/schedule/thread_partition.h"

namespace dqa {

// The step of an input's wide codes, which follows from its largest magnitude.
struct Slot {
  float scale = 0, inverse = 0;
};

// Seconds by op code, and those spent in requantizing sums.
struct Times {
  double ops[kOpCodes] = {};
  double requantize = 0;
};

// The part of some rows that a thread computes.
struct Piece {
  Rows rows;
  size_t first_block, end_block;  // of 16 channels
};

struct Run {
  const Plan& plan;
  const std::vector<Prepared>& prepared;  // by op
  const RuntimeKernels& kernels;
  const Worker& worker;
  const void* const* inputs;
  void* const* outputs;
  uint8_t* arena;
  Slot* slots;
  Times* times;  // NULL: not measured
  CodedStores* coded;
  std::vector<int16_t> room;  // for a row of an input
  DqaError error = {};
  const Share* share = nullptr;  // of the stage that runs
  unsigned part = 0, parts = 1;  // of each op; more than one if threads share ops

  const Buffer& buffer(size_t index) const { return worker.buffers[index]; }
  const Buffer& input(const Op& op) const { return buffer(plan.link(op, 0).buffer); }

  // A row of a line buffer, and its first pixel.
  uint8_t* framed_row(const Buffer& b, uint32_t y) const {
    return arena + b.offset + (y % b.rows) * b.row_bytes();
  }
  uint8_t* row(const Buffer& b, uint32_t y) const {
    return framed_row(b, y) + b.left * b.pixel_bytes();
  }

  // The same, or a row of zeros if y is outside the tensor.
  uint8_t* row_or_zeros(const Buffer& b, int64_t y) const {
    if (y >= 0 && y < b.height) return row(b, static_cast<uint32_t>(y));
    const int64_t at = b.rows > b.height ? b.height : (y % b.rows + b.rows) % b.rows;
    return row(b, static_cast<uint32_t>(at));
  }

  uint8_t* stored_row(const Buffer& b, uint32_t y) const {
    return arena + b.offset + size_t{b.size / b.height} * y;
  }

  // Room for the codes of a row that is being loaded or stored.
  uint8_t* row_scratch() const { return arena + worker.row_scratch; }

  // An op's array after scaling by the steps of its inputs.
  float* scratch(const Op& op, size_t array, size_t count) const {
    return reinterpret_cast<float*>(arena + op.scratch) + array * count;
  }

  size_t output_number(uint16_t index) const {
    size_t number = 0;
    while (plan.outputs[number] != index) ++number;
    return number;
  }

  // This thread's piece of rows that have `blocks` blocks of channels: some of the
  // blocks, in multiples of `step`, or some of the rows if there are more rows.
  Piece piece(Rows rows, size_t blocks, size_t step) const {
    const size_t steps = (blocks + step - 1) / step, count = rows.end - rows.first;
    if (steps < parts && count > steps) {
      const auto end = [&](size_t n) {
        return rows.first + static_cast<uint32_t>(count * n / parts);
      };
      return {{end(part), end(part + 1)}, 0, blocks};
    }
    return {rows, steps * part / parts * step,
            std::min(blocks, steps * (part + 1) / parts * step)};
  }

  // Calls `compute(y)` for the rows of this thread's piece. Stops at the first failure.
  template <class ComputeRow>
  DqaStatus each_row(Rows rows, ComputeRow compute) const {
    const Piece own = piece(rows, 1, 1);
    if (own.first_block == own.end_block) return DQA_OK;
    for (uint32_t y = own.rows.first; y < own.rows.end; ++y) {
      if (const DqaStatus status = compute(y)) return status;
    }
    return DQA_OK;
  }
};

}  // namespace dqa

#endif  // DQA_RUNTIME_SCHEDULE_RUN_H_
