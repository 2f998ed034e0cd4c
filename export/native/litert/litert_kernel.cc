// The `DQA` op as a LiteRT 2 custom op kernel.
//
// LiteRT has one kernel for all ops of a name and does not say which op it calls for.
// An op is known by the sizes of its plan and constants, no two of which are alike in a
// file; its custom options say what shapes its outputs have.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "dqa/litert.h"
#include "dqa/runtime.h"
#include "litert/litert_abi.h"
#include "litert/shapes.h"

namespace {

// Inputs of an op after its activations: the plan and the constants.
constexpr size_t kConstantInputs = 2;

struct Free {
  void operator()(DqaRuntime* runtime) const { dqa_runtime_destroy(runtime); }
  void operator()(uint8_t* arena) const { std::free(arena); }
};

struct Node {
  uint32_t plan_bytes = 0, constant_bytes = 0;
  std::vector<LiteRtLayout> inputs;  // as LiteRT has them now, without plan and weights
  std::vector<LiteRtLayout> outputs;
  const void* constants = nullptr;  // which the runtime refers to
  std::unique_ptr<DqaRuntime, Free> runtime;
  std::unique_ptr<uint8_t, Free> arena;
};

}  // namespace

struct DqaLiteRt {
  DqaLiteRtApi api = {};
  LiteRtCustomOpKernel kernel = {};
  std::vector<Node> nodes;
  std::vector<uint8_t> tables;  // DQA_RESIDUAL
  uint32_t threads = 1;
  DqaError error = {};

  // The first failure of a run says why: ops after it fail because of it.
  int fail(int status, const char* why) {
    if (error.message[0] != '\0') return status;
    std::snprintf(error.message, sizeof error.message, "DQA op: %.180s", why);
    return status;
  }

  Node* find(size_t plan_bytes, size_t constant_bytes) {
    for (Node& node : nodes) {
      if (node.plan_bytes == plan_bytes && node.constant_bytes == constant_bytes) {
        return &node;
      }
    }
    return nullptr;
  }
};

namespace {

// Tensor buffers, locked as long as this lives.
class Locked {
 public:
  Locked(const DqaLiteRtApi& api, const LiteRtTensorBuffer* buffers, size_t count,
         int mode)
      : api_(api), buffers_(buffers) {
    for (size_t i = 0; i < count; ++i) {
      void* address = nullptr;
      size_t size = 0;
      if (api.LiteRtGetTensorBufferSize(buffers[i], &size) != kLiteRtStatusOk ||
          api.LiteRtLockTensorBuffer(buffers[i], &address, mode) != kLiteRtStatusOk) {
        return;
      }
      addresses.push_back(address);
      sizes.push_back(size);
    }
    complete = true;
  }
  ~Locked() {
    for (size_t i = 0; i < addresses.size(); ++i) {
      api_.LiteRtUnlockTensorBuffer(buffers_[i]);
    }
  }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

  std::vector<void*> addresses;
  std::vector<size_t> sizes;
  bool complete = false;

 private:
  const DqaLiteRtApi& api_;
  const LiteRtTensorBuffer* const buffers_;
};

// Custom options: u32 bytes of plan, bytes of constants, number of outputs, then for
// each its rank and sizes.
int read_options(DqaLiteRt* self, const uint8_t* data, size_t size) {
  const auto read = [&](uint32_t* value) {
    if (size < sizeof *value) return false;
    std::memcpy(value, data, sizeof *value);
    data += sizeof *value;
    size -= sizeof *value;
    return true;
  };
  Node node;
  uint32_t outputs = 0;
  bool good = read(&node.plan_bytes) && read(&node.constant_bytes) && read(&outputs);
  for (uint32_t i = 0; good && i < outputs; ++i) {
    LiteRtLayout layout = {};
    uint32_t rank = 0;
    good = read(&rank) && rank <= kLiteRtTensorMaxRank;
    for (uint32_t k = 0; good && k < rank; ++k) {
      uint32_t side = 0;
      good = read(&side) && side <= INT32_MAX;
      layout.dimensions[k] = static_cast<int32_t>(side);
    }
    layout.rank = rank & 0x7f;
    node.outputs.push_back(layout);
  }
  if (!good || size != 0) {
    return self->fail(kLiteRtStatusErrorInvalidArgument,
                      "its custom options are damaged: export the file again");
  }
  self->nodes.push_back(std::move(node));
  return kLiteRtStatusOk;
}

int prepare(DqaLiteRt* self, Node* node, const Locked& inputs) {
  const size_t plan = inputs.addresses.size() - kConstantInputs;
  DqaRuntime* runtime = nullptr;
  DqaError error = {};
  const auto* const constants = static_cast<const uint8_t*>(inputs.addresses[plan + 1]);
  if (dqa_runtime_create(static_cast<const uint8_t*>(inputs.addresses[plan]),
                         inputs.sizes[plan], constants, inputs.sizes[plan + 1],
                         self->tables.empty() ? nullptr : self->tables.data(),
                         self->tables.size(), DQA_AUTO, self->threads, &runtime,
                         &error) != DQA_OK) {
    return self->fail(kLiteRtStatusErrorRuntimeFailure, error.message);
  }
  node->runtime.reset(runtime);
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, dqa_runtime_arena(runtime)) != 0) {
    node->runtime.reset();
    return self->fail(kLiteRtStatusErrorMemoryAllocationFailure,
                      "no memory for its arena");
  }
  node->arena.reset(static_cast<uint8_t*>(memory));
  node->constants = constants;
  return kLiteRtStatusOk;
}

