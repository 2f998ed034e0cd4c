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

/* Whether a plan, not checked yet, asks for the model's tables. */
DQA_EXPORT int dqa_runtime_needs_tables(const uint8_t* plan, size_t plan_size);

/* Reads and checks a plan. `constants` is not copied: it must outlive the runtime and
 * be aligned to 4 bytes. The plan is not needed any more afterwards. `tables` is the
 * model's metadata buffer DQA_RESIDUAL, of which a plan with coded stores takes the
 * codewords it needs by their layers' names; other plans run without (NULL, 0).
 * Runs use `threads` threads, 1 to 64, or as many of them as the system gives; their
 * number changes no bit of the results. */
DQA_EXPORT DqaStatus dqa_runtime_create(const uint8_t* plan, size_t plan_size,
                                        const uint8_t* constants, size_t constants_size,
                                        const uint8_t* tables, size_t tables_size,
                                        DqaIsa isa, uint32_t threads,
                                        DqaRuntime** runtime, DqaError* error);
DQA_EXPORT void dqa_runtime_destroy(DqaRuntime* runtime);

/* Bytes of arena that a run needs, aligned to 64; every thread has line buffers of its
 * own. */
DQA_EXPORT size_t dqa_runtime_arena(const DqaRuntime* runtime);

/* Values of input or output number `index`; 0 where there is none. */
DQA_EXPORT size_t dqa_runtime_input_size(const DqaRuntime* runtime, uint32_t index);
DQA_EXPORT size_t dqa_runtime_output_size(const DqaRuntime* runtime, uint32_t index);

/* What an input or output, which must exist, holds: float32, or bytes (DQA_CODES). */
DQA_EXPORT DqaType dqa_runtime_input_type(const DqaRuntime* runtime, uint32_t index);
DQA_EXPORT DqaType dqa_runtime_output_type(const DqaRuntime* runtime, uint32_t index);

/* Runs the plan, one run of a runtime at a time. Inputs must be finite. */
DQA_EXPORT DqaStatus dqa_runtime_run(DqaRuntime* runtime, const void* const* inputs,
                                     void* const* outputs, uint8_t* arena,
                                     DqaError* error);

/* Bytes of coded rows that the arena had no room for in the last run: they were
 * allocated, and freed when the run ended. 0 for plans without coded stores. */
DQA_EXPORT size_t dqa_runtime_spilled(const DqaRuntime* runtime);

/* Called with every row of codes that an op leaves in a line buffer, by the thread that
 * computed it: for tests. Pixels are
 * `pixel_bytes` apart. */
typedef void (*DqaObserver)(void* user, uint32_t op, uint32_t row, const void* codes,
                            size_t pixel_bytes);
DQA_EXPORT void dqa_runtime_observe(DqaRuntime* runtime, DqaObserver observer,
                                    void* user);

/* From now on runs add the seconds they spend in ops of each code of the plan to
 * `seconds[code]`, 12 numbers, summed over threads, and to `seconds[12]` those of the
 * convolutions' in which sums became codes; NULL stops that. Such runs take longer. */
DQA_EXPORT void dqa_runtime_profile(DqaRuntime* runtime, double* seconds);

#ifdef __cplusplus
}
#endif

#endif /* DQA_RUNTIME_H_ */
