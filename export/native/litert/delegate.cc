// An external delegate that runs `DQA` ops, and nothing else.
#include "dqa/delegate.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "dqa/runtime.h"
#include "litert/shapes.h"
#include "litert/tflite_abi.h"

namespace {

constexpr char kName[] = "DQA";
// Inputs of an op after its activations: the plan and the constants.
constexpr int kConstantInputs = 2;

// Kernels hold them too, so that they survive a delegate that is closed too early.
struct Counters {
  std::atomic<uint64_t> ops{0}, arena_bytes{0}, runs{0};
};

struct Options {
  DqaIsa isa = DQA_AUTO;
  std::shared_ptr<Counters> counters;
};

struct RuntimeDeleter {
  void operator()(DqaRuntime* runtime) const { dqa_runtime_destroy(runtime); }
};

struct ArenaDeleter {
  void operator()(void* arena) const { std::free(arena); }
};

// One op of a model.
struct Kernel {
  int node = 0;
  Options options;
  std::vector<int> inputs, outputs;  // tensors
  std::unique_ptr<DqaRuntime, RuntimeDeleter> runtime;
  std::unique_ptr<uint8_t, ArenaDeleter> arena;

  ~Kernel() {
    if (arena == nullptr) return;
    options.counters->ops -= 1;
    options.counters->arena_bytes -= dqa_runtime_arena(runtime.get());
  }
};

TfLiteStatus refuse(TfLiteContext* context, int node, const char* reason) {
  context->ReportError(context, "DQA delegate: node %d: %s", node, reason);
  return kTfLiteError;
}

// The op as the file has it: what replaces it lists its tensors in another order.
void* init(TfLiteContext* context, const char* buffer, size_t) {
  const auto* const params = reinterpret_cast<const TfLiteDelegateParams*>(buffer);
  std::unique_ptr<Kernel> kernel(new (std::nothrow) Kernel);
  TfLiteNode* node = nullptr;
  TfLiteRegistration* registration = nullptr;
  if (kernel == nullptr || params->nodes_to_replace->size != 1) return nullptr;
  kernel->node = params->nodes_to_replace->data[0];
  kernel->options = *static_cast<const Options*>(params->delegate->data);
  if (context->GetNodeAndRegistration(context, kernel->node, &node, &registration) !=
      kTfLiteOk) {
    return nullptr;
  }
  try {
    kernel->inputs.assign(node->inputs->data, node->inputs->data + node->inputs->size);
    kernel->outputs.assign(node->outputs->data,
                           node->outputs->data + node->outputs->size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
  return kernel.release();
}

void destroy(TfLiteContext*, void* kernel) { delete static_cast<Kernel*>(kernel); }

bool are_there(const TfLiteContext* context, const std::vector<int>& tensors) {
  for (const int tensor : tensors) {
    if (tensor < 0 || static_cast<size_t>(tensor) >= context->tensors_size)
      return false;
  }
  return true;
}

bool is_constant(const TfLiteTensor& tensor) {
  return tensor.allocation_type == kTfLiteMmapRo && tensor.data != nullptr;
}

TfLiteStatus check_tensor(TfLiteContext* context, const Kernel& kernel, int tensor,
                          const dqa::PlanShape& shape, DqaType type, const char* what) {
  const TfLiteTensor& t = context->tensors[tensor];
  const bool bytes = type == DQA_CODES;
  const auto rank = static_cast<size_t>(t.dims->size);
  if (t.type == (bytes ? kTfLiteUInt8 : kTfLiteFloat32) &&
      shape.is_of(t.dims->data, rank)) {
    return kTfLiteOk;
  }
  const dqa::ShapeText wanted(shape), received(t.dims->data, rank);
  const size_t values = size_t{shape.sides[0]} * shape.sides[1] * shape.sides[2];
  context->ReportError(
      context,
      "DQA delegate: node %d: its plan is for one size: %s tensor %d must hold %zu "
      "%s values of shape (%s). Received: shape (%s) of type %d. Export the model for "
      "the "
      "size that it is to run on. ",
      kernel.node, what, tensor, values, bytes ? "uint8" : "float32", wanted.text,
      received.text, t.type);
  return kTfLiteError;
}

struct Metadata {
  const uint8_t* data;
  size_t size;
};

// The model's tables of residuals, if a plan needs them and there are any. Interpreters
// before 2.7 cannot be asked, and do not say so: nothing is asked for other plans.
Metadata residual_tables(const TfLiteContext* context, const TfLiteTensor& plan) {
  const char* data = nullptr;
  size_t size = 0;
  if (!dqa_runtime_needs_tables(static_cast<const uint8_t*>(plan.data), plan.bytes) ||
      context->GetModelMetadata(context, "DQA_RESIDUAL", &data, &size) != kTfLiteOk) {
    return {nullptr, 0};
  }
  return {reinterpret_cast<const uint8_t*>(data), size};
}

// The interpreter's number of threads; -1 leaves it to the runtime.
uint32_t threads_of(const TfLiteContext* context) {
  const int wanted = context->recommended_num_threads;
  return wanted < 1 ? 1 : wanted > 16 ? 16 : static_cast<uint32_t>(wanted);
}

TfLiteStatus prepare(TfLiteContext* context, TfLiteNode* node) {
  auto* const kernel = static_cast<Kernel*>(node->user_data);
  if (kernel == nullptr) return refuse(context, -1, "no memory");
  const int activations = static_cast<int>(kernel->inputs.size()) - kConstantInputs;
  if (activations < 1 || kernel->outputs.empty()) {
    return refuse(context, kernel->node, "it lacks inputs or outputs");
  }
  // LiteRT lets -1 pass: it stands for a tensor that an op can do without.
  if (!are_there(context, kernel->inputs) || !are_there(context, kernel->outputs)) {
    return refuse(context, kernel->node, "it needs every tensor. Received: number -1");
  }
  if (kernel->runtime == nullptr) {
    const int* const last = kernel->inputs.data() + activations;
    const TfLiteTensor* const plan = context->tensors + last[0];
    const TfLiteTensor* const constants = context->tensors + last[1];
    if (!is_constant(*plan) || !is_constant(*constants)) {
      return refuse(context, kernel->node, "its plan and weights must be constants");
    }
    const Metadata tables = residual_tables(context, *plan);
    DqaRuntime* runtime = nullptr;
    DqaError error;
    if (dqa_runtime_create(static_cast<const uint8_t*>(plan->data), plan->bytes,
                           static_cast<const uint8_t*>(constants->data),
                           constants->bytes, tables.data, tables.size,
                           kernel->options.isa, threads_of(context), &runtime,
                           &error) != DQA_OK) {
      return refuse(context, kernel->node, error.message);
    }
    kernel->runtime.reset(runtime);
  }
  DqaRuntime* const runtime = kernel->runtime.get();
  const auto inputs = static_cast<uint32_t>(activations);
  const auto outputs = static_cast<uint32_t>(kernel->outputs.size());
  if (dqa_runtime_input_size(runtime, inputs) != 0 ||
      dqa_runtime_output_size(runtime, outputs) != 0) {
    return refuse(context, kernel->node, "its plan has more inputs or outputs");
  }
  for (uint32_t i = 0; i < inputs; ++i) {
    if (dqa_runtime_input_size(runtime, i) == 0) {
      return refuse(context, kernel->node, "its plan has fewer inputs");
    }
    if (check_tensor(context, *kernel, kernel->inputs[i],
                     dqa::PlanShape::input(runtime, i),
                     dqa_runtime_input_type(runtime, i), "input") != kTfLiteOk) {
      return kTfLiteError;
    }
  }
  for (uint32_t i = 0; i < outputs; ++i) {
    if (is_constant(context->tensors[kernel->outputs[i]])) {
      return refuse(context, kernel->node, "it would write a constant");
    }
    if (dqa_runtime_output_size(runtime, i) == 0) {
      return refuse(context, kernel->node, "its plan has fewer outputs");
    }
    if (check_tensor(context, *kernel, kernel->outputs[i],
                     dqa::PlanShape::output(runtime, i),
                     dqa_runtime_output_type(runtime, i), "output") != kTfLiteOk) {
      return kTfLiteError;
    }
  }
  if (kernel->arena == nullptr) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, dqa_runtime_arena(runtime)) != 0) {
      return refuse(context, kernel->node, "no memory for its arena");
    }
    kernel->arena.reset(static_cast<uint8_t*>(memory));
    kernel->options.counters->ops += 1;
    kernel->options.counters->arena_bytes += dqa_runtime_arena(runtime);
  }
  return kTfLiteOk;
}