size_t width(DqaType type) { return type == DQA_CODES ? 1 : sizeof(float); }

// Whether the inputs of an op have the shapes that its plan is for.
int check_inputs(DqaLiteRt* self, const Node& node, const Locked& inputs) {
  const DqaRuntime* const runtime = node.runtime.get();
  const size_t count = node.inputs.size();
  if (count + kConstantInputs != inputs.addresses.size() ||
      dqa_runtime_input_size(runtime, static_cast<uint32_t>(count)) != 0) {
    return self->fail(kLiteRtStatusErrorInvalidArgument,
                      "its plan has another number of inputs");
  }
  for (size_t i = 0; i < count; ++i) {
    const auto index = static_cast<uint32_t>(i);
    const LiteRtLayout& layout = node.inputs[i];
    const size_t values = dqa_runtime_input_size(runtime, index);
    if (values == 0) {
      return self->fail(kLiteRtStatusErrorInvalidArgument,
                        "its plan has another number of inputs");
    }
    const dqa::PlanShape shape = dqa::PlanShape::input(runtime, index);
    if (!shape.is_of(layout.dimensions, layout.rank)) {
      char why[256];
      std::snprintf(why, sizeof why,
                    "its plan is for one size: input %zu must have shape (%s). "
                    "Received: (%s). Export the model for the size that it is to run "
                    "on",
                    i, dqa::ShapeText(shape).text,
                    dqa::ShapeText(layout.dimensions, layout.rank).text);
      return self->fail(kLiteRtStatusErrorInvalidArgument, why);
    }
    if (values * width(dqa_runtime_input_type(runtime, index)) != inputs.sizes[i]) {
      return self->fail(kLiteRtStatusErrorInvalidArgument,
                        "its plan is for inputs of another size");
    }
  }
  return kLiteRtStatusOk;
}

int compute(DqaLiteRt* self, const Locked& inputs, const Locked& outputs) {
  if (!inputs.complete || !outputs.complete ||
      inputs.addresses.size() <= kConstantInputs) {
    return self->fail(kLiteRtStatusErrorRuntimeFailure, "its tensors cannot be locked");
  }
  const size_t count = inputs.addresses.size() - kConstantInputs;
  Node* const node = self->find(inputs.sizes[count], inputs.sizes[count + 1]);
  if (node == nullptr) {
    return self->fail(kLiteRtStatusErrorInvalidArgument,
                      "its plan and weights have other sizes than its options say");
  }
  if (node == self->nodes.data()) self->error = {};  // a run begins
  if (node->constants != inputs.addresses[count + 1]) {
    if (const int status = prepare(self, node, inputs)) return status;
  }
  DqaRuntime* const runtime = node->runtime.get();
  if (const int status = check_inputs(self, *node, inputs)) return status;
  std::vector<void*> results;
  for (size_t i = 0; i <= outputs.addresses.size(); ++i) {
    const auto index = static_cast<uint32_t>(i);
    const size_t values = dqa_runtime_output_size(runtime, index);
    if (i == outputs.addresses.size()
            ? values != 0
            : values == 0 || values * width(dqa_runtime_output_type(runtime, index)) !=
                                 outputs.sizes[i]) {
      return self->fail(kLiteRtStatusErrorInvalidArgument,
                        "its plan is for outputs of another size");
    }
    if (values != 0) results.push_back(outputs.addresses[i]);
  }
  DqaError error = {};
  if (dqa_runtime_run(runtime, inputs.addresses.data(), results.data(),
                      node->arena.get(), &error) != DQA_OK) {
    return self->fail(kLiteRtStatusErrorRuntimeFailure, error.message);
  }
  return kLiteRtStatusOk;
}

