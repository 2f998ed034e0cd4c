// The part of LiteRT 2's C API that a custom op kernel needs, declared anew: no package
// ships the headers. As in litert/c/litert_custom_op_kernel.h and litert_layout.h.
#ifndef DQA_LITERT_LITERT_ABI_H_
#define DQA_LITERT_LITERT_ABI_H_

#include <cstddef>
#include <cstdint>

extern "C" {

typedef int LiteRtStatus;
enum {
  kLiteRtStatusOk = 0,
  kLiteRtStatusErrorInvalidArgument = 1,
  kLiteRtStatusErrorMemoryAllocationFailure = 2,
  kLiteRtStatusErrorRuntimeFailure = 3
};
enum { kLiteRtTensorBufferLockModeRead = 0, kLiteRtTensorBufferLockModeWrite = 1 };
enum { kLiteRtTensorMaxRank = 8 };

typedef struct LiteRtOptionsT* LiteRtOptions;
typedef struct LiteRtTensorBufferT* LiteRtTensorBuffer;

struct LiteRtLayout {
  unsigned int rank : 7;
  bool has_strides : 1;
  int32_t dimensions[kLiteRtTensorMaxRank];
  uint32_t strides[kLiteRtTensorMaxRank];
};
static_assert(sizeof(LiteRtLayout) == 68, "LiteRtLayout");

struct LiteRtCustomOpKernel {
  LiteRtStatus (*Init)(void* user_data, const void* init_data, size_t init_data_size);
  LiteRtStatus (*GetOutputLayouts)(void* user_data, size_t num_inputs,
                                   const LiteRtLayout* input_layouts,
                                   size_t num_outputs, LiteRtLayout* output_layouts);
  LiteRtStatus (*Run)(void* user_data, size_t num_inputs,
                      const LiteRtTensorBuffer* inputs, size_t num_outputs,
                      LiteRtTensorBuffer* outputs);
  LiteRtStatus (*Destroy)(void* user_data);
};

}  // extern "C"

#endif  // DQA_LITERT_LITERT_ABI_H_
