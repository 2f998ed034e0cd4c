// Multiply-accumulates a second that one core does in registers, without loads:
// what the runtime's convolutions are held against. Prints a line for each
// instruction.
#include <immintrin.h>

#include <chrono>
#include <cstdio>

namespace {

constexpr int kSums = 12;
constexpr long kRounds = 4000000;

using Clock = std::chrono::steady_clock;

// `products` by one instruction, `each` of them behind each other.
template <class Work> void report(const char *name, int products, Work work) {
  double best = 0;
  for (int trial = 0; trial < 7; ++trial) {
    const auto start = Clock::now();
    work();
    const std::chrono::duration<double> spent = Clock::now() - start;
    const double rate =
        static_cast<double>(kRounds) * kSums * products / spent.count();
    if (rate > best)
      best = rate;
  }
  std::printf("%s %.3f\n", name, best / 1e9);
}

// The compiler must neither drop the sums nor know the factors.
#define OPAQUE(value) __asm__ volatile("" : "+v"(value))

__attribute__((target("avx2"))) void maddubs() {
  __m256i x = _mm256_set1_epi8(3), w = _mm256_set1_epi8(5), sums[kSums] = {};
  for (long i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (auto &sum : sums) {
      OPAQUE(x);
      sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(x, w));
      OPAQUE(sum);
    }
  }
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"))) void dot512() {
  __m512i x = _mm512_set1_epi8(3), w = _mm512_set1_epi8(5), sums[kSums] = {};
  for (long i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (auto &sum : sums) {
      sum = _mm512_dpbusd_epi32(sum, x, w);
      OPAQUE(sum);
    }
  }
}

} // namespace

int main() {
  if (__builtin_cpu_supports("avx2"))
    report("avx2", 32, maddubs);
  if (__builtin_cpu_supports("avx512vnni"))
    report("avx512-vnni", 64, dot512);
}