// LiteRT 2.3 ignores the status of a run and goes on. An op that failed leaves NaN, and
// 255 in outputs of bytes, so that nobody takes what lay there for a result.
void spoil(const Locked& outputs) {
  for (size_t i = 0; i < outputs.addresses.size(); ++i) {
    std::memset(outputs.addresses[i], 0xff, outputs.sizes[i]);
  }
}

// LiteRT is not to see exceptions.
template <class Body>
LiteRtStatus guarded(void* user_data, Body body) {
  auto* const self = static_cast<DqaLiteRt*>(user_data);
  try {
    return body(self);
  } catch (const std::bad_alloc&) {
    return self->fail(kLiteRtStatusErrorMemoryAllocationFailure, "no memory");
  }
}

LiteRtStatus init(void* user_data, const void* data, size_t size) {
  return guarded(user_data, [&](DqaLiteRt* self) {
    return read_options(self, static_cast<const uint8_t*>(data), size);
  });
}

LiteRtStatus layouts(void* user_data, size_t count, const LiteRtLayout* inputs,
                     size_t outputs, LiteRtLayout* out) {
  return guarded(user_data, [&](DqaLiteRt* self) -> int {
    Node* node = nullptr;
    if (count > kConstantInputs) {
      node = self->find(static_cast<size_t>(inputs[count - 2].dimensions[0]),
                        static_cast<size_t>(inputs[count - 1].dimensions[0]));
    }
    if (node == nullptr || node->outputs.size() != outputs) {
      return self->fail(kLiteRtStatusErrorInvalidArgument,
                        "its plan and weights have other sizes than its options say");
    }
    node->inputs.assign(inputs, inputs + count - kConstantInputs);
    for (size_t i = 0; i < outputs; ++i) out[i] = node->outputs[i];
    return kLiteRtStatusOk;
  });
}

LiteRtStatus run(void* user_data, size_t count, const LiteRtTensorBuffer* inputs,
                 size_t outputs, LiteRtTensorBuffer* out) {
  return guarded(user_data, [&](DqaLiteRt* self) {
    const Locked in(self->api, inputs, count, kLiteRtTensorBufferLockModeRead);
    const Locked results(self->api, out, outputs, kLiteRtTensorBufferLockModeWrite);
    const int status = compute(self, in, results);
    if (status != kLiteRtStatusOk) spoil(results);
    return status;
  });
}

LiteRtStatus destroy(void*) { return kLiteRtStatusOk; }

}  // namespace

DqaLiteRt* dqa_litert_create(const DqaLiteRtApi* api) {
  auto* const self = new (std::nothrow) DqaLiteRt;
  if (self != nullptr) {
    self->api = *api;
    self->kernel = {init, layouts, run, destroy};
  }
  return self;
}

void dqa_litert_destroy(DqaLiteRt* kernel) { delete kernel; }

void dqa_litert_threads(DqaLiteRt* kernel, uint32_t threads) {
  kernel->threads = threads;
}

int dqa_litert_tables(DqaLiteRt* kernel, const void* data, size_t size) {
  return guarded(kernel, [&](DqaLiteRt* self) -> int {
    const auto* const bytes = static_cast<const uint8_t*>(data);
    self->tables.assign(bytes, bytes + size);
    return kLiteRtStatusOk;
  });
}

int dqa_litert_add(DqaLiteRt* kernel, void* options) {
  return kernel->api.LiteRtAddCustomOpKernelOption(options, "DQA", 1, &kernel->kernel,
                                                   kernel);
}

const char* dqa_litert_error(const DqaLiteRt* kernel) { return kernel->error.message; }
