// Runs plans on every instruction set that this machine has, on several numbers of
// threads, and compares every byte of their outputs with what was expected. Of plans
// with Huffman-coded rows it then lets every allocation fail, one in each call, and
// expects a status and a message each time:
//
//     plan_test FILE...
//
// case.h says what a file holds.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "dqa/runtime.h"
#include "tests/runtime/case.h"

// ThreadSanitizer brings functions of its own for this, which nothing may replace.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define DQA_NEW_IS_TAKEN
#endif
#endif

namespace {

// Allocations from now on until one fails, of whatever thread; negative: none does.
std::atomic<int> allocations_left{-1};

}  // namespace

#ifdef DQA_NEW_IS_TAKEN
constexpr bool kAllocationsFail = false;
#else
constexpr bool kAllocationsFail = true;

// These stand in for the library's everywhere in this program.
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  int left = allocations_left.load();
  while (left >= 0 && !allocations_left.compare_exchange_weak(left, left - 1)) {
  }
  return left == 0 ? nullptr : std::malloc(size > 0 ? size : 1);
}

void* operator new(size_t size) {
  void* const memory = operator new(size, std::nothrow);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void operator delete(void* memory) noexcept { std::free(memory); }

void operator delete(void* memory, size_t) noexcept { std::free(memory); }
#endif

namespace {

// A runtime of a case, with all that it works on.
class Subject {
 public:
  Subject(const Case& expected, uint32_t threads, DqaIsa isa)
      : case_(expected),
        threads_(threads),
        isa_(isa),
        constants_(aligned(expected.constants.size())) {
    std::memcpy(constants_.get(), expected.constants.data(), expected.constants.size());
    for (const Bytes& input : expected.inputs) inputs_.push_back(input.data());
    for (const Bytes& output : expected.outputs) values_.emplace_back(output.size());
    for (Bytes& output : values_) outputs_.push_back(output.data());
  }
  ~Subject() { dqa_runtime_destroy(runtime_); }
  Subject(const Subject&) = delete;
  Subject& operator=(const Subject&) = delete;

  DqaStatus create() {
    dqa_runtime_destroy(runtime_);
    const DqaStatus status = dqa_runtime_create(
        case_.plan.data(), case_.plan.size(), constants_.get(), case_.constants.size(),
        case_.tables.data(), case_.tables.size(), isa_, threads_, &runtime_, &error);
    if (status == DQA_OK) arena_ = aligned(dqa_runtime_arena(runtime_));
    return status;
  }

  DqaStatus run() {
    return dqa_runtime_run(runtime_, inputs_.data(), outputs_.data(), arena_.get(),
                           &error);
  }

  bool is_right() const { return values_ == case_.outputs; }

  size_t spilled() const { return dqa_runtime_spilled(runtime_); }

  DqaError error = {};

 private:
  const Case& case_;
  uint32_t threads_;
  DqaIsa isa_;
  std::unique_ptr<uint8_t, Free> constants_, arena_;
  std::vector<const void*> inputs_;
  std::vector<Bytes> values_;
  std::vector<void*> outputs_;
  DqaRuntime* runtime_ = nullptr;
};

bool check(const char* path, const Case& expected, DqaIsa isa, uint32_t threads) {
  Subject subject(expected, threads, isa);
  bool good = subject.create() == DQA_OK;
  for (int run = 0; run < 2 && good; ++run) good = subject.run() == DQA_OK;
  if (!good) std::fprintf(stderr, "%s: %s\n", path, subject.error.message);
  if (good && !subject.is_right()) {
    std::fprintf(stderr, "%s: wrong on instruction set %d, %u threads\n", path, isa,
                 threads);
    good = false;
  }
  return good;
}

// Calls something with its first allocation failing, then with its second, and so on,
// until nothing fails. Counts the failures, and those that `row` is said in.
template <typename Call>
bool fail_each(const char* path, Subject* subject, const Call& call, unsigned* failures,
               unsigned* rows) {
  for (int number = 0;; ++number) {
    std::memset(&subject->error, 0, sizeof subject->error);
    allocations_left = number;
    const DqaStatus status = call();
    const bool failed = allocations_left.exchange(-1) < 0;
    if (!failed) return status == DQA_OK;
    // The threads that the system refuses are missing, which is no failure.
    if (status == DQA_OK) continue;
    const char* const message = subject->error.message;
    if (status != DQA_NO_MEMORY || std::strstr(message, "no memory") != message) {
      std::fprintf(stderr, "%s: allocation %d: status %d, %s\n", path, number, status,
                   message);
      return false;
    }
    ++*failures;
    if (std::strstr(message, "a coded row") != nullptr) ++*rows;
  }
}

bool check_no_memory(const char* path, const Case& expected, uint32_t threads,
                     unsigned* failures) {
  unsigned ignored = 0, rows = 0;
  Subject refused(expected, threads, DQA_SCALAR);
  if (!fail_each(
          path, &refused, [&] { return refused.create(); }, failures, &ignored)) {
    return false;
  }
  Subject subject(expected, threads, DQA_SCALAR);
  bool good = subject.create() == DQA_OK;
  good =
      good && fail_each(path, &subject, [&] { return subject.run(); }, failures, &rows);
  // Rows that find no room in the arena are what a run allocates most memory for.
  if (good && (rows > 0) != (subject.spilled() > 0)) {
    std::fprintf(stderr, "%s: %u failures name a coded row, %zu bytes are spilled\n",
                 path, rows, subject.spilled());
    good = false;
  }
  return good && subject.run() == DQA_OK && subject.is_right();
}

}  // namespace

int main(int count, char** paths) {
  bool good = count > 1;
  unsigned checks = 0, failures = 0;
  for (int i = 1; i < count; ++i) {
    const Case expected = read_case(paths[i]);
    for (const DqaIsa isa : {DQA_SCALAR, DQA_AVX2, DQA_AVX_VNNI, DQA_AVX512_VNNI,
                             DQA_NEON, DQA_NEON_DOT, DQA_NEON_I8MM}) {
      if (dqa_runtime_has_isa(isa) == 0) continue;
      for (uint32_t threads = 1; threads <= 3; ++threads, ++checks) {
        good = check(paths[i], expected, isa, threads) && good;
      }
    }
    if (!kAllocationsFail || expected.tables.empty()) continue;
    for (uint32_t threads = 1; threads <= 2; ++threads) {
      good = check_no_memory(paths[i], expected, threads, &failures) && good;
    }
  }
  std::printf("%u runs of %d plans, %u failed allocations: %s\n", checks, count - 1,
              failures, good ? "as expected" : "FAILED");
  return good ? 0 : 1;
}
