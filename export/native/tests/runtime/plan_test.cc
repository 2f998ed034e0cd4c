// Runs plans on every instruction set that this machine has, on several numbers of
// threads, and compares every byte of their outputs with what was expected:
//
//     plan_test FILE...
//
// A file holds blocks of bytes, each behind its length in 8 bytes: the plan, the
// constants, the tables of layers, the numbers of inputs and outputs, then the inputs
// and the outputs. make_cases.py writes them.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "dqa/runtime.h"

namespace {

using Bytes = std::vector<uint8_t>;

struct Case {
  Bytes plan, constants, tables;
  std::vector<Bytes> inputs, outputs;
};

Bytes block(std::istream* in) {
  uint64_t size = 0;
  in->read(reinterpret_cast<char*>(&size), sizeof size);
  Bytes bytes(in->good() && size < (uint64_t{1} << 30) ? size : 0);
  in->read(reinterpret_cast<char*>(bytes.data()),
           static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

Case read_case(const char* path) {
  std::ifstream in(path, std::ios::binary);
  Case made;
  made.plan = block(&in);
  made.constants = block(&in);
  made.tables = block(&in);
  const Bytes counts = block(&in);
  if (!in.good() || counts.size() != 2) {
    std::fprintf(stderr, "%s: not a case\n", path);
    std::exit(2);
  }
  for (unsigned i = 0; i < counts[0]; ++i) made.inputs.push_back(block(&in));
  for (unsigned i = 0; i < counts[1]; ++i) made.outputs.push_back(block(&in));
  return made;
}

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

// Memory of exactly so many bytes: sanitizers see what lies behind.
std::unique_ptr<uint8_t, Free> aligned(size_t size) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, size) != 0) std::abort();
  std::memset(memory, 0xa5, size);
  return std::unique_ptr<uint8_t, Free>(static_cast<uint8_t*>(memory));
}

bool check(const char* path, const Case& given, DqaIsa isa, uint32_t threads) {
  const auto constants = aligned(given.constants.size());
  std::memcpy(constants.get(), given.constants.data(), given.constants.size());
  DqaRuntime* runtime = nullptr;
  DqaError error;
  if (dqa_runtime_create(given.plan.data(), given.plan.size(), constants.get(),
                         given.constants.size(), given.tables.data(),
                         given.tables.size(), isa, threads, &runtime,
                         &error) != DQA_OK) {
    std::fprintf(stderr, "%s: %s\n", path, error.message);
    return false;
  }
  const auto arena = aligned(dqa_runtime_arena(runtime));
  std::vector<const void*> inputs;
  for (const Bytes& input : given.inputs) inputs.push_back(input.data());
  std::vector<Bytes> values;
  std::vector<void*> outputs;
  for (const Bytes& output : given.outputs) values.emplace_back(output.size());
  for (Bytes& output : values) outputs.push_back(output.data());
  bool same = true;
  for (int run = 0; run < 2 && same; ++run) {
    if (dqa_runtime_run(runtime, inputs.data(), outputs.data(), arena.get(), &error) !=
        DQA_OK) {
      std::fprintf(stderr, "%s: %s\n", path, error.message);
      same = false;
    }
    for (size_t i = 0; i < values.size() && same; ++i) {
      same = std::memcmp(values[i].data(), given.outputs[i].data(),
                         given.outputs[i].size()) == 0;
      if (!same) {
        std::fprintf(stderr,
                     "%s: output %zu differs on instruction set %d, %u threads\n", path,
                     i, isa, threads);
      }
    }
  }
  dqa_runtime_destroy(runtime);
  return same;
}

}  // namespace

int main(int count, char** paths) {
  bool good = count > 1;
  unsigned checks = 0;
  for (int i = 1; i < count; ++i) {
    const Case given = read_case(paths[i]);
    for (const DqaIsa isa : {DQA_SCALAR, DQA_AVX2, DQA_AVX_VNNI, DQA_AVX512_VNNI,
                             DQA_NEON, DQA_NEON_DOT}) {
      if (dqa_runtime_has_isa(isa) == 0) continue;
      for (uint32_t threads = 1; threads <= 3; ++threads, ++checks) {
        good = check(paths[i], given, isa, threads) && good;
      }
    }
  }
  std::printf("%u runs of %d plans: %s\n", checks, count - 1, good ? "same" : "FAILED");
  return good ? 0 : 1;
}
