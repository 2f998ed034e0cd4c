// What is computed once for each op, when a runtime is made.
#ifndef DQA_RUNTIME_OPS_PREPARE_H_
#define DQA_RUNTIME_OPS_PREPARE_H_

#include <cstdint>
#include <vector>

#include "runtime/kernels/kernels.h"
#include "runtime/plan/plan.h"

namespace dqa {

struct Prepared {
  // Zero-point correction per channel: what a sum starts with, so that codes count from
  // their zero. WINOGRAD has one for each position and channel.
  std::vector<int32_t> start;
  // Accumulation spans, for each block of 16 channels: how many groups a 16-bit sum can
  // take, one span after the other. Empty if it cannot take a single group. No blocks
  // if no kernel reads them.
  std::vector<std::vector<uint32_t>> spans;
  // DEPTHWISE: how many taps in a row a 16-bit sum can take, in every channel.
  uint32_t interval = 0;
  // DEPTHWISE: sums of 16 bits; see `DepthwiseRow`.
  uint32_t span_rows = 0;
  std::vector<int16_t> base;
  std::vector<int32_t> span_start;
  // DEPTHWISE from codes to codes, for kernels of 32 channels; see `DepthwiseRow`.
  std::vector<int8_t> interleaved;
  // For each block of 16 channels; empty if the rules of `PlainCodes` do not hold, or
  // no kernel reads them.
  std::vector<PlainCodes> plain;
  // QUANTIZE_INPUT: for each value of a row. Empty if there is no scale and no offset.
  std::vector<float> factors, summands;
};

// Prepares an op for the kernels that will run it.
Prepared prepare(const Plan& plan, const Op& op, const RuntimeKernels& kernels);

}  // namespace dqa

#endif  // DQA_RUNTIME_OPS_PREPARE_H_
