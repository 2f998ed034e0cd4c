// HARD_SWISH: x * clip(x + 3, 0, 6), in whole numbers.
#include <algorithm>

#include "runtime/ops/wide_codes.h"
#include "runtime/plan/check.h"

namespace dqa {

const char* hard_swish_rule(const Plan&, const Op& op, const Buffer& in,
                            const Buffer& out) {
  if (!keeps_wide_codes(in, out) || op.shift < 1 || op.shift > 32767) {
    return "a hard swish is of wide codes, and keeps their size";
  }
  return nullptr;
}

// Integers fit 32 bits: no code is larger than 32767 and neither is `three`.
DqaStatus hard_swish(Run& run, size_t index, Rows todo) {
  const auto three = static_cast<int32_t>(run.plan.ops[index].shift);
  return map_wide_codes(run, index, todo, [three](int32_t code) {
    return code * std::clamp(code + three, 0, 2 * three);
  });
}

}  // namespace dqa
