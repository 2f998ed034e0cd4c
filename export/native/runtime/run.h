// What the ops of one run share.
#ifndef DQA_RUNTIME_RUN_H_
#define DQA_RUNTIME_RUN_H_

#include <vector>

#include "kernels.h"
#include "plan.h"
#include "prepare.h"

namespace dqa {

// The magnitude of an input, as one step of its wide codes.
struct Slot {
  float scale = 0, inverse = 0;
};

struct Run {
  const Plan& plan;
  const std::vector<Prepared>& prepared;  // by op
  const RuntimeKernels& kernels;
  const void* const* inputs;
  float* const* outputs;
  uint8_t* arena;
  DqaError* error;
  std::vector<Slot> slots;
  std::vector<float> room;  // a row of an input

  const Buffer& buffer(size_t index) const { return plan.buffers[index]; }
  const Link& link(const Op& op, size_t k) const {
    return plan.links[op.first_link + k];
  }
  const Buffer& input(const Op& op) const { return buffer(link(op, 0).buffer); }

  // First pixel of a row of a ring.
  uint8_t* row(const Buffer& b, uint32_t y) const {
    return arena + b.offset + (y % b.rows) * b.row_bytes() + b.left * b.pixel_bytes();
  }

  // The same, or the row of zeros where there is no such row.
  const uint8_t* row_or_zeros(const Buffer& b, int64_t y) const {
    if (y >= 0 && y < b.height) return row(b, static_cast<uint32_t>(y));
    return arena + b.offset + size_t{b.rows} * b.row_bytes() + b.left * b.pixel_bytes();
  }

  uint8_t* stored_row(const Buffer& b, uint32_t y) const {
    return arena + b.offset + size_t{b.size / b.height} * y;
  }

  // Room for the codes of a row on their way to or from a store.
  uint8_t* row_scratch() const {
    return arena + plan.arena - kSlack - plan.row_scratch;
  }

  // An array of an op that was scaled by the steps of its inputs.
  float* scratch(const Op& op, size_t array, size_t count) const {
    return reinterpret_cast<float*>(arena + op.scratch) + array * count;
  }

  size_t output_number(uint16_t index) const {
    size_t number = 0;
    while (plan.outputs[number] != index) ++number;
    return number;
  }
};

}  // namespace dqa

#endif  // DQA_RUNTIME_RUN_H_
