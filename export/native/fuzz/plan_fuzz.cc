// Hostile plans: whatever their checks let through runs within its own memory.
//
// An input is a u32 for the bytes of plan, a u32 for those of layers' tables, then
// plan, tables and constants. The plan's checksum and size are put right before the
// plan is read: without them hardly a mutation would get that far. Accepted plans run
// on one thread and on two: dividing a plan, line buffers of a thread's own and rows
// saved from another thread are code that one thread never enters.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "codec/crc32.h"
#include "dqa/runtime.h"
#include "runtime/plan/read_plan.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

constexpr size_t kPrefix = 2 * sizeof(uint32_t), kSizeField = 8;
// Plans that ask for more than this are only read.
constexpr uint64_t kMaxArena = uint64_t{1} << 22, kMaxWork = uint64_t{1} << 23;

struct Parts {
  size_t plan, tables, constants;  // bytes
};

Parts parts_of(const uint8_t* data, size_t size) {
  uint32_t wanted[2];
  std::memcpy(wanted, data, sizeof wanted);
  const size_t rest = size - kPrefix;
  const size_t plan = std::min<size_t>(wanted[0], rest);
  const size_t tables = std::min<size_t>(wanted[1], rest - plan);
  return {plan, tables, rest - plan - tables};
}

void seal(uint8_t* plan, size_t size) {
  if (size < kSizeField + 2 * sizeof(uint32_t)) return;
  const auto total = static_cast<uint32_t>(size);
  std::memcpy(plan + kSizeField, &total, sizeof total);
  const uint32_t sum = dqa::crc32(plan, size - sizeof(uint32_t));
  std::memcpy(plan + size - sizeof sum, &sum, sizeof sum);
}

// Roughly how many numbers a run touches.
uint64_t work(const dqa::Plan& plan) {
  uint64_t total = 0;
  for (const dqa::Op& op : plan.ops) {
    const dqa::Buffer& out = plan.buffers[op.output];
    const dqa::Buffer& in = plan.buffers[plan.links[op.first_link].buffer];
    const uint64_t taps = uint64_t{op.taps_y} * op.taps_x + 1;
    const uint64_t inputs = op.code == dqa::OpCode::kConv ? in.channels : 1;
    total += uint64_t{out.height} * out.width * (out.channels + 16) * taps * inputs;
    if (total > kMaxWork) break;
  }
  return total;
}

// Exactly as large as promised, so that a byte too far is seen.
struct Block {
  explicit Block(size_t size)
      : data(static_cast<uint8_t*>(std::aligned_alloc(64, (size + 63) / 64 * 64))) {
    std::memset(data, 0x5a, (size + 63) / 64 * 64);
  }
  ~Block() { std::free(data); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  uint8_t* data;
};

void run(DqaRuntime* runtime) {
  std::vector<std::unique_ptr<Block>> memory;
  std::vector<const void*> inputs;
  std::vector<void*> outputs;
  for (uint32_t i = 0; const size_t size = dqa_runtime_input_size(runtime, i); ++i) {
    const bool bytes = dqa_runtime_input_type(runtime, i) == DQA_CODES;
    memory.push_back(std::make_unique<Block>(size * (bytes ? 1 : sizeof(float))));
    inputs.push_back(memory.back()->data);
  }
  for (uint32_t i = 0; const size_t size = dqa_runtime_output_size(runtime, i); ++i) {
    const bool bytes = dqa_runtime_output_type(runtime, i) == DQA_CODES;
    memory.push_back(std::make_unique<Block>(size * (bytes ? 1 : sizeof(float))));
    outputs.push_back(memory.back()->data);
  }
  if (dqa_runtime_arena(runtime) > 2 * kMaxArena) return;
  const Block arena(dqa_runtime_arena(runtime));
  DqaError error;
  dqa_runtime_run(runtime, inputs.data(), outputs.data(), arena.data, &error);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < kPrefix) return 0;
  const Parts parts = parts_of(data, size);
  const uint8_t* const from = data + kPrefix;
  std::vector<uint8_t> bytes_of_plan(from, from + parts.plan);
  seal(bytes_of_plan.data(), parts.plan);
  const std::vector<uint8_t> tables(from + parts.plan,
                                    from + parts.plan + parts.tables);
  const std::unique_ptr<float[]> weights(
      new float[parts.constants / sizeof(float) + 1]);
  auto* const at = reinterpret_cast<uint8_t*>(weights.get());
  std::memcpy(at, from + parts.plan + parts.tables, parts.constants);
  // The scalar path on one thread; the machine's own on two.
  for (const uint32_t threads : {1u, 2u}) {
    const DqaIsa isa = threads == 1 ? DQA_SCALAR : DQA_AUTO;
    dqa::Plan plan;
    DqaError error;
    if (dqa::read_plan(bytes_of_plan.data(), parts.plan, at, parts.constants,
                       tables.data(), tables.size(), isa, &plan, &error) != DQA_OK) {
      return 0;
    }
    if (plan.arena > kMaxArena || work(plan) > kMaxWork) return 0;
    DqaRuntime* runtime = nullptr;
    if (dqa_runtime_create(bytes_of_plan.data(), parts.plan, at, parts.constants,
                           tables.data(), tables.size(), isa, threads, &runtime,
                           &error) != DQA_OK) {
      return 0;
    }
    run(runtime);
    dqa_runtime_destroy(runtime);
  }
  return 0;
}

// Mostly changes numbers of the plan: to a near one, a border, or another of its own.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  if (size < kPrefix + 64) return LLVMFuzzerMutate(data, size, max_size);
  std::minstd_rand random(seed);
  const size_t bytes = parts_of(data, size).plan;
  if (bytes < 64 || random() % 16 == 0) return LLVMFuzzerMutate(data, size, max_size);
  uint8_t* const plan = data + kPrefix;
  for (auto left = 1 + random() % 3; left > 0; --left) {
    const size_t width = size_t{1} << random() % 3;
    uint8_t* const field = plan + random() % (bytes - width);
    uint32_t value = 0;
    std::memcpy(&value, field, width);
    switch (random() % 5) {
      case 0: value += static_cast<uint32_t>(random() % 9) - 4; break;
      case 1: value = static_cast<uint32_t>(random() % 4); break;
      case 2: value = 0xffffffffu >> random() % 33 % 32; break;
      case 3: std::memcpy(&value, plan + random() % (bytes - width), width); break;
      default: value ^= 1u << random() % (8 * width);
    }
    std::memcpy(field, &value, width);
  }
  if (random() % 8 == 0 && size > kPrefix + bytes) {
    plan[bytes + random() % (size - kPrefix - bytes)] = static_cast<uint8_t>(random());
  }
  return size;
}
