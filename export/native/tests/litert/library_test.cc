// A shipped library as LiteRT 2 uses it: this program loads it, hands it functions in
// LiteRT's place, and runs plans through its custom op kernel, on one thread and on
// three. Every byte must be as expected. Then it lets each allocation of the library
// fail in turn, which shim.c of export/android counts: each must give a message, or be
// made up for.
//
//     library_test LIBRARY FILE...
//
// tests/runtime/case.h says what a file holds.
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "dqa/litert.h"
#include "litert/litert_abi.h"
#include "tests/runtime/case.h"

namespace {

struct Buffer {
  void* data;
  size_t size;
};

// What the library gave to LiteRT.
struct Registered {
  const LiteRtCustomOpKernel* kernel = nullptr;
  void* user_data = nullptr;
};

int add(void* options, const char* name, int version, const void* kernel, void* user) {
  auto* const into = static_cast<Registered*>(options);
  *into = {static_cast<const LiteRtCustomOpKernel*>(kernel), user};
  return std::strcmp(name, "DQA") == 0 && version == 1 ? 0 : 1;
}
int size_of(void* buffer, size_t* size) {
  *size = static_cast<Buffer*>(buffer)->size;
  return 0;
}
int lock(void* buffer, void** address, int) {
  *address = static_cast<Buffer*>(buffer)->data;
  return 0;
}
int unlock(void*) { return 0; }

// The library's functions, and those of the shim that it is linked to.
struct Library {
  explicit Library(const char* path) : handle(dlopen(path, RTLD_NOW | RTLD_DEEPBIND)) {
    if (handle == nullptr) {
      std::fprintf(stderr, "%s\n", dlerror());
      std::exit(2);
    }
    find("dqa_litert_create", &create);
    find("dqa_litert_destroy", &destroy);
    find("dqa_litert_add", &register_with);
    find("dqa_litert_threads", &threads);
    find("dqa_litert_tables", &tables);
    find("dqa_litert_error", &error);
    find("dqa_shim_fail", &fail);
    find("dqa_shim_made", &made);
  }

  template <typename Function>
  void find(const char* name, Function** function) {
    *function = reinterpret_cast<Function*>(dlsym(handle, name));
    if (*function == nullptr) {
      std::fprintf(stderr, "no %s\n", name);
      std::exit(2);
    }
  }

