// The layout that tflite_abi.h declares, field for field that of TensorFlow Lite's own
// header. Compiled by `make abi`; nothing runs.
#include <cstddef>
#include <cstdint>

#include "tensorflow/lite/core/c/common.h"

namespace ours {
#include "litert/tflite_abi.h"
}  // namespace ours

#define SAME(type, ours_field, field)                                        \
  static_assert(offsetof(ours::type, ours_field) == offsetof(::type, field), \
                #type "." #field " lies elsewhere");                         \
  static_assert(sizeof(ours::type::ours_field) == sizeof(::type::field),     \
                #type "." #field " has another size")
#define FIELD(type, field) SAME(type, field, field)

static_assert(ours::kTfLiteOk == static_cast<int>(::kTfLiteOk), "kTfLiteOk");
static_assert(ours::kTfLiteError == static_cast<int>(::kTfLiteError), "kTfLiteError");
static_assert(ours::kTfLiteFloat32 == static_cast<int>(::kTfLiteFloat32), "float32");
static_assert(ours::kTfLiteUInt8 == static_cast<int>(::kTfLiteUInt8), "uint8");
static_assert(ours::kTfLiteMmapRo == static_cast<int>(::kTfLiteMmapRo), "constants");
static_assert(ours::kTfLiteDelegateFlagsAllowDynamicTensors ==
                  static_cast<int>(::kTfLiteDelegateFlagsAllowDynamicTensors),
              "flags");

FIELD(TfLiteIntArray, size);
static_assert(offsetof(ours::TfLiteIntArray, data) == offsetof(::TfLiteIntArray, data),
              "TfLiteIntArray.data lies elsewhere");

static_assert(sizeof(ours::TfLiteTensor) == sizeof(::TfLiteTensor), "TfLiteTensor");
FIELD(TfLiteTensor, type);
FIELD(TfLiteTensor, data);
FIELD(TfLiteTensor, dims);
SAME(TfLiteTensor, scale, params.scale);
SAME(TfLiteTensor, zero_point, params.zero_point);
FIELD(TfLiteTensor, allocation_type);
FIELD(TfLiteTensor, bytes);
FIELD(TfLiteTensor, allocation);
FIELD(TfLiteTensor, name);
FIELD(TfLiteTensor, delegate);
FIELD(TfLiteTensor, buffer_handle);
FIELD(TfLiteTensor, data_is_stale);
FIELD(TfLiteTensor, is_variable);
SAME(TfLiteTensor, quantization_type, quantization.type);
SAME(TfLiteTensor, quantization_params, quantization.params);
FIELD(TfLiteTensor, sparsity);
FIELD(TfLiteTensor, dims_signature);

static_assert(sizeof(ours::TfLiteNode) <= sizeof(::TfLiteNode), "TfLiteNode");
FIELD(TfLiteNode, inputs);
FIELD(TfLiteNode, outputs);
FIELD(TfLiteNode, intermediates);
FIELD(TfLiteNode, temporaries);
FIELD(TfLiteNode, user_data);

// Passed by value: a callee must find every field it knows.
static_assert(sizeof(ours::TfLiteRegistration) >= sizeof(::TfLiteRegistration),
              "TfLiteRegistration grew beyond its room");
FIELD(TfLiteRegistration, init);
FIELD(TfLiteRegistration, free);
FIELD(TfLiteRegistration, prepare);
FIELD(TfLiteRegistration, invoke);
FIELD(TfLiteRegistration, profiling_string);
FIELD(TfLiteRegistration, builtin_code);
FIELD(TfLiteRegistration, custom_name);
FIELD(TfLiteRegistration, version);

FIELD(TfLiteDelegateParams, delegate);
FIELD(TfLiteDelegateParams, nodes_to_replace);
FIELD(TfLiteDelegateParams, input_tensors);
FIELD(TfLiteDelegateParams, output_tensors);

static_assert(sizeof(ours::TfLiteContext) <= sizeof(::TfLiteContext), "TfLiteContext");
FIELD(TfLiteContext, tensors_size);
FIELD(TfLiteContext, GetExecutionPlan);
FIELD(TfLiteContext, tensors);
SAME(TfLiteContext, impl, impl_);
FIELD(TfLiteContext, ResizeTensor);
FIELD(TfLiteContext, ReportError);
FIELD(TfLiteContext, AddTensors);
FIELD(TfLiteContext, GetNodeAndRegistration);
FIELD(TfLiteContext, ReplaceNodeSubsetsWithDelegateKernels);
FIELD(TfLiteContext, recommended_num_threads);
FIELD(TfLiteContext, GetExternalContext);
FIELD(TfLiteContext, SetExternalContext);
FIELD(TfLiteContext, allow_fp32_relax_to_fp16);
FIELD(TfLiteContext, profiler);
FIELD(TfLiteContext, AllocatePersistentBuffer);
FIELD(TfLiteContext, AllocateBufferForEval);
FIELD(TfLiteContext, RequestScratchBufferInArena);
FIELD(TfLiteContext, GetScratchBuffer);
FIELD(TfLiteContext, ResizeTensorExplicit);
FIELD(TfLiteContext, PreviewDelegatePartitioning);
FIELD(TfLiteContext, GetTensor);
FIELD(TfLiteContext, GetEvalTensor);
FIELD(TfLiteContext, GetModelMetadata);

static_assert(sizeof(ours::TfLiteDelegate) >= sizeof(::TfLiteDelegate),
              "TfLiteDelegate grew");
SAME(TfLiteDelegate, data, data_);
FIELD(TfLiteDelegate, Prepare);
FIELD(TfLiteDelegate, CopyFromBufferHandle);
FIELD(TfLiteDelegate, CopyToBufferHandle);
FIELD(TfLiteDelegate, FreeBufferHandle);
FIELD(TfLiteDelegate, flags);
FIELD(TfLiteDelegate, opaque_delegate_builder);
