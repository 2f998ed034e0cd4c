// Checks of a plan: one that passes never touches memory that is not its own.
#ifndef DQA_RUNTIME_PLAN_CHECK_H_
#define DQA_RUNTIME_PLAN_CHECK_H_

#include "runtime/plan/plan.h"

namespace dqa {

// Whether some bytes lie within the constants.
inline bool is_constant(const Plan& plan, uint32_t offset, uint64_t bytes) {
  return offset != kNone && offset + bytes <= plan.constants_size;
}

// Checks the sizes of buffers, and that they lie in the arena.
DqaStatus check_buffers(const Plan& plan, DqaError* error);

// Checks that ops read what was written, and each op's own rules.
DqaStatus check_ops(const Plan& plan, DqaError* error);

// The rule of one op that it breaks, or NULL, beyond the rules that follow from the
// table of ops. Its first input and its output are `in` and `out`.
#define DQA_OP(code, function, ...)                                             \
  const char* function##_rule(const Plan& plan, const Op& op, const Buffer& in, \
                              const Buffer& out);
DQA_OP_TABLE(DQA_OP)
#undef DQA_OP

// The rule that an op breaks, or NULL.
const char* broken_rule(const Plan& plan, const Op& op);

// Checks that each row is still in its line buffer when an op reads it.
DqaStatus check_line_buffers(const Plan& plan, DqaError* error);

}  // namespace dqa

#endif  // DQA_RUNTIME_PLAN_CHECK_H_
