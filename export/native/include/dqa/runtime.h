/* The runtime of `DQA` ops: executes a plan on packed activations.
 *
 * export/FORMAT.md describes plans. Nothing here throws. A plan is checked whole before
 * it runs: what a runtime accepts never reads or writes outside its constants, its
 * arena, its inputs and its outputs, however it was made.
 */
#ifndef DQA_RUNTIME_H_
#define DQA_RUNTIME_H_

#include "dqa/codec.h"

#define DQA_EXPORT __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

typedef struct DqaRuntime DqaRuntime;

/* Whether this machine and this build have an instruction set. */
DQA_EXPORT int dqa_runtime_has_isa(DqaIsa isa);

/* Whether a plan, which need not be checked yet, needs the model's tables. */
DQA_EXPORT int dqa_runtime_needs_tables(const uint8_t* plan, size_t plan_size);

/* Reads and checks a plan. `constants` is not copied: it must outlive the runtime and
 * be aligned to 4 bytes. The plan may be freed afterwards. `tables` is the model's
 * metadata buffer DQA_RESIDUAL: a plan with coded stores finds its codewords there, by
 * the names of layers. Other plans need none (NULL, 0). Runs use `threads` threads, 1
 * to 64, or fewer if the system refuses some. Results do not depend on their number. */
DQA_EXPORT DqaStatus dqa_runtime_create(const uint8_t* plan, size_t plan_size,
                                        const uint8_t* constants, size_t constants_size,
                                        const uint8_t* tables, size_t tables_size,
                                        DqaIsa isa, uint32_t threads,
                                        DqaRuntime** runtime, DqaError* error);
DQA_EXPORT void dqa_runtime_destroy(DqaRuntime* runtime);

/* Bytes of arena that a run needs, which must be aligned to 64. They grow with threads:
 * each has its own line buffers. */
DQA_EXPORT size_t dqa_runtime_arena(const DqaRuntime* runtime);

/* The number of values of input or output `index`; 0 if there is no such one. */
DQA_EXPORT size_t dqa_runtime_input_size(const DqaRuntime* runtime, uint32_t index);
DQA_EXPORT size_t dqa_runtime_output_size(const DqaRuntime* runtime, uint32_t index);

/* Sets `shape` to the height, width and channels of an input or output, which must
 * exist. */
DQA_EXPORT void dqa_runtime_input_shape(const DqaRuntime* runtime, uint32_t index,
                                        uint32_t shape[3]);
DQA_EXPORT void dqa_runtime_output_shape(const DqaRuntime* runtime, uint32_t index,
                                         uint32_t shape[3]);

/* The type of an input or output, which must exist: float32, or bytes (DQA_CODES). */
DQA_EXPORT DqaType dqa_runtime_input_type(const DqaRuntime* runtime, uint32_t index);
DQA_EXPORT DqaType dqa_runtime_output_type(const DqaRuntime* runtime, uint32_t index);

/* Runs the plan. Only one run of a runtime at a time. Inputs must be finite. */
DQA_EXPORT DqaStatus dqa_runtime_run(DqaRuntime* runtime, const void* const* inputs,
                                     void* const* outputs, uint8_t* arena,
                                     DqaError* error);

/* Bytes of coded rows that did not fit the arena in the last run. They were allocated,
 * and freed when the run ended. 0 for plans without coded stores. */
DQA_EXPORT size_t dqa_runtime_spilled(const DqaRuntime* runtime);

/* Called with every row of codes that an op leaves in a line buffer, by the thread that
 * computed it: for tests. Pixels are `pixel_bytes` apart. */
typedef void (*DqaObserver)(void* user, uint32_t op, uint32_t row, const void* codes,
                            size_t pixel_bytes);
DQA_EXPORT void dqa_runtime_observe(DqaRuntime* runtime, DqaObserver observer,
                                    void* user);

/* The number of op codes of a plan: they are 0 to DQA_OP_CODES - 1. */
#define DQA_OP_CODES 17

/* The name of an op code, as export/FORMAT.md has it; NULL from DQA_OP_CODES on. */
DQA_EXPORT const char* dqa_runtime_op_name(uint32_t code);

/* From now on runs add to `seconds`, an array of DQA_OP_CODES + 1 numbers. They add the
 * seconds spent in ops of each code to `seconds[code]`, and those that convolutions
 * spent on turning sums into codes to `seconds[DQA_OP_CODES]`. Both are sums over
 * threads. NULL stops it. Such runs take longer. */
DQA_EXPORT void dqa_runtime_profile(DqaRuntime* runtime, double* seconds);

#ifdef __cplusplus
}
#endif

#endif /* DQA_RUNTIME_H_ */
