// What must hold of a plan so that running it touches no memory but its own.
#ifndef DQA_RUNTIME_CHECK_H_
#define DQA_RUNTIME_CHECK_H_

#include "runtime/plan/plan.h"

namespace dqa {

// Whether bytes lie within the constants.
inline bool is_constant(const Plan& plan, uint32_t offset, uint64_t bytes) {
  return offset != kNone && offset + bytes <= plan.constants_size;
}

// Sizes of buffers, and that they lie in the arena.
DqaStatus check_buffers(const Plan& plan, DqaError* error);

// That ops read what was written, and what each of them needs.
DqaStatus check_ops(const Plan& plan, DqaError* error);

// The rule that an op breaks, or NULL.
const char* broken_rule(const Plan& plan, const Op& op);

// That every row that an op reads is still in its ring.
DqaStatus check_rings(const Plan& plan, DqaError* error);

}  // namespace dqa

#endif  // DQA_RUNTIME_CHECK_H_
