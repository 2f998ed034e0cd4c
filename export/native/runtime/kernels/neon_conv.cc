// Convolutions on 64-bit Arm with dot products, and with products of matrices (I8MM).
//
// A tile of five pixels and 16 channels fills the registers: no compiler is known to
// keep its sums there without moving them about. So tiles are written in assembly: sums
// of pixel p are in v12 + 4 p and the next three, its inputs in v0 + p, weights in
// v5..v8. A matrix product takes eight inputs of two pixels and of two channels: sums
// of pixels 2 p and 2 p + 1 are in the registers of both until they end, their inputs
// in v0 + p, weights in v3..v6; the sums of a sixth pixel are in v8..v11.
#include "runtime/kernels/neon.h"

#if defined(__aarch64__)

#if defined(__clang__)
#define TARGET_DOT __attribute__((target("dotprod")))
#define TARGET_MATRIX __attribute__((target("i8mm")))
#else
#define TARGET_DOT __attribute__((target("arch=armv8.2-a+dotprod")))
#define TARGET_MATRIX __attribute__((target("arch=armv8.2-a+i8mm")))
#endif

// Something for each of up to six pixels; `sums` are the first of their registers.
#define EACH_1(do, ...) \
  do (0, 12, 13, 14, 15, __VA_ARGS__)
#define EACH_2(do, ...) EACH_1(do, __VA_ARGS__) do(1, 16, 17, 18, 19, __VA_ARGS__)
#define EACH_3(do, ...) EACH_2(do, __VA_ARGS__) do(2, 20, 21, 22, 23, __VA_ARGS__)
#define EACH_4(do, ...) EACH_3(do, __VA_ARGS__) do(3, 24, 25, 26, 27, __VA_ARGS__)
#define EACH_5(do, ...) EACH_4(do, __VA_ARGS__) do(4, 28, 29, 30, 31, __VA_ARGS__)
#define EACH_6(do, ...) EACH_5(do, __VA_ARGS__) do(5, 8, 9, 10, 11, __VA_ARGS__)

#define DOT(sum, w, p, lane) "sdot v" #sum ".4s, v" #w ".16b, v" #p ".4b[" #lane "]\n"
#define DOT_A(p, a, b, c, d, lane) DOT(a, 5, p, lane)
#define DOT_B(p, a, b, c, d, lane) DOT(b, 6, p, lane)
#define DOT_C(p, a, b, c, d, lane) DOT(c, 7, p, lane)
#define DOT_D(p, a, b, c, d, lane) DOT(d, 8, p, lane)
// The products of one group, which is lane `lane` of the inputs.
#define GROUP(n, lane)                                                             \
  "ld1 {v5.16b-v8.16b}, [%[w]], #64\n" EACH_##n(DOT_A, lane) EACH_##n(DOT_B, lane) \
      EACH_##n(DOT_C, lane) EACH_##n(DOT_D, lane)

// Where pixel p begins, and how inputs of 16, 8 or 4 bytes get into v0 + p: as they
// are; less 128; or one half of wide inputs.
#define AT_0 "[%[at]]"
#define AT_1 "[%[at], %[s1]]"
#define AT_2 "[%[at], %[s2]]"
#define AT_3 "[%[at], %[s3]]"
#define AT_4 "[%[at], %[s4]]"
#define ADD_0 "mov %[pixel], %[at]\n"
#define ADD_1 "add %[pixel], %[at], %[s1]\n"
#define ADD_2 "add %[pixel], %[at], %[s2]\n"
#define ADD_3 "add %[pixel], %[at], %[s3]\n"
#define ADD_4 "add %[pixel], %[at], %[s4]\n"
#define SMALL(p, a, b, c, d, size) "ldr " #size #p ", " AT_##p "\n"
#define BYTES(p, a, b, c, d, size) \
  SMALL(p, a, b, c, d, size) "eor v" #p ".16b, v" #p ".16b, v11.16b\n"
#define HALF_q(p) ADD_##p "ldp q5, q6, [%[pixel]]\ntbl v" #p ".16b, {v5.16b, v6.16b}"
#define HALF_d(p) "ldr q5, " AT_##p "\ntbl v" #p ".16b, {v5.16b}"
#define HALF_s(p) "ldr d5, " AT_##p "\ntbl v" #p ".16b, {v5.16b}"
#define HALF(p, a, b, c, d, size) \
  HALF_##size(p) ", v9.16b\neor v" #p ".16b, v" #p ".16b, v10.16b\n"

