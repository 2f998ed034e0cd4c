// Runs plans once, then once more between two calls of getpgid(424242), which plugin.c
// looks for:
//
//     run_plan ISA FILE...
//
// ISA is a number of `DqaIsa`; tests/runtime/case.h says what a file holds.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "dqa/runtime.h"
#include "tests/runtime/case.h"

namespace {

constexpr pid_t kMark = 424242;

// A plan, and all that it works on.
class Subject {
 public:
  Subject(const char* path, DqaIsa isa) : case_(read_case(path)) {
    constants_ = aligned(case_.constants.size());
    std::memcpy(constants_.get(), case_.constants.data(), case_.constants.size());
    must(dqa_runtime_create(case_.plan.data(), case_.plan.size(), constants_.get(),
                            case_.constants.size(), case_.tables.data(),
                            case_.tables.size(), isa, 1, &runtime_, &error_));
    arena_ = aligned(dqa_runtime_arena(runtime_));
    for (const Bytes& input : case_.inputs) inputs_.push_back(input.data());
    for (Bytes& output : case_.outputs) outputs_.push_back(output.data());
  }
  ~Subject() { dqa_runtime_destroy(runtime_); }
  Subject(const Subject&) = delete;
  Subject& operator=(const Subject&) = delete;

  void run() {
    must(dqa_runtime_run(runtime_, inputs_.data(), outputs_.data(), arena_.get(),
                         &error_));
  }

 private:
  void must(DqaStatus status) {
    if (status == DQA_OK) return;
    std::fprintf(stderr, "%s\n", error_.message);
    std::exit(1);
  }

  Case case_;
  std::unique_ptr<uint8_t, Free> constants_, arena_;
  std::vector<const void*> inputs_;
  std::vector<void*> outputs_;
  DqaRuntime* runtime_ = nullptr;
  DqaError error_ = {};
};

}  // namespace

int main(int count, char** values) {
  if (count < 3) return 2;
  const auto isa = static_cast<DqaIsa>(std::atoi(values[1]));
  std::vector<std::unique_ptr<Subject>> subjects;
  for (int i = 2; i < count; ++i) {
    subjects.push_back(std::make_unique<Subject>(values[i], isa));
    subjects.back()->run();
  }
  getpgid(kMark);
  for (const auto& subject : subjects) subject->run();
  getpgid(kMark);
}
