// The runtime's C functions.
#include "dqa/runtime.h"

#include <memory>
#include <new>

#include "../src/errors.h"
#include "execute.h"
#include "read_plan.h"

struct DqaRuntime {
  dqa::Plan plan;
  const dqa::RuntimeKernels* kernels = nullptr;
  std::vector<dqa::Prepared> prepared;  // by op
  dqa::Watch watch;
};

namespace {

DqaStatus no_memory(DqaError* error) {
  return dqa::fail(error, DQA_NO_MEMORY, "no memory for the runtime");
}

size_t values_of(const dqa::Plan& plan, const std::vector<uint16_t>& buffers,
                 uint32_t index) {
  if (index >= buffers.size()) return 0;
  const dqa::Buffer& b = plan.buffers[buffers[index]];
  return size_t{b.height} * b.width * b.channels;
}

}  // namespace

int dqa_runtime_has_isa(DqaIsa isa) { return dqa::runtime_kernels(isa) != nullptr; }

DqaStatus dqa_runtime_create(const uint8_t* plan, size_t plan_size,
                             const uint8_t* constants, size_t constants_size,
                             DqaIsa isa, DqaRuntime** runtime, DqaError* error) {
  *runtime = nullptr;
  try {
    auto made = std::make_unique<DqaRuntime>();
    if (const DqaStatus status = dqa::read_plan(
            plan, plan_size, constants, constants_size, isa, &made->plan, error)) {
      return status;
    }
    made->kernels = dqa::runtime_kernels(isa);
    if (made->kernels == nullptr) {
      return dqa::fail(error, DQA_BAD_ARGUMENT,
                       "this machine, or this build, lacks instruction set %d", isa);
    }
    const bool weaves = made->kernels->depthwise64 != nullptr;
    for (const dqa::Op& op : made->plan.ops) {
      made->prepared.push_back(dqa::prepare(made->plan, op, weaves));
    }
    *runtime = made.release();
    return DQA_OK;
  } catch (const std::bad_alloc&) {
    return no_memory(error);
  }
}

void dqa_runtime_destroy(DqaRuntime* runtime) { delete runtime; }

size_t dqa_runtime_arena(const DqaRuntime* runtime) { return runtime->plan.arena; }

size_t dqa_runtime_input_size(const DqaRuntime* runtime, uint32_t index) {
  return values_of(runtime->plan, runtime->plan.inputs, index);
}

DqaType dqa_runtime_input_type(const DqaRuntime* runtime, uint32_t index) {
  const dqa::Plan& plan = runtime->plan;
  return plan.buffers[plan.inputs[index]].type == dqa::Type::kCodes ? DQA_CODES
                                                                    : DQA_FLOAT32;
}

size_t dqa_runtime_output_size(const DqaRuntime* runtime, uint32_t index) {
  return values_of(runtime->plan, runtime->plan.outputs, index);
}

DqaStatus dqa_runtime_run(const DqaRuntime* runtime, const void* const* inputs,
                          float* const* outputs, uint8_t* arena, DqaError* error) {
  try {
    dqa::Run run = {runtime->plan,
                    runtime->prepared,
                    *runtime->kernels,
                    inputs,
                    outputs,
                    arena,
                    error,
                    std::vector<dqa::Slot>(runtime->plan.inputs.size()),
                    {}};
    return dqa::execute(run, runtime->watch);
  } catch (const std::bad_alloc&) {
    return no_memory(error);
  }
}

void dqa_runtime_observe(DqaRuntime* runtime, DqaObserver observer, void* user) {
  runtime->watch.observer = observer;
  runtime->watch.user = user;
}

void dqa_runtime_profile(DqaRuntime* runtime, double* seconds) {
  runtime->watch.seconds = seconds;
}
