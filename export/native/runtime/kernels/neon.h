// What the files of the path for 64-bit Arm share.
#ifndef DQA_RUNTIME_KERNELS_NEON_H_
#define DQA_RUNTIME_KERNELS_NEON_H_

#include "runtime/kernels/kernels.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#include <algorithm>

// gcc keeps arrays in registers only if it unrolls every loop over them early, and if
// it does not load the next weights while sums still wait for these.
#if defined(__GNUC__) && !defined(__clang__)
#define DQA_NEON_UNROLL _Pragma("GCC unroll 16")
#define DQA_NEON_KEEP_ORDER _Pragma("GCC optimize(\"no-schedule-insns\")")
#else
#define DQA_NEON_UNROLL
#define DQA_NEON_KEEP_ORDER
#endif
#define DQA_NEON_INLINE __attribute__((always_inline)) inline

namespace dqa {

void neon_requantize(const Epilogue& epilogue, const int32_t (*sums)[kBlock],
                     unsigned pixels);

// The most pixels whose sums are kept before they are requantized.
constexpr size_t kBatch = 40;

// How the sums of a tile end: in memory; or at once as codes, as `PlainCodes` says,
// after codes that count from 0 were added or without.
enum class End { kSums, kCodes, kAdded };

// Where they go, and the arrays of their block.
struct Ends {
  int32_t (*sums)[kBlock];
  const float *multiplier, *bias, *scale;
  const uint8_t* addend;
  size_t addend_bytes;
  uint8_t* out;
  size_t out_bytes;
  const PlainCodes* plain;
  size_t sums_step;  // numbers from a block to the next

  void advance(size_t pixels) {
    sums += pixels;
    addend += pixels * addend_bytes;
    out += pixels * out_bytes;
  }