TfLiteStatus invoke(TfLiteContext* context, TfLiteNode* node) {
  const auto* const kernel = static_cast<const Kernel*>(node->user_data);
  const void* inputs[64] = {};
  void* outputs[64] = {};
  const size_t activations = kernel->inputs.size() - kConstantInputs;
  if (activations > 64 || kernel->outputs.size() > 64) {
    return refuse(context, kernel->node, "it has more than 64 inputs or outputs");
  }
  for (size_t i = 0; i < activations; ++i) {
    inputs[i] = context->tensors[kernel->inputs[i]].data;
  }
  for (size_t i = 0; i < kernel->outputs.size(); ++i) {
    outputs[i] = context->tensors[kernel->outputs[i]].data;
  }
  // A tensor that no op writes has no memory.
  if (std::count(inputs, inputs + activations, nullptr) > 0 ||
      std::count(outputs, outputs + kernel->outputs.size(), nullptr) > 0) {
    return refuse(context, kernel->node, "it reads or writes what is not there");
  }
  DqaError error;
  if (dqa_runtime_run(kernel->runtime.get(), inputs, outputs, kernel->arena.get(),
                      &error) != DQA_OK) {
    return refuse(context, kernel->node, error.message);
  }
  kernel->options.counters->runs += 1;
  return kTfLiteOk;
}

