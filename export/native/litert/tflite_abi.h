// The part of TensorFlow Lite's C ABI that a delegate needs, declared anew: no package
// for Python ships the headers, and the libraries export none of the functions. Field
// for field as in tensorflow/lite/core/c/common.h; a test compares the layout with the
// headers of the Android package.
#ifndef DQA_LITERT_TFLITE_ABI_H_
#define DQA_LITERT_TFLITE_ABI_H_

#include <cstddef>
#include <cstdint>

extern "C" {

typedef enum { kTfLiteOk = 0, kTfLiteError = 1 } TfLiteStatus;

enum { kTfLiteFloat32 = 1, kTfLiteUInt8 = 3 };
enum { kTfLiteMmapRo = 1 };
enum { kTfLiteDelegateFlagsAllowDynamicTensors = 1 };

struct TfLiteContext;
struct TfLiteDelegate;

struct TfLiteIntArray {
  int size;
  int data[1];  // `size` of them
};

struct TfLiteTensor {  // whole: a context holds an array of them
  int type;
  void* data;
  TfLiteIntArray* dims;
  float scale;
  int32_t zero_point;
  int allocation_type;
  size_t bytes;
  const void* allocation;
  const char* name;
  TfLiteDelegate* delegate;
  int buffer_handle;
  bool data_is_stale;
  bool is_variable;
  int quantization_type;
  void* quantization_params;
  void* sparsity;
  const TfLiteIntArray* dims_signature;
};

struct TfLiteNode {  // goes on
  TfLiteIntArray* inputs;
  TfLiteIntArray* outputs;
  TfLiteIntArray* intermediates;
  TfLiteIntArray* temporaries;
  void* user_data;
};

struct TfLiteRegistration {
  void* (*init)(TfLiteContext*, const char* buffer, size_t length);
  void (*free)(TfLiteContext*, void* buffer);
  TfLiteStatus (*prepare)(TfLiteContext*, TfLiteNode*);
  TfLiteStatus (*invoke)(TfLiteContext*, TfLiteNode*);
  const char* (*profiling_string)(const TfLiteContext*, const TfLiteNode*);
  int32_t builtin_code;
  const char* custom_name;
  int version;
  // What later versions added, all of it optional, and room for more: this struct is
  // passed by value.
  void* later[8];
};

struct TfLiteDelegateParams {
  TfLiteDelegate* delegate;
  TfLiteIntArray* nodes_to_replace;
  TfLiteIntArray* input_tensors;
  TfLiteIntArray* output_tensors;
};

struct TfLiteContext {  // goes on
  size_t tensors_size;
  TfLiteStatus (*GetExecutionPlan)(TfLiteContext*, TfLiteIntArray** plan);
  TfLiteTensor* tensors;
  void* impl;
  TfLiteStatus (*ResizeTensor)(TfLiteContext*, TfLiteTensor*, TfLiteIntArray*);
  void (*ReportError)(TfLiteContext*, const char* format, ...);
  TfLiteStatus (*AddTensors)(TfLiteContext*, int count, int* first);
  TfLiteStatus (*GetNodeAndRegistration)(TfLiteContext*, int node, TfLiteNode**,
                                         TfLiteRegistration**);
  TfLiteStatus (*ReplaceNodeSubsetsWithDelegateKernels)(TfLiteContext*,
                                                        TfLiteRegistration,
                                                        const TfLiteIntArray* nodes,
                                                        TfLiteDelegate*);
  int recommended_num_threads;
  void* (*GetExternalContext)(TfLiteContext*, int type);
  void (*SetExternalContext)(TfLiteContext*, int type, void*);
  bool allow_fp32_relax_to_fp16;
  void* profiler;
  void* (*AllocatePersistentBuffer)(TfLiteContext*, size_t);
  TfLiteStatus (*AllocateBufferForEval)(TfLiteContext*, size_t, void**);
  TfLiteStatus (*RequestScratchBufferInArena)(TfLiteContext*, size_t, int*);
  void* (*GetScratchBuffer)(TfLiteContext*, int);
  TfLiteStatus (*ResizeTensorExplicit)(TfLiteContext*, TfLiteTensor*, int, const int*);
  TfLiteStatus (*PreviewDelegatePartitioning)(TfLiteContext*, const TfLiteIntArray*,
                                              TfLiteDelegateParams**, int*);
  TfLiteTensor* (*GetTensor)(const TfLiteContext*, int);
  void* (*GetEvalTensor)(const TfLiteContext*, int);
  TfLiteStatus (*GetModelMetadata)(const TfLiteContext*, const char* name,
                                   const char** data, size_t* bytes);
};

struct TfLiteDelegate {
  void* data;
  TfLiteStatus (*Prepare)(TfLiteContext*, TfLiteDelegate*);
  TfLiteStatus (*CopyFromBufferHandle)(TfLiteContext*, TfLiteDelegate*, int,
                                       TfLiteTensor*);
  TfLiteStatus (*CopyToBufferHandle)(TfLiteContext*, TfLiteDelegate*, int,
                                     TfLiteTensor*);
  void (*FreeBufferHandle)(TfLiteContext*, TfLiteDelegate*, int*);
  int64_t flags;
  void* opaque_delegate_builder;
};

}  // extern "C"

#endif  // DQA_LITERT_TFLITE_ABI_H_
