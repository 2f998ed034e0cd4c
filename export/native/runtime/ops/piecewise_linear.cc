// PIECEWISE_LINEAR: any function of one number, from its values at equal distances.
#include "runtime/ops/wide_codes.h"
#include "runtime/plan/check.h"

namespace dqa {

const char* piecewise_linear_rule(const Plan&, const Op&, const Buffer& in,
                                  const Buffer& out) {
  if (!keeps_wide_codes(in, out)) {
    return "a piecewise linear function is of wide codes, and keeps their size";
  }
  return nullptr;
}

// Between two knots lie integers no larger than the larger one times the distance: they
// fit 32 bits. The last code is below the last knot.
DqaStatus piecewise_linear(Run& run, size_t index, Rows todo) {
  const uint8_t* const knots = run.plan.constants + run.plan.ops[index].weights;
  return map_wide_codes(run, index, todo, [knots](int32_t code) {
    const auto at = static_cast<uint32_t>(code + 32768);
    int16_t ends[2];
    std::memcpy(ends, knots + at / kKnotStep * sizeof *ends, sizeof ends);
    const auto rest = static_cast<int32_t>(at % kKnotStep);
    return ends[0] * (static_cast<int32_t>(kKnotStep) - rest) + ends[1] * rest;
  });
}

}  // namespace dqa
