// What the compiler and the C++ runtime expect, beside what the runtime's own sources
// give.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <__config>
#include <__verbose_abort>

extern "C" void android_set_abort_message(const char*);

namespace {

// The reason of an abort stands in the system's crash report.
[[noreturn]] void abort_with(const char* format, va_list arguments) {
  char message[256];
  vsnprintf(message, sizeof message, format, arguments);
  android_set_abort_message(message);
  abort();
}

}  // namespace

extern "C" [[noreturn]] void __abort_message(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  abort_with(format, arguments);
}

_LIBCPP_BEGIN_NAMESPACE_STD
[[noreturn]] void __libcpp_verbose_abort(const char* format, ...) noexcept {
  va_list arguments;
  va_start(arguments, format);
  abort_with(format, arguments);
}
_LIBCPP_END_NAMESPACE_STD

#if defined(__x86_64__)
#include <cpuid.h>

// What __builtin_cpu_supports reads: bits by their number in LLVM's list of features.
extern "C" {
struct {
  unsigned vendor, type, subtype, features;
} __cpu_model;
unsigned __cpu_features2[3];
}

namespace {

struct Feature {
  unsigned number;
  unsigned word, bit;    // in which register cpuid's leaf 7 says so: 1 is ebx, 2 is ecx
  unsigned saved;        // what the system must save of a thread
};
constexpr unsigned kAvx = 0x6, kAvx512 = 0xe6;
constexpr Feature kFeatures[] = {
    {10, 1, 5, kAvx},      // avx2
    {17, 1, 8, kAvx},      // bmi2
    {15, 1, 16, kAvx512},  // avx512f
    {20, 1, 31, kAvx512},  // avx512vl
    {21, 1, 30, kAvx512},  // avx512bw
    {22, 1, 17, kAvx512},  // avx512dq
    {34, 2, 11, kAvx512},  // avx512vnni
};

[[gnu::constructor(101)]] void read_features() {
  unsigned words[4];
  if (!__get_cpuid(1, &words[0], &words[1], &words[2], &words[3])) return;
  if ((words[2] >> 27 & 1) == 0) return;  // no xgetbv
  unsigned saved, high;
  __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
  if (!__get_cpuid_count(7, 0, &words[0], &words[1], &words[2], &words[3])) return;
  for (const Feature& each : kFeatures) {
    if ((words[each.word] >> each.bit & 1) == 0) continue;
    if ((saved & each.saved) != each.saved) continue;
    unsigned* const found =
        each.number < 32 ? &__cpu_model.features : &__cpu_features2[each.number / 32 - 1];
    *found |= 1u << each.number % 32;
  }
}

}  // namespace
#endif
