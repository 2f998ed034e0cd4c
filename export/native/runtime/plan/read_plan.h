// Reading the bytes of a plan.
#ifndef DQA_RUNTIME_PLAN_READ_PLAN_H_
#define DQA_RUNTIME_PLAN_READ_PLAN_H_

#include "runtime/plan/plan.h"

namespace dqa {

// Parses and checks a plan. On success every access of its ops is within bounds.
DqaStatus read_plan(const uint8_t* data, size_t size, const uint8_t* constants,
                    size_t constants_size, const uint8_t* tables, size_t tables_size,
                    DqaIsa isa, Plan* plan, DqaError* error);

// Whether a plan has coded stores and so needs tables; false if it is cut off.
bool needs_tables(const uint8_t* data, size_t size);

}  // namespace dqa

#endif  // DQA_RUNTIME_PLAN_READ_PLAN_H_
