/* The delegate that runs `DQA` ops, as LiteRT loads it and as other shells wrap it.
 *
 * Both functions named tflite_plugin_ are LiteRT's interface of external delegates. The
 * one option is `isa`: `auto` or `scalar`. A delegate must outlive the interpreters
 * that it was given to.
 */
#ifndef DQA_DELEGATE_H_
#define DQA_DELEGATE_H_

#include <stddef.h>
#include <stdint.h>

#include "dqa/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

struct TfLiteDelegate;

/* Creates a delegate; on failure calls `report_error`, if it is not NULL, and returns
 * NULL. */
DQA_EXPORT struct TfLiteDelegate* tflite_plugin_create_delegate(
    const char* const* keys, const char* const* values, size_t count,
    void (*report_error)(const char*));
DQA_EXPORT void tflite_plugin_destroy_delegate(struct TfLiteDelegate* delegate);

/* What a delegate runs at the moment, over all its interpreters. */
typedef struct {
  uint64_t ops;         /* ops that are ready to run */
  uint64_t arena_bytes; /* their memory besides inputs, outputs and weights */
  uint64_t runs;        /* how often an op has run so far */
} DqaCounters;

/* Reads the counters of what tflite_plugin_create_delegate returned. */
void dqa_delegate_counters(const struct TfLiteDelegate* delegate,
                           DqaCounters* counters);

#ifdef __cplusplus
}
#endif

#endif /* DQA_DELEGATE_H_ */