#define STEP_SMALL "#16"
#define STEP_BYTES "#16"
#define STEP_HALF "#32"
#define HALF_STEP_SMALL "#8"
#define HALF_STEP_BYTES "#8"
#define HALF_STEP_HALF "#16"
#define LAST_STEP_SMALL "#4"
#define LAST_STEP_BYTES "#4"
#define LAST_STEP_HALF "#8"

// Adds all products: for each row of taps, for each run, four groups at a time.
#define PRODUCTS(n, kind) \
  "ldp %[w], %[rows], [%[walk]]\n"                                            \
  "ldr %[y], [%[walk], #16]\n"                                                \
  "cbz %[y], 7f\n"                                                            \
  "1: ldr %[at], [%[rows]], #8\n"                                             \
  "ldr %[run], [%[walk], #24]\n"                                              \
  "add %[at], %[at], %[offset]\n"                                             \
  "2: mov %[left], %[many]\n"                                                   \
  "cbz %[left], 4f\n"                                                            \
  "3:\n" EACH_##n(kind, q)                                                    \
  "add %[at], %[at], " STEP_##kind "\n"                                       \
  "subs %[left], %[left], #1\n" GROUP(n, 0) GROUP(n, 1) GROUP(n, 2) GROUP(n, 3)     \
  "b.ne 3b\n"                                                                 \
  "4: tbz %[rest], #1, 5f\n" EACH_##n(kind, d)                                \
  "add %[at], %[at], " HALF_STEP_##kind "\n" GROUP(n, 0) GROUP(n, 1)          \
  "5: tbz %[rest], #0, 6f\n" EACH_##n(kind, s)                                \
  "add %[at], %[at], " LAST_STEP_##kind "\n" GROUP(n, 0)                      \
  "6: subs %[run], %[run], #1\n"                                              \
  "b.eq 6f\n"                                                                 \
  "ldr %[left], [%[walk], #32]\n"                                                \
  "add %[at], %[at], %[left]\n"                                                  \
  "b 2b\n"                                                                    \
  "6: subs %[y], %[y], #1\n"                                                  \
  "b.ne 1b\n"                                                                 \
  "7:\n"

// What sums begin with; and how the high halves' sums become those of both.
#define BEGIN(p, a, b, c, d, ...) "ld1 {v" #a ".4s-v" #d ".4s}, [%[start]]\n"
#define CLEAR(p, a, b, c, d, ...)  \
  "movi v" #a ".4s, #0\nmovi v" #b \
  ".4s, #0\n"                      \
  "movi v" #c ".4s, #0\nmovi v" #d ".4s, #0\n"
#define RAISE(p, a, b, c, d, ...)                           \
  "shl v" #a ".4s, v" #a ".4s, #8\nshl v" #b ".4s, v" #b    \
  ".4s, #8\n"                                               \
  "shl v" #c ".4s, v" #c ".4s, #8\nshl v" #d ".4s, v" #d    \
  ".4s, #8\n"                                               \
  "add v" #a ".4s, v" #a ".4s, v5.4s\nadd v" #b ".4s, v" #b \
  ".4s, v6.4s\n"                                            \
  "add v" #c ".4s, v" #c ".4s, v7.4s\nadd v" #d ".4s, v" #d ".4s, v8.4s\n"

