// Runs a model in LiteRT 2 for a while, on one thread, and prints a line of JSON:
//
//     dqa_phone LIBRARY MODEL SECONDS [CORES]
//
// LIBRARY is LiteRT's libLiteRt.so, which only comes as a shared library; `DQA` ops run
// in the kernel that is linked in. CORES are numbers with commas between them.
#include <dlfcn.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "dqa/litert.h"

namespace {

constexpr int kCpu = 1;         // LiteRtHwAcceleratorSet
constexpr int kHostMemory = 1;  // LiteRtTensorBufferType
constexpr int kWrite = 1;       // LiteRtTensorBufferLockMode

// LiteRtRankedTensorType.
struct TensorType {
  int32_t element;
  uint32_t rank_and_strides;
  int32_t dimensions[8];
  uint32_t strides[8];
};

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(1);
}

void* library = nullptr;

template <typename Function>
Function* litert(const char* name) {
  void* const found = dlsym(library, name);
  if (found == nullptr) fail(std::string("LiteRT has no function ") + name);
  return reinterpret_cast<Function*>(found);
}

// Calls one of LiteRT's functions, which give 0 where they succeed.
template <typename... Arguments>
void call(const char* name, Arguments... arguments) {
  const int status = litert<int(Arguments...)>(name)(arguments...);
  if (status != 0)
    fail(std::string(name) + " of LiteRT failed: " + std::to_string(status));
}

// What a function hands out through its last argument.
template <typename... Arguments>
void* created(const char* name, Arguments... arguments) {
  void* handle = nullptr;
  call(name, arguments..., &handle);
  return handle;
}

class Model {
 public:
  explicit Model(const char* path) {
    const DqaLiteRtApi api = {litert<int(void*, const char*, int, const void*, void*)>(
                                  "LiteRtAddCustomOpKernelOption"),
                              litert<int(void*, size_t*)>("LiteRtGetTensorBufferSize"),
                              litert<int(void*, void**, int)>("LiteRtLockTensorBuffer"),
                              litert<int(void*)>("LiteRtUnlockTensorBuffer")};
    kernel_ = dqa_litert_create(&api);
    if (kernel_ == nullptr) fail("no memory is left");
    void* const none = nullptr;
    environment_ = created("LiteRtCreateEnvironment", 0, none);
    void* const model = created("LiteRtCreateModelFromFile", environment_, path);
    void* const options = created("LiteRtCreateOptions");
    call("LiteRtSetOptionsHardwareAccelerators", options, kCpu);
    call_ours(dqa_litert_add(kernel_, options));
    const void* tables = nullptr;
    size_t size = 0;
    // Files without coded stores have none.
    if (litert<int(void*, const char*, const void**, size_t*)>(
            "LiteRtGetModelMetadata")(model, "DQA_RESIDUAL", &tables, &size) == 0)
      call_ours(dqa_litert_tables(kernel_, tables, size));
    compiled_ = created("LiteRtCreateCompiledModel", environment_, model, options);
    void* const signature = created("LiteRtGetModelSignature", model, size_t{0});
    buffers("Input", signature, &inputs_);
    buffers("Output", signature, &outputs_);
    for (void* const input : inputs_) fill(input);
  }

  void run() {
    const int status = litert<int(void*, size_t, size_t, void**, size_t, void**)>(
        "LiteRtRunCompiledModel")(compiled_, 0, inputs_.size(), inputs_.data(),
                                  outputs_.size(), outputs_.data());
    const char* const reason = dqa_litert_error(kernel_);
    if (status != 0 || *reason != 0)
      fail(std::string("the model does not run: ") + reason);
  }

  // FNV-1a of the outputs' bytes.
  uint64_t digest() {
    uint64_t sum = 14695981039346656037u;
    for (void* const output : outputs_) {
      size_t size = 0;
      void* address = nullptr;
      call("LiteRtGetTensorBufferSize", output, &size);
      call("LiteRtLockTensorBuffer", output, &address, 0);
      for (size_t i = 0; i < size; ++i)
        sum = (sum ^ static_cast<const uint8_t*>(address)[i]) * 1099511628211u;
      call("LiteRtUnlockTensorBuffer", output);
    }
    return sum;
  }

 private:
  void call_ours(int status) {
    if (status != 0) fail(dqa_litert_error(kernel_));
  }