  void* handle;
  decltype(dqa_litert_create)* create;
  decltype(dqa_litert_destroy)* destroy;
  decltype(dqa_litert_add)* register_with;
  decltype(dqa_litert_threads)* threads;
  decltype(dqa_litert_tables)* tables;
  decltype(dqa_litert_error)* error;
  void (*fail)(long);
  unsigned long (*made)();
};

LiteRtLayout layout(const std::vector<int>& sides) {
  LiteRtLayout made = {};
  made.rank = static_cast<unsigned>(sides.size()) & 0x7f;
  std::copy(sides.begin(), sides.end(), made.dimensions);
  return made;
}

struct Outcome {
  int status;
  char message[192];
  std::vector<Bytes> outputs;
};

// Makes a kernel, compiles an op and runs it twice, as LiteRT does.
Outcome run(const Library& library, const Case& given, const std::vector<int>& shape,
            uint32_t threads) {
  Outcome outcome = {0, "no memory for a kernel", {}};
  const DqaLiteRtApi api = {add, size_of, lock, unlock};
  DqaLiteRt* const kernel = library.create(&api);
  if (kernel == nullptr) return outcome.status = -1, outcome;
  library.threads(kernel, threads);
  Registered registered;
  outcome.status = library.register_with(kernel, &registered);
  if (outcome.status == 0) {
    outcome.status = library.tables(kernel, given.tables.data(), given.tables.size());
  }

  std::vector<uint32_t> options = {static_cast<uint32_t>(given.plan.size()),
                                   static_cast<uint32_t>(given.constants.size()),
                                   static_cast<uint32_t>(given.outputs.size())};
  for (const Bytes& output : given.outputs) {
    options.insert(options.end(), {1, static_cast<uint32_t>(output.size())});
  }
  const auto call = [&](const auto& function, const auto&... arguments) {
    if (outcome.status == 0) {
      outcome.status = function(registered.user_data, arguments...);
    }
  };
  if (outcome.status == 0) {
    call(registered.kernel->Init, options.data(), options.size() * sizeof options[0]);
    const LiteRtLayout inputs[] = {layout(shape),
                                   layout({static_cast<int>(given.plan.size())}),
                                   layout({static_cast<int>(given.constants.size())})};
    std::vector<LiteRtLayout> outputs(given.outputs.size());
    call(registered.kernel->GetOutputLayouts, size_t{3}, inputs, outputs.size(),
         outputs.data());

    const auto constants = aligned(given.constants.size());
    std::memcpy(constants.get(), given.constants.data(), given.constants.size());
    Bytes input = given.inputs[0], plan = given.plan;
    Buffer in[] = {{input.data(), input.size()},
                   {plan.data(), plan.size()},
                   {constants.get(), given.constants.size()}};
    const LiteRtTensorBuffer taken[] = {reinterpret_cast<LiteRtTensorBuffer>(&in[0]),
                                        reinterpret_cast<LiteRtTensorBuffer>(&in[1]),
                                        reinterpret_cast<LiteRtTensorBuffer>(&in[2])};
    std::vector<Buffer> out;
    std::vector<LiteRtTensorBuffer> given_back;
    for (const Bytes& output : given.outputs)
      outcome.outputs.emplace_back(output.size());
    for (Bytes& output : outcome.outputs) out.push_back({output.data(), output.size()});
    for (Buffer& buffer : out) {
      given_back.push_back(reinterpret_cast<LiteRtTensorBuffer>(&buffer));
    }
    for (int i = 0; i < 2; ++i) {
      call(registered.kernel->Run, size_t{3}, taken, given_back.size(),
           given_back.data());
    }
  }
  std::snprintf(outcome.message, sizeof outcome.message, "%s", library.error(kernel));
  library.destroy(kernel);
  return outcome;
}

// The shape that a plan is for: its refusal of another one names it.
std::vector<int> shape_of(const Library& library, const Case& given) {
  const Outcome refused = run(library, given, {1, 1, 1, 1}, 1);
  std::vector<int> shape(4);
  const char* const found = std::strstr(refused.message, "must have shape (");
  if (refused.status == 0 || found == nullptr ||
      std::sscanf(found, "must have shape (%d, %d, %d, %d)", &shape[0], &shape[1],
                  &shape[2], &shape[3]) != 4) {
    std::fprintf(stderr, "a wrong shape is not refused: %s\n", refused.message);
    std::exit(1);
  }
  return shape;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 3) return 2;
  const Library library(arguments[1]);
  bool good = true;
  unsigned refused = 0, recovered = 0;
  for (int i = 2; i < count; ++i) {
    const Case given = read_case(arguments[i]);
    const std::vector<int> shape = shape_of(library, given);
    for (const uint32_t threads : {1u, 3u}) {
      const Outcome outcome = run(library, given, shape, threads);
      if (outcome.status != 0 || outcome.outputs != given.outputs) {
        std::fprintf(stderr, "%s: wrong on %u threads: %s\n", arguments[i], threads,
                     outcome.message);
        good = false;
      }
    }
    if (i > 2 && given.tables.empty()) continue;
    for (long number = 1;; ++number) {
      const unsigned long before = library.made();
      library.fail(number);
      const Outcome outcome = run(library, given, shape, 3);
      library.fail(0);
      if (static_cast<long>(library.made() - before) < number) break;
      const bool is_right = outcome.status == 0 && outcome.outputs == given.outputs;
      if (is_right) {
        ++recovered;
      } else if (outcome.status != 0 && outcome.message[0] != '\0') {
        ++refused;
      } else {
        std::fprintf(stderr, "%s: allocation %ld: status %d\n", arguments[i], number,
                     outcome.status);
        good = false;
      }
    }
  }
  std::printf("%d plans; of the failed allocations %u refused, %u made up for: %s\n",
              count - 2, refused, recovered, good ? "as expected" : "FAILED");
  return good && refused > 50 ? 0 : 1;
}
