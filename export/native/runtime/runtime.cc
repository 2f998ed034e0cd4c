// The runtime's C functions.
#include "dqa/runtime.h"

#include <memory>
#include <new>

#include "codec/errors.h"
#include "runtime/plan/read_plan.h"
#include "runtime/schedule/execute.h"

struct DqaRuntime {
  explicit DqaRuntime(unsigned threads) : pool(threads) {}

  dqa::Program program;
  dqa::ThreadPool pool;
  size_t spilled = 0;
};

namespace {

constexpr uint32_t kMaxThreads = 64;
// More than any network takes, and far below where offsets end.
constexpr size_t kMaxArena = size_t{1} << 31;

DqaStatus no_memory(DqaError* error) {
  return dqa::fail(error, DQA_NO_MEMORY, "no memory for the runtime");
}

size_t values_of(const dqa::Plan& plan, const std::vector<uint16_t>& buffers,
                 uint32_t index) {
  if (index >= buffers.size()) return 0;
  const dqa::Buffer& b = plan.buffers[buffers[index]];
  return size_t{b.height} * b.width * b.channels;
}

void set_shape(const dqa::Plan& plan, uint16_t buffer, uint32_t* shape) {
  const dqa::Buffer& b = plan.buffers[buffer];
  shape[0] = b.height;
  shape[1] = b.width;
  shape[2] = b.channels;
}

DqaType type_of(const dqa::Plan& plan, uint16_t buffer) {
  return plan.buffers[buffer].type == dqa::Type::kCodes ? DQA_CODES : DQA_FLOAT32;
}

}  // namespace

int dqa_runtime_has_isa(DqaIsa isa) { return dqa::runtime_kernels(isa) != nullptr; }

int dqa_runtime_needs_tables(const uint8_t* plan, size_t plan_size) {
  return dqa::needs_tables(plan, plan_size);
}

DqaStatus dqa_runtime_create(const uint8_t* plan, size_t plan_size,
                             const uint8_t* constants, size_t constants_size,
                             const uint8_t* tables, size_t tables_size, DqaIsa isa,
                             uint32_t threads, DqaRuntime** runtime, DqaError* error) {
  *runtime = nullptr;
  if (threads < 1 || threads > kMaxThreads) {
    return dqa::fail(error, DQA_BAD_ARGUMENT, "threads must be in 1..%u. Received: %u",
                     kMaxThreads, threads);
  }
  try {
    auto created = std::make_unique<DqaRuntime>(threads);
    dqa::Program& program = created->program;
    if (const DqaStatus status =
            dqa::read_plan(plan, plan_size, constants, constants_size, tables,
                           tables_size, isa, &program.plan, error)) {
      return status;
    }
    program.kernels = dqa::runtime_kernels(isa);
    if (program.kernels == nullptr) {
      return dqa::fail(error, DQA_BAD_ARGUMENT,
                       "this machine, or this build, lacks instruction set %d", isa);
    }
    for (const dqa::Op& op : program.plan.ops) {
      program.prepared.push_back(dqa::prepare(program.plan, op, *program.kernels));
    }
    program.partition = dqa::partition_stages(program.plan, created->pool.threads());
    if (program.partition.arena > kMaxArena && created->pool.threads() > 1) {
      return dqa::fail(error, DQA_NO_MEMORY,
                       "%u threads need an arena of %zu bytes; use fewer", threads,
                       program.partition.arena);
    }
    *runtime = created.release();
    return DQA_OK;
  } catch (const std::bad_alloc&) {
    return no_memory(error);
  }
}

void dqa_runtime_destroy(DqaRuntime* runtime) { delete runtime; }

size_t dqa_runtime_arena(const DqaRuntime* runtime) {
  return runtime->program.partition.arena;
}

size_t dqa_runtime_input_size(const DqaRuntime* runtime, uint32_t index) {
  return values_of(runtime->program.plan, runtime->program.plan.inputs, index);
}

void dqa_runtime_input_shape(const DqaRuntime* runtime, uint32_t index,
                             uint32_t shape[3]) {
  const dqa::Plan& plan = runtime->program.plan;
  set_shape(plan, plan.inputs[index], shape);
}

void dqa_runtime_output_shape(const DqaRuntime* runtime, uint32_t index,
                              uint32_t shape[3]) {
  const dqa::Plan& plan = runtime->program.plan;
  set_shape(plan, plan.outputs[index], shape);
}

DqaType dqa_runtime_input_type(const DqaRuntime* runtime, uint32_t index) {
  return type_of(runtime->program.plan, runtime->program.plan.inputs[index]);
}

size_t dqa_runtime_output_size(const DqaRuntime* runtime, uint32_t index) {
  return values_of(runtime->program.plan, runtime->program.plan.outputs, index);
}

DqaType dqa_runtime_output_type(const DqaRuntime* runtime, uint32_t index) {
  return type_of(runtime->program.plan, runtime->program.plan.outputs[index]);
}

DqaStatus dqa_runtime_run(DqaRuntime* runtime, const void* const* inputs,
                          void* const* outputs, uint8_t* arena, DqaError* error) {
  try {
    if (!runtime->pool.restart_after_fork()) {
      return dqa::fail(error, DQA_NO_MEMORY,
                       "no memory for the %u threads of a forked process",
                       runtime->pool.threads());
    }
    return dqa::execute(runtime->program, &runtime->pool, inputs, outputs, arena,
                        &runtime->spilled, error);
  } catch (const std::bad_alloc&) {
    return no_memory(error);
  }
}

size_t dqa_runtime_spilled(const DqaRuntime* runtime) { return runtime->spilled; }

void dqa_runtime_observe(DqaRuntime* runtime, DqaObserver observer, void* user) {
  runtime->program.watch.observer = observer;
  runtime->program.watch.user = user;
}

const char* dqa_runtime_op_name(uint32_t code) {
  return code < dqa::kOpCodes ? dqa::kOpTraits[code].name : nullptr;
}

void dqa_runtime_profile(DqaRuntime* runtime, double* seconds) {
  runtime->program.watch.seconds = seconds;
}