  void buffers(const std::string& end, void* signature, std::vector<void*>* found) {
    size_t count = 0;
    call(("LiteRtGetNumSignature" + end + "s").c_str(), signature, &count);
    for (size_t index = 0; index < count; ++index) {
      void* const tensor = created(
          ("LiteRtGetSignature" + end + "TensorByIndex").c_str(), signature, index);
      TensorType type = {};
      call("LiteRtGetRankedTensorType", tensor, &type);
      for (int32_t& side : type.dimensions) side = std::max(side, 1);  // an open batch
      void* const needs =
          created(("LiteRtGetCompiledModel" + end + "BufferRequirements").c_str(),
                  compiled_, size_t{0}, index);
      size_t size = 0;
      call("LiteRtGetTensorBufferRequirementsBufferSize", needs, &size);
      found->push_back(created("LiteRtCreateManagedTensorBuffer", environment_,
                               kHostMemory, &type, size));
      types_.push_back(type.element);
    }
  }

  // Bytes that differ; floats of an image's range.
  void fill(void* buffer) {
    constexpr int32_t kFloat32 = 1;
    const bool is_float = types_[filled_++] == kFloat32;
    size_t size = 0;
    void* address = nullptr;
    call("LiteRtGetTensorBufferSize", buffer, &size);
    call("LiteRtLockTensorBuffer", buffer, &address, kWrite);
    uint32_t state = 1;
    const auto next = [&state] {
      state = state * 1664525 + 1013904223;
      return static_cast<uint8_t>(state >> 24);
    };
    if (is_float) {
      for (size_t i = 0; i < size / sizeof(float); ++i)
        static_cast<float*>(address)[i] = next();
    } else {
      for (size_t i = 0; i < size; ++i) static_cast<uint8_t*>(address)[i] = next();
    }
    call("LiteRtUnlockTensorBuffer", buffer);
  }

  DqaLiteRt* kernel_ = nullptr;
  void* environment_ = nullptr;
  void* compiled_ = nullptr;
  std::vector<void*> inputs_, outputs_;
  std::vector<int32_t> types_;
  size_t filled_ = 0;
};

void pin(const char* cores) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const char* at = cores; *at != 0;) {
    char* end = nullptr;
    const long core = std::strtol(at, &end, 10);
    if (end == at || core < 0 || core >= CPU_SETSIZE)
      fail(std::string("cores must be numbers with commas. Received: ") + cores);
    CPU_SET(static_cast<size_t>(core), &set);
    at = *end == ',' ? end + 1 : end;
  }
  if (sched_setaffinity(0, sizeof set, &set) != 0)
    fail(std::string("the phone has no such cores, or they are off: ") + cores);
}

// A number in /proc/self/status.
long status(const char* field) {
  std::FILE* const file = std::fopen("/proc/self/status", "r");
  char line[256];
  long value = -1;
  while (file != nullptr && std::fgets(line, sizeof line, file) != nullptr)
    if (std::strncmp(line, field, std::strlen(field)) == 0)
      value = std::strtol(line + std::strlen(field), nullptr, 10);
  if (file != nullptr) std::fclose(file);
  return value;
}

}  // namespace

int main(int count, char** values) {
  if (count < 4) fail("dqa_phone LIBRARY MODEL SECONDS [CORES]");
  if (count > 4) pin(values[4]);
  library = dlopen(values[1], RTLD_NOW);
  if (library == nullptr) fail(dlerror());
  Model model(values[2]);
  model.run();
  using Clock = std::chrono::steady_clock;
  const double seconds = std::strtod(values[3], nullptr);
  std::vector<double> times;
  double spent = 0;
  while (times.size() < 2 || spent < seconds) {
    const Clock::time_point start = Clock::now();
    model.run();
    times.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    spent += times.back();
  }
  std::sort(times.begin(), times.end());
  const size_t half = times.size() / 2;
  const double median =
      times.size() % 2 != 0 ? times[half] : (times[half - 1] + times[half]) / 2;
  std::printf(
      "{\"ms\": %.6f, \"runs\": %zu, \"peak_kib\": %ld, \"threads\": %ld, \"digest\": "
      "\"%016llx\"}\n",
      1e3 * median, times.size(), status("VmHWM:"), status("Threads:"),
      static_cast<unsigned long long>(model.digest()));
  std::fflush(stdout);
  std::_Exit(0);  // LiteRT's handles end with the process
}
