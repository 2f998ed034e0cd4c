// What the compiler and the C++ runtime expect, beside what the runtime's own sources
// give.
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

// Before Android 10 the loader knows no thread-local variables. The compiler asks here
// for the address of each: a variable has a key of the thread library's.
struct ThreadLocal {
  size_t size, alignment;
  size_t key;           // and one, so that zero is none
  const void* initial;  // NULL: zeros
};

extern "C" void* __emutls_get_address(ThreadLocal* variable) {
  static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
  size_t key = __atomic_load_n(&variable->key, __ATOMIC_ACQUIRE);
  if (key == 0) {
    pthread_mutex_lock(&gate);
    key = variable->key;
    pthread_key_t made = 0;
    if (key == 0 && pthread_key_create(&made, free) != 0) abort();
    if (key == 0) key = static_cast<size_t>(made) + 1;
    __atomic_store_n(&variable->key, key, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&gate);
  }
  const auto number = static_cast<pthread_key_t>(key - 1);
  void* value = pthread_getspecific(number);
  if (value != nullptr) return value;
  const size_t least = sizeof(void*);
  const size_t alignment = variable->alignment < least ? least : variable->alignment;
  if (posix_memalign(&value, alignment, variable->size) != 0) abort();
  if (variable->initial != nullptr) {
    memcpy(value, variable->initial, variable->size);
  } else {
    memset(value, 0, variable->size);
  }
  if (pthread_setspecific(number, value) != 0) abort();
  return value;
}

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
  unsigned word, bit;  // in which register cpuid's leaf 7 says so: 1 is ebx, 2 is ecx
  unsigned saved;      // what the system must save of a thread
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
    unsigned* const found = each.number < 32 ? &__cpu_model.features
                                             : &__cpu_features2[each.number / 32 - 1];
    *found |= 1u << each.number % 32;
  }
}

}  // namespace
#endif