bool read_isa(const char* name, DqaIsa* isa) {
  constexpr struct {
    const char* name;
    DqaIsa isa;
  } kNames[] = {{"auto", DQA_AUTO},         {"scalar", DQA_SCALAR},
                {"avx2", DQA_AVX2},         {"avx-vnni", DQA_AVX_VNNI},
                {"neon", DQA_NEON},         {"avx512-vnni", DQA_AVX512_VNNI},
                {"neon-dot", DQA_NEON_DOT}, {"neon-i8mm", DQA_NEON_I8MM}};
  for (const auto& known : kNames) {
    if (std::strcmp(name, known.name) != 0) continue;
    *isa = known.isa;
    return true;
  }
  return false;
}

// Claims every DQA op by itself: claimed together, neighbours would become one.
TfLiteStatus claim(TfLiteContext* context, TfLiteDelegate* delegate) {
  TfLiteIntArray* plan = nullptr;
  if (context->GetExecutionPlan(context, &plan) != kTfLiteOk) return kTfLiteError;
  std::vector<int> nodes;
  try {
    for (int i = 0; i < plan->size; ++i) {
      TfLiteNode* node = nullptr;
      TfLiteRegistration* registration = nullptr;
      if (context->GetNodeAndRegistration(context, plan->data[i], &node,
                                          &registration) != kTfLiteOk) {
        return kTfLiteError;
      }
      if (registration->custom_name != nullptr &&
          std::strcmp(registration->custom_name, kName) == 0) {
        nodes.push_back(plan->data[i]);
      }
    }
  } catch (const std::bad_alloc&) {
    return refuse(context, -1, "no memory");
  }
  for (const int node : nodes) {
    TfLiteRegistration registration = {};
    registration.init = init;
    registration.free = destroy;
    registration.prepare = prepare;
    registration.invoke = invoke;
    registration.custom_name = "DQADelegate";
    registration.version = 1;
    const TfLiteIntArray one = {1, {node}};
    if (context->ReplaceNodeSubsetsWithDelegateKernels(context, registration, &one,
                                                       delegate) != kTfLiteOk) {
      return refuse(context, node, "it could not be claimed");
    }
  }
  return kTfLiteOk;
}

}  // namespace

extern "C" {

DQA_EXPORT TfLiteDelegate* tflite_plugin_create_delegate(
    const char* const* keys, const char* const* values, size_t count,
    void (*report_error)(const char*)) {
  Options options;
  for (size_t i = 0; i < count; ++i) {
    if (std::strcmp(keys[i], "isa") != 0 || !read_isa(values[i], &options.isa)) {
      if (report_error != nullptr) {
        report_error(
            "DQA delegate: the only option is isa: auto, scalar, avx2, avx-vnni, "
            "avx512-vnni, neon, neon-dot or neon-i8mm");
      }
      return nullptr;
    }
  }
  std::unique_ptr<TfLiteDelegate> delegate;
  try {
    options.counters = std::make_shared<Counters>();
    delegate = std::make_unique<TfLiteDelegate>();
    delegate->data = new Options(options);
  } catch (const std::bad_alloc&) {
    if (report_error != nullptr) report_error("DQA delegate: no memory");
    return nullptr;
  }
  delegate->Prepare = claim;
  // Without this flag the model is prepared first, and custom ops are unresolved then.
  delegate->flags = kTfLiteDelegateFlagsAllowDynamicTensors;
  return delegate.release();
}

DQA_EXPORT void tflite_plugin_destroy_delegate(TfLiteDelegate* delegate) {
  if (delegate == nullptr) return;
  delete static_cast<Options*>(delegate->data);
  delete delegate;
}

void dqa_delegate_counters(const TfLiteDelegate* delegate, DqaCounters* counters) {
  const Counters& read = *static_cast<const Options*>(delegate->data)->counters;
  *counters = {read.ops, read.arena_bytes, read.runs};
}

}  // extern "C"