#define ALL_SMALL(n) EACH_##n(BEGIN, 0) PRODUCTS(n, SMALL)
#define ALL_BYTES(n) "movi v11.16b, #0x80\n" EACH_##n(BEGIN, 0) PRODUCTS(n, BYTES)
// Wide inputs are walked through twice: v9 says where the high halves lie, then the low
// ones, which v10 makes 128 less.
#define ALL_WIDE(n) \
  EACH_##n(CLEAR, 0)                                                    \
  "mov %[left], #0x0301\nmovk %[left], #0x0705, lsl #16\n"              \
  "movk %[left], #0x0b09, lsl #32\nmovk %[left], #0x0f0d, lsl #48\n"    \
  "movi v5.16b, #16\nfmov d9, %[left]\nadd v5.16b, v5.16b, v9.16b\n"    \
  "zip1 v9.2d, v9.2d, v5.2d\nmovi v10.16b, #0\n"                        \
  "8:\n" PRODUCTS(n, HALF)                                              \
  "umov %w[left], v10.b[0]\ncbnz %[left], 9f\n"                         \
  "ld1 {v5.4s-v8.4s}, [%[start]]\n" EACH_##n(RAISE, 0)                  \
  "movi v5.16b, #1\nsub v9.16b, v9.16b, v5.16b\nmovi v10.16b, #0x80\n"  \
  "b 8b\n"                                                              \
  "9:\n"

// How sums end: in memory, or as codes; see `PlainCodes`.
#define SUMS(p, a, b, c, d, ...) "st1 {v" #a ".4s-v" #d ".4s}, [%[sums]], #64\n"
#define ONE(what, a, by) #what " v" #a ".4s, v" #a ".4s" by "\n"
#define FOUR(what, a, b, c, d, e, f, g, h) \
  ONE(what, a, e) ONE(what, b, f) ONE(what, c, g) ONE(what, d, h)
#define BY(r) ", v" #r ".4s"
#define CONVERT(p, a, b, c, d, ...) FOUR(scvtf, a, b, c, d, , , , )
#define SCALE(p, a, b, c, d, ...)                    \
  FOUR(fmul, a, b, c, d, BY(0), BY(1), BY(2), BY(3)) \
  FOUR(fadd, a, b, c, d, BY(4), BY(5), BY(6), BY(7))
#define ADD(p, a, b, c, d, ...)                                                       \
  "ld1 {v4.16b}, [%[addend]], %[addend_bytes]\n"                                      \
  "ushll2 v6.8h, v4.16b, #0\nushll v4.8h, v4.8b, #0\n"                                \
  "ushll2 v5.4s, v4.8h, #0\nushll v4.4s, v4.4h, #0\n"                                 \
  "ushll2 v7.4s, v6.8h, #0\nushll v6.4s, v6.4h, #0\n" FOUR(ucvtf, 4, 5, 6, 7, , , , ) \
      FOUR(fmul, 4, 5, 6, 7, BY(0), BY(1), BY(2), BY(3))                              \
          FOUR(fadd, a, b, c, d, BY(4), BY(5), BY(6), BY(7))
#define NARROW(a, b, c, d)                               \
  FOUR(fcvtns, a, b, c, d, , , , )                       \
  "sqxtn v" #a ".4h, v" #a ".4s\nsqxtn v" #c ".4h, v" #c \
  ".4s\n"                                                \
  "sqxtn2 v" #a ".8h, v" #b ".4s\nsqxtn2 v" #c ".8h, v" #d ".4s\n"
#define BYTE(what, a, by) #what " v" #a ".16b, v" #a ".16b, v" #by ".16b\n"
#define STORE(a) "st1 {v" #a ".16b}, [%[out]], %[out_bytes]\n"
#define ROUND(p, a, b, c, d, ...)                                                     \
  NARROW(a, b, c, d)                                                                  \
  "sqxtun v" #a ".8b, v" #a ".8h\nsqxtun2 v" #a ".16b, v" #c ".8h\n" BYTE(umin, a, 4) \
      BYTE(ushl, a, 5) STORE(a)
#define ROUND_SIGNED(p, a, b, c, d, ...)                                            \
  NARROW(a, b, c, d)                                                                \
  "sqxtn v" #a ".8b, v" #a ".8h\nsqxtn2 v" #a ".16b, v" #c ".8h\n" BYTE(smin, a, 4) \
      BYTE(smax, a, 6) BYTE(ushl, a, 5) BYTE(add, a, 7) STORE(a)
#define ARRAYS "ld1 {v0.4s-v3.4s}, [%[multiplier]]\nld1 {v4.4s-v7.4s}, [%[bias]]\n"
#define SCALED(n, inputs) CONVERT_##inputs(n) ARRAYS EACH_##n(SCALE, 0)
#define CODES(n) "ldp q4, q5, [%[plain]]\n" EACH_##n(ROUND, 0)
#define END_SUMS(n, inputs) SUMS_##inputs(n)
#define END_CODES(n, inputs) SCALED(n, inputs) CODES(n)
#define END_SIGNED(n, inputs) \
  SCALED(n, inputs)           \
  "ldp q4, q5, [%[plain]]\nldp q6, q7, [%[plain], #32]\n" EACH_##n(ROUND_SIGNED, 0)
