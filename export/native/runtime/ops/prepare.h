// What is worked out once for a convolution.
#ifndef DQA_RUNTIME_PREPARE_H_
#define DQA_RUNTIME_PREPARE_H_

#include <cstdint>
#include <vector>

#include "runtime/kernels/kernels.h"
#include "runtime/plan/plan.h"

namespace dqa {

struct Prepared {
  std::vector<int32_t> start;  // by channel, of WINOGRAD for each position:
                               // what codes are above 0 by adds to sums, taken off
  // How many groups fit 16-bit sums, stretch by stretch, for each block of 16 channels;
  // empty: not even one does.
  std::vector<std::vector<uint32_t>> stretches;
  uint32_t interval = 0;  // the same for the taps of any channel, wherever it begins
  // Of depthwise convolutions from codes to codes, for kernels of 32 channels; see
  // `DepthwiseRow`.
  std::vector<int8_t> woven;
  std::vector<WovenArrays> arrays;
  // Of READ, for a whole row; empty: neither scaled nor shifted.
  std::vector<float> factors, summands;
};

// For the kernels that will run it.
Prepared prepare(const Plan& plan, const Op& op, const RuntimeKernels& kernels);

}  // namespace dqa

#endif  // DQA_RUNTIME_PREPARE_H_
