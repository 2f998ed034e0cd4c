// What is worked out once for a convolution.
#ifndef DQA_RUNTIME_PREPARE_H_
#define DQA_RUNTIME_PREPARE_H_

#include <cstdint>
#include <vector>

#include "plan.h"

namespace dqa {

// For each block of 16 channels.
struct Prepared {
  std::vector<int32_t> start;      // what `zero` adds to the sums, taken off
  std::vector<uint32_t> interval;  // groups that fit 16-bit sums; 0: none
};

Prepared prepare(const Plan& plan, const Op& op);

}  // namespace dqa

#endif  // DQA_RUNTIME_PREPARE_H_