#define END_ADDED(n, inputs) \
  SCALED(n, inputs) "ld1 {v0.4s-v3.4s}, [%[scale]]\n" EACH_##n(ADD, 0) CODES(n)
#define SUMS_SMALL(n) EACH_##n(SUMS, 0)
#define SUMS_BYTES(n) EACH_##n(SUMS, 0)
#define SUMS_WIDE(n) EACH_##n(SUMS, 0)
#define CONVERT_SMALL(n) EACH_##n(CONVERT, 0)
#define CONVERT_WIDE(n) EACH_##n(CONVERT, 0)

// A function that computes tiles of n pixels.
#define TILES(n, inputs, end)                                                          \
  TARGET_DOT void inputs##_##end##_##n(const ConvRow& row, size_t offset,              \
                                       size_t tiles, const Ends& to,                   \
                                       unsigned blocks) {                              \
    Walk walk(row, 4, #inputs[0] == 'W');                                              \
    Ends block = to;                                                                   \
    const size_t step = row.pixel_bytes;                                               \
    for (;; --blocks) {                                                                \
      int32_t(*sums)[kBlock] = block.sums;                                             \
      uint8_t* out = block.out;                                                        \
      const uint8_t* addend = block.addend;                                            \
      size_t from = offset;                                                            \
      for (size_t tile = tiles; tile > 0; --tile, from += n * step) {                  \
        const int8_t* w;                                                               \
        const uint8_t* const* rows;                                                    \
        const uint8_t* at;                                                             \
        size_t y, run, left, pixel;                                                    \
        asm volatile(                                                                  \
            ALL_##inputs(n) END_##end(n, inputs)                                       \
            : [w] "=&r"(w), [rows] "=&r"(rows), [at] "=&r"(at), [y] "=&r"(y),          \
              [run] "=&r"(run), [left] "=&r"(left), [pixel] "=&r"(pixel),              \
              [sums] "+r"(sums), [out] "+r"(out), [addend] "+r"(addend)                \
            : [walk] "r"(&walk), [offset] "r"(from), [many] "r"(walk.many),            \
              [rest] "r"(walk.rest), [start] "r"(walk.start), [s1] "r"(step),          \
              [s2] "r"(2 * step), [s3] "r"(3 * step), [s4] "r"(4 * step),              \
              [multiplier] "r"(block.multiplier), [bias] "r"(block.bias),              \
              [plain] "r"(block.plain), [scale] "r"(block.scale),                      \
              [out_bytes] "r"(block.out_bytes), [addend_bytes] "r"(block.addend_bytes) \
            : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8",    \
              "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18",     \
              "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28",    \
              "v29", "v30", "v31");                                                    \
      }                                                                                \
      if (blocks == 1) return;                                                         \
      walk.weights += row.block_bytes;                                                 \
      walk.start += row.start_step;                                                    \
      walk.rows += row.rows_step;                                                      \
      block.next_block();                                                              \
    }                                                                                  \
  }
// Pairs of pixels: the registers of one, of the other, and of the inputs of both.
#define PAIRS_4(do, ...)                                                              \
  do                                                                                  \
  (12, 13, 14, 15, 16, 17, 18, 19, 0, __VA_ARGS__) do(20, 21, 22, 23, 24, 25, 26, 27, \
                                                      1, __VA_ARGS__)
#define PAIRS_6(do, ...)   \
  PAIRS_4(do, __VA_ARGS__) \
  do (28, 29, 30, 31, 8, 9, 10, 11, 2, __VA_ARGS__)

// What sums begin with: two channels of both pixels.
#define BEGIN_TWO(a) "ld1r {v" #a ".2d}, [%[at]], #8\n"
#define COPY_TWO(a, from) "mov v" #a ".16b, v" #from ".16b\n"
#define COPY_BEGIN(a, b, c, d, e, f, g, h) \
  COPY_TWO(a, 12)                          \
  COPY_TWO(b, 13)                          \
  COPY_TWO(c, 14)                          \
  COPY_TWO(d, 15) COPY_TWO(e, 16) COPY_TWO(f, 17) COPY_TWO(g, 18) COPY_TWO(h, 19)
#define BEGIN_PAIR                                                        \
  "ldr %[at], [%[walk], #56]\n" BEGIN_TWO(12) BEGIN_TWO(16) BEGIN_TWO(13) \
      BEGIN_TWO(17) BEGIN_TWO(14) BEGIN_TWO(18) BEGIN_TWO(15) BEGIN_TWO(19)
#define BEGIN_4 BEGIN_PAIR COPY_BEGIN(20, 21, 22, 23, 24, 25, 26, 27)
#define BEGIN_6 BEGIN_4 COPY_BEGIN(28, 29, 30, 31, 8, 9, 10, 11)

// Eight inputs of each pixel, or the last four; then their products.
#define ODD_4 "add %[p1], %[at], %[s1]\nadd %[p3], %[p1], %[s2]\n"
#define ODD_6 ODD_4 "add %[p5], %[p3], %[s2]\n"
#define EIGHTS_4                                  \
  "ldr d1, [%[at], %[s2]]\nldr d0, [%[at]], #8\n" \
  "ld1 {v0.d}[1], [%[p1]], #8\nld1 {v1.d}[1], [%[p3]], #8\n"
#define EIGHTS_6 "ldr d2, [%[at], %[s4]]\nld1 {v2.d}[1], [%[p5]], #8\n" EIGHTS_4
#define FOURS_4                                   \
  "ldr s1, [%[at], %[s2]]\nldr s0, [%[at]], #4\n" \
  "ld1 {v0.s}[2], [%[p1]]\nld1 {v1.s}[2], [%[p3]]\n"
#define FOURS_6 "ldr s2, [%[at], %[s4]]\nld1 {v2.s}[2], [%[p5]]\n" FOURS_4
#define MATRIX(sum, in, w) "smmla v" #sum ".4s, v" #in ".16b, v" #w ".16b\n"
#define MATRIX_LOW(a, b, c, d, e, f, g, h, in, ...) \
  MATRIX(a, in, 3) MATRIX(e, in, 4) MATRIX(b, in, 5) MATRIX(f, in, 6)
#define MATRIX_HIGH(a, b, c, d, e, f, g, h, in, ...) \
  MATRIX(c, in, 3) MATRIX(g, in, 4) MATRIX(d, in, 5) MATRIX(h, in, 6)
#define MATRICES(n)                               \
  "ld1 {v3.16b-v6.16b}, [%[w]], #64\n" PAIRS_##n( \
      MATRIX_LOW, 0) "ld1 {v3.16b-v6.16b}, [%[w]], #64\n" PAIRS_##n(MATRIX_HIGH, 0)

#define ALL_PAIRS(n) \
  BEGIN_##n                                                  \
  "ldp %[w], %[rows], [%[walk]]\n"                           \
  "ldr %[y], [%[walk], #16]\n"                               \
  "cbz %[y], 7f\n"                                           \
  "1: ldr %[at], [%[rows]], #8\n"                            \
  "ldr %[run], [%[walk], #24]\n"                             \
  "add %[at], %[at], %[offset]\n"                            \
  "2: ldr %[left], [%[walk], #40]\n" ODD_##n                 \
  "cbz %[left], 4f\n"                                        \
  "3:\n" EIGHTS_##n                                          \
  "subs %[left], %[left], #1\n" MATRICES(n)                  \
  "b.ne 3b\n"                                                \
  "4: ldr %[left], [%[walk], #48]\n"                         \
  "cbz %[left], 5f\n" FOURS_##n MATRICES(n)                  \
  "5: subs %[run], %[run], #1\n"                             \
  "b.eq 6f\n"                                                \
  "ldr %[left], [%[walk], #32]\n"                            \
  "add %[at], %[at], %[left]\n"                              \
  "b 2b\n"                                                   \
  "6: subs %[y], %[y], #1\n"                                 \
  "b.ne 1b\n"                                                \
  "7:\n"

// Sums of both pixels become those of one and of the other.
#define PART(to, how, a, b) #how " v" #to ".2d, v" #a ".2d, v" #b ".2d\n"
#define SUMS_PAIR(a, b, c, d, e, f, g, h, ...)                                  \
  PART(0, zip1, a, e)                                                           \
  PART(1, zip1, b, f)                                                           \
  PART(2, zip1, c, g)                                                           \
  PART(3, zip1, d, h)                                                           \
  "st1 {v0.4s-v3.4s}, [%[sums]], #64\n" PART(0, zip2, a, e) PART(1, zip2, b, f) \
      PART(2, zip2, c, g) PART(3, zip2, d, h) "st1 {v0.4s-v3.4s}, [%[sums]], #64\n"
#define SUMS_PAIRS(n) PAIRS_##n(SUMS_PAIR, 0)
#define CONVERT_TWO(a, b) \
  PART(0, zip1, a, b)     \
  PART(b, zip2, a, b) "scvtf v" #a ".4s, v0.4s\nscvtf v" #b ".4s, v" #b ".4s\n"
#define CONVERT_PAIR(a, b, c, d, e, f, g, h, ...) \
  CONVERT_TWO(a, e) CONVERT_TWO(b, f) CONVERT_TWO(c, g) CONVERT_TWO(d, h)
#define CONVERT_PAIRS(n) PAIRS_##n(CONVERT_PAIR, 0)

// A function that computes tiles of n pixels, an even number, for one block.
#define PAIR_TILES(n, end)                                                            \
  TARGET_MATRIX void PAIRS_##end##_##n(const ConvRow& row, size_t offset,             \
                                       size_t tiles, const Ends& to, unsigned) {      \
    const Walk walk(row, 2, false);                                                   \
    const size_t step = row.pixel_bytes;                                              \
    int32_t(*sums)[kBlock] = to.sums;                                                 \
    uint8_t* out = to.out;                                                            \
    const uint8_t* addend = to.addend;                                                \
    for (; tiles > 0; --tiles, offset += n * step) {                                  \
      const int8_t* w;                                                                \
      const uint8_t* const* rows;                                                     \
      const uint8_t *at, *p1, *p3, *p5;                                               \
      size_t y, run, left;                                                            \
      asm volatile(                                                                   \
          ALL_PAIRS(n) END_##end(n, PAIRS)                                            \
          : [w] "=&r"(w), [rows] "=&r"(rows), [at] "=&r"(at), [y] "=&r"(y),           \
            [run] "=&r"(run), [left] "=&r"(left), [p1] "=&r"(p1), [p3] "=&r"(p3),     \
            [p5] "=&r"(p5), [sums] "+r"(sums), [out] "+r"(out), [addend] "+r"(addend) \
          : [walk] "r"(&walk), [offset] "r"(offset), [s1] "r"(step),                  \
            [s2] "r"(2 * step), [s4] "r"(4 * step), [multiplier] "r"(to.multiplier),  \
            [bias] "r"(to.bias), [plain] "r"(to.plain), [scale] "r"(to.scale),        \
            [out_bytes] "r"(to.out_bytes), [addend_bytes] "r"(to.addend_bytes)        \
          : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8",     \
            "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18",      \
            "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28",     \
            "v29", "v30", "v31");                                                     \
    }                                                                                 \
  }
#define PAIR_KERNEL(end)                                                             \
  PAIR_TILES(4, end)                                                                 \
  PAIR_TILES(6, end)                                                                 \
  void pairs_##end(const ConvRow& row, size_t offset, size_t pixels, const Ends& to, \
                   unsigned blocks) {                                                \
    in_pairs(row, offset, pixels, to, blocks,                                        \
             {kSMALL##end, PAIRS_##end##_4, PAIRS_##end##_6});                       \
  }                                                                                  \
  constexpr TilesKernel<ConvRow> kPAIRS##end = pairs_##end;

// Tiles of n pixels as n times as many of one: where few are met, for a smaller
// library.
#define SINGLES(n, inputs, end)                                              \
  void inputs##_##end##_##n(const ConvRow& row, size_t offset, size_t tiles, \
                            const Ends& to, unsigned blocks) {               \
    inputs##_##end##_1(row, offset, n* tiles, to, blocks);                   \
  }
#define KERNELS(inputs, end)                                                          \
  constexpr TilesKernel<ConvRow> k##inputs##end[] = {                                 \
      inputs##_##end##_1, inputs##_##end##_2, inputs##_##end##_3, inputs##_##end##_4, \
      inputs##_##end##_5};
#define ALL_TILES(inputs, end) \
  TILES(1, inputs, end)        \
  TILES(2, inputs, end)        \
  TILES(3, inputs, end)        \
  TILES(4, inputs, end)        \
  TILES(5, inputs, end)        \
  KERNELS(inputs, end)
#define LARGE_TILES(inputs, end) \
  TILES(1, inputs, end)          \
  SINGLES(2, inputs, end)        \
  SINGLES(3, inputs, end)        \
  TILES(4, inputs, end)          \
  TILES(5, inputs, end)          \
  KERNELS(inputs, end)
#define LARGEST_TILES(inputs, end) \
  TILES(1, inputs, end)            \
  SINGLES(2, inputs, end)          \
  SINGLES(3, inputs, end)          \
  SINGLES(4, inputs, end)          \
  TILES(5, inputs, end)            \
  KERNELS(inputs, end)
#define SINGLE_TILES(inputs, end) \
  TILES(1, inputs, end)           \
  SINGLES(2, inputs, end)         \
  SINGLES(3, inputs, end)         \
  SINGLES(4, inputs, end)         \
  SINGLES(5, inputs, end)         \
  KERNELS(inputs, end)

namespace dqa {
namespace {

// What a tile walks through. The assembly knows where its members lie.
struct Walk {
  const int8_t* weights;
  const uint8_t* const* rows;
  uint64_t taps_y, runs;
  size_t gap;  // from the end of a run to the next
  size_t many, rest;
  const int32_t* start;

  // Groups are taken `together`, and the last ones fewer.
  Walk(const ConvRow& row, unsigned together, bool wide)
      : weights(row.weights),
        rows(row.rows),
        taps_y(row.taps_y),
        runs(row.runs),
        gap(row.run_bytes - row.run_groups * kGroup * (wide ? 2 : 1)),
        many(row.run_groups / together),
        rest(row.run_groups % together),
        start(row.start) {}
};

// Codes up to 127 are valid signed bytes. Bytes above 127 are taken as 128 less, and so
// are the low halves of wide inputs, which come after the high ones.
LARGE_TILES(SMALL, SUMS)
ALL_TILES(SMALL, CODES)
LARGE_TILES(SMALL, SIGNED)
LARGE_TILES(SMALL, ADDED)
LARGEST_TILES(BYTES, SUMS)
SINGLE_TILES(WIDE, SUMS)
LARGE_TILES(WIDE, CODES)

PAIR_KERNEL(SUMS)
PAIR_KERNEL(CODES)
PAIR_KERNEL(SIGNED)
PAIR_KERNEL(ADDED)

}  // namespace

void neon_dot_conv(const ConvRow& row, Epilogue* epilogue) {
  if (row.wide)
    return run_blocks(row, {kDotPixels, kWIDESUMS, kWIDECODES, nullptr, nullptr},
                      *epilogue);
  if (row.peak > 127) {
    return run_blocks(row, {kDotPixels, kBYTESSUMS, nullptr, nullptr, nullptr},
                      *epilogue);
  }
  run_blocks(row, {kDotPixels, kSMALLSUMS, kSMALLCODES, kSMALLSIGNED, kSMALLADDED},
             *epilogue);
}

void neon_matrix_conv(const ConvRow& row, Epilogue* epilogue) {
  if (row.wide || row.peak > 127) return neon_dot_conv(row, epilogue);
  run_blocks(row, {1, &kPAIRSSUMS, &kPAIRSCODES, &kPAIRSSIGNED, &kPAIRSADDED},
             *epilogue);
}

void neon_matrix_sums(const ConvRow& row, int32_t* sums) {
  run_sums(row, {1, &kPAIRSSUMS, nullptr, nullptr, nullptr}, sums);
}

void neon_dot_sums(const ConvRow& row, int32_t* sums) {
  run_sums(row, {kDotPixels, kSMALLSUMS, nullptr, nullptr, nullptr}, sums);
}

}  // namespace dqa

#endif