  void next_block() {
    sums = reinterpret_cast<int32_t(*)[kBlock]>(sums[0] + sums_step);
    multiplier += kBlock;
    bias += kBlock;
    scale += kBlock;
    addend += kBlock;
    out += kBlock;
    ++plain;
  }
};

// A block's arrays in registers.
struct PlainArrays {
  float32x4_t multiplier[4], bias[4];
  uint8x16_t high;
  int8x16_t shift;
};

template <class To>
DQA_NEON_INLINE PlainArrays load_arrays(const To& to) {
  PlainArrays arrays;
  DQA_NEON_UNROLL
  for (unsigned q = 0; q < 4; ++q) {
    arrays.multiplier[q] = vld1q_f32(to.multiplier + 4 * q);
    arrays.bias[q] = vld1q_f32(to.bias + 4 * q);
  }
  arrays.high = vld1q_u8(to.plain->high);
  arrays.shift = vld1q_s8(to.plain->shift);
  return arrays;
}

// What is below 0 becomes 0, and what is too large the largest number.
DQA_NEON_INLINE uint8x16_t plain_codes(const int32x4_t* sum,
                                       const PlainArrays& arrays) {
  int32x4_t rounded[4];
  DQA_NEON_UNROLL
  for (unsigned q = 0; q < 4; ++q) {
    const float32x4_t scaled = vmulq_f32(vcvtq_f32_s32(sum[q]), arrays.multiplier[q]);
    rounded[q] = vcvtnq_s32_f32(vaddq_f32(scaled, arrays.bias[q]));
  }
  const int16x8_t low = vqmovn_high_s32(vqmovn_s32(rounded[0]), rounded[1]),
                  high = vqmovn_high_s32(vqmovn_s32(rounded[2]), rounded[3]);
  const uint8x16_t codes = vqmovun_high_s16(vqmovun_s16(low), high);
  return vshlq_u8(vminq_u8(codes, arrays.high), arrays.shift);
}

// Ends a tile, without addends, and moves on to the next.
template <End kEnd, unsigned kPixels>
DQA_NEON_INLINE void finish_pixels(const int32x4_t (*sums)[4], Ends& to) {
  if (kEnd == End::kSums) {
    DQA_NEON_UNROLL
    for (unsigned p = 0; p < kPixels; ++p) {
      DQA_NEON_UNROLL
      for (unsigned q = 0; q < 4; ++q) vst1q_s32(to.sums[p] + 4 * q, sums[p][q]);
    }
    to.sums += kPixels;
    return;
  }
  const PlainArrays arrays = load_arrays(to);
  DQA_NEON_UNROLL
  for (unsigned p = 0; p < kPixels; ++p) {
    vst1q_u8(to.out + p * to.out_bytes, plain_codes(sums[p], arrays));
  }
  to.out += kPixels * to.out_bytes;
}

// Computes some tiles of as many pixels each, from `offset` bytes into the rows on, for
// some blocks.
template <class Row>
using TilesKernel = void (*)(const Row& row, size_t offset, size_t tiles,
                             const Ends& to, unsigned blocks);

// `kernels` by pixels - 1, `max_pixels` of them. Tiles differ by a pixel at most: a
// kernel computes all that are larger, another one the others.
template <class Row>
void compute_tiles(const Row& row, size_t offset, const TilesKernel<Row>* kernels,
                   unsigned max_pixels, size_t pixels, Ends to, unsigned blocks) {
  const size_t tiles = (pixels + max_pixels - 1) / max_pixels, small = pixels / tiles,
               large = pixels - tiles * small;
  if (large > 0) {
    kernels[small](row, offset, large, to, blocks);
    offset += large * (small + 1) * row.pixel_bytes;
    to.advance(large * (small + 1));
  }
  if (tiles > large) kernels[small - 1](row, offset, tiles - large, to, blocks);
}

// The kernels for each way in which sums end; NULL where there are none.
template <class Row>
struct EndKernels {
  unsigned max_pixels;  // of a tile
  const TilesKernel<Row>*sums, *codes, *with_sign, *added;
};

// Computes as many of the first blocks as sums of become codes at once. Returns how
// many.
template <class Row>
unsigned run_plain_blocks(const Row& row, const EndKernels<Row>& kernels,
                          const Epilogue& epilogue) {
  const Addend& addend = epilogue.addend[0];
  const bool adds = epilogue.addends != 0;
  const bool counts_up = epilogue.plain != nullptr && !epilogue.plain->has_sign;
  const auto* const tiles = counts_up ? (adds ? kernels.added : kernels.codes)
                                      : (adds ? nullptr : kernels.with_sign);
  const unsigned whole =
      std::min(row.blocks, static_cast<unsigned>(epilogue.channels / kBlock));
  if (tiles == nullptr || epilogue.plain == nullptr || whole == 0 ||
      (adds && (epilogue.addends > 1 || addend.wide || addend.zero != 0))) {
    return 0;
  }
  const Ends to = {nullptr,        epilogue.multiplier,
                   epilogue.bias,  addend.scale,
                   addend.codes,   addend.pixel_bytes,
                   epilogue.out,   epilogue.out_bytes,
                   epilogue.plain, 0};
  compute_tiles(row, 0, tiles, kernels.max_pixels, row.pixels, to, whole);
  return whole;
}

// Computes block `number`, from `offset` bytes into the rows on, in two steps.
template <class Row>
void run_block(const Row& row, const EndKernels<Row>& kernels, const Epilogue& epilogue,
               unsigned number, size_t offset) {
  Epilogue own = epilogue.block(number);
  for (size_t left = row.pixels; left > 0;) {
    const size_t together = std::min(left, kBatch);
    alignas(64) int32_t sums[kBatch][kBlock];
    Ends to = {};
    to.sums = sums;
    compute_tiles(row, offset, kernels.sums, kernels.max_pixels, together, to, 1);
    neon_requantize(own, sums, static_cast<unsigned>(together));
    own.advance(together);
    offset += together * row.pixel_bytes;
    left -= together;
  }
}

inline void run_blocks(ConvRow row, const EndKernels<ConvRow>& kernels,
                       const Epilogue& epilogue) {
  const unsigned done = run_plain_blocks(row, kernels, epilogue);
  for (unsigned b = 0; b < row.blocks; ++b, row.next_block()) {
    if (b >= done) run_block(row, kernels, epilogue, b, 0);
  }
}

inline void run_sums(const ConvRow& row, const EndKernels<ConvRow>& kernels,
                     int32_t* sums) {
  Ends to = {};
  to.sums = reinterpret_cast<int32_t(*)[kBlock]>(sums);
  to.sums_step = row.sums_step;
  compute_tiles(row, 0, kernels.sums, kernels.max_pixels, row.pixels, to, row.blocks);
}

// The most pixels of a tile of dot products.
constexpr unsigned kDotPixels = 5;

// The weights of two groups as matrices take them: eight inputs of each channel, 0 for
// those of a group that a run lacks. Returns whether there is room for them.
constexpr size_t kMatrixBytes = 64 * 1024;
inline bool zip_weights(const ConvRow& row, const int8_t* weights, int8_t* zipped) {
  const size_t runs = size_t{row.taps_y} * row.runs;
  if (runs * ((row.run_groups + 1) / 2) * 8 * kBlock > kMatrixBytes) return false;
  for (size_t run = 0; run < runs; ++run) {
    for (size_t twos = row.run_groups / 2; twos > 0; --twos) {
      asm volatile(
          "ld1 {v0.4s-v3.4s}, [%[from]], #64\nld1 {v4.4s-v7.4s}, [%[from]], #64\n"
          "zip1 v16.4s, v0.4s, v4.4s\nzip2 v17.4s, v0.4s, v4.4s\n"
          "zip1 v18.4s, v1.4s, v5.4s\nzip2 v19.4s, v1.4s, v5.4s\n"
          "zip1 v20.4s, v2.4s, v6.4s\nzip2 v21.4s, v2.4s, v6.4s\n"
          "zip1 v22.4s, v3.4s, v7.4s\nzip2 v23.4s, v3.4s, v7.4s\n"
          "st1 {v16.4s-v19.4s}, [%[to]], #64\nst1 {v20.4s-v23.4s}, [%[to]], #64\n"
          : [from] "+r"(weights), [to] "+r"(zipped)
          :
          : "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17",
            "v18", "v19", "v20", "v21", "v22", "v23");
    }
    if (row.run_groups % 2 == 0) continue;
    for (unsigned q = 0; q < 4; ++q, weights += kBlock, zipped += 2 * kBlock) {
      const uint32x4_t four = vreinterpretq_u32_s8(vld1q_s8(weights));
      vst1q_s8(zipped, vreinterpretq_s8_u64(vmovl_u32(vget_low_u32(four))));
      vst1q_s8(zipped + kBlock, vreinterpretq_s8_u64(vmovl_high_u32(four)));
    }
  }
  return true;
}

struct PairKernels {
  const TilesKernel<ConvRow>* dots;
  TilesKernel<ConvRow> four, six;
};

// Pixels in tiles of three pairs and of two, and one that is left with dot products; so
// are all where weights are too many or serve too few pixels.
inline void in_pairs(const ConvRow& row, size_t offset, size_t pixels, const Ends& to,
                     unsigned blocks, const PairKernels& kernels) {
  alignas(16) int8_t zipped[kMatrixBytes];
  const size_t pairs = pixels / 2, tiles = (pairs + 2) / 3, large = pairs - 2 * tiles,
               step = row.pixel_bytes;
  ConvRow block = row, matrices = row;
  Ends ends = to;
  for (;; --blocks) {
    if (pixels < 6 || !zip_weights(row, block.weights, zipped)) {
      compute_tiles(block, offset, kernels.dots, kDotPixels, pixels, ends, 1);
    } else {
      matrices.weights = zipped;
      matrices.rows = block.rows;
      matrices.start = block.start;
      Ends moving = ends;
      kernels.six(matrices, offset, large, moving, 1);
      moving.advance(6 * large);
      kernels.four(matrices, offset + 6 * large * step, tiles - large, moving, 1);
      moving.advance(4 * (tiles - large));
      if (pixels % 2 != 0) {
        kernels.dots[0](block, offset + (pixels - 1) * step, 1, moving, 1);
      }
    }
    if (blocks == 1) return;
    block.next_block();
    block.rows += block.rows_step;
    ends.next_block();
  }
}

void neon_conv(const ConvRow& row, Epilogue* epilogue);
void neon_sums(const ConvRow& row, int32_t* sums);

// With dot products.
void neon_dot_conv(const ConvRow& row, Epilogue* epilogue);
void neon_dot_sums(const ConvRow& row, int32_t* sums);

// With products of matrices, which machines with dot products have or lack.
void neon_matrix_conv(const ConvRow& row, Epilogue* epilogue);
void neon_matrix_sums(const ConvRow& row, int32_t* sums);

}  // namespace dqa

#endif

#endif  // DQA_RUNTIME_KERNELS_NEON_H_
