/* `DQA` ops in LiteRT 2: a custom op kernel for its CompiledModel.
 *
 * This library does not link to LiteRT: the caller passes LiteRT's functions.
 */
#ifndef DQA_LITERT_H_
#define DQA_LITERT_H_

#include <stddef.h>
#include <stdint.h>

#ifndef DQA_EXPORT
#define DQA_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* LiteRT's functions of these names; handles and kernels are pointers. */
typedef struct DqaLiteRtApi {
  int (*LiteRtAddCustomOpKernelOption)(void* options, const char* name, int version,
                                       const void* kernel, void* user_data);
  int (*LiteRtGetTensorBufferSize)(void* buffer, size_t* size);
  int (*LiteRtLockTensorBuffer)(void* buffer, void** address, int mode);
  int (*LiteRtUnlockTensorBuffer)(void* buffer);
} DqaLiteRtApi;

/* What such a struct begins with in C that includes LiteRT's own headers of options and
 * tensor buffers. */
#define DQA_LITERT_API                                  \
  {(int (*)(void*, const char*, int, const void*,       \
            void*))LiteRtAddCustomOpKernelOption,       \
   (int (*)(void*, size_t*))LiteRtGetTensorBufferSize,  \
   (int (*)(void*, void**, int))LiteRtLockTensorBuffer, \
   (int (*)(void*))LiteRtUnlockTensorBuffer}

typedef struct DqaLiteRt DqaLiteRt;

/* A kernel for one compiled model, which it must outlive; NULL without memory. */
DQA_EXPORT DqaLiteRt* dqa_litert_create(const DqaLiteRtApi* api);
DQA_EXPORT void dqa_litert_destroy(DqaLiteRt* kernel);

/* Adds the kernel to the options that the model is compiled with; LiteRT's status. */
DQA_EXPORT int dqa_litert_add(DqaLiteRt* kernel, void* options);

/* Before the first run: on how many threads ops run, 1 to 64; 1 unless it is said.
 * LiteRT does not tell kernels the number that its CPU options set. */
DQA_EXPORT void dqa_litert_threads(DqaLiteRt* kernel, uint32_t threads);

/* Hands over the model's metadata buffer DQA_RESIDUAL, which LiteRtGetModelMetadata
 * gives and kernels cannot ask for; it is copied. Ops with coded stores do not run
 * without; others do not need it. LiteRT's status. */
DQA_EXPORT int dqa_litert_tables(DqaLiteRt* kernel, const void* data, size_t size);

/* Why the last run, or the last call before it, failed; empty if it did not. Ask after
 * each run: LiteRT 2.3 goes on when an op fails. Outputs of that op are then NaN, or
 * 255 in bytes. */
DQA_EXPORT const char* dqa_litert_error(const DqaLiteRt* kernel);

#ifdef __cplusplus
}
#endif

#endif /* DQA_LITERT_H_ */
