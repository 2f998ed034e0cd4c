// The paths for 64-bit Arm: which kernels they have, depthwise convolutions, and rows.
#include "runtime/kernels/neon.h"
#include "runtime/kernels/winograd_rows.h"

#if defined(__aarch64__)

#if defined(__linux__)
#include <sys/auxv.h>
#endif

#include <cstring>

DQA_NEON_KEEP_ORDER

namespace dqa {
namespace {

// Neighbouring pixels share the columns of their windows. Products of a span of rows,
// by codes up to 127, are added in 16 bits.
template <unsigned kTaps, unsigned kStride, unsigned kPixels>
DQA_NEON_INLINE void add_rows(const DepthwiseRow& row, size_t offset, unsigned first,
                              unsigned end, const int8_t*& weights,
                              int16x8_t (*sum)[2]) {
  constexpr unsigned kColumns = (kPixels - 1) * kStride + kTaps;
  const size_t tap_bytes = row.tap_bytes, weight_step = row.weight_step;
  for (unsigned y = first; y < end; ++y) {
    const uint8_t* const at = row.rows[y] + offset;
    int8x16_t w[kTaps];
    DQA_NEON_UNROLL
    for (unsigned x = 0; x < kTaps; ++x) w[x] = vld1q_s8(weights + x * weight_step);
    weights += kTaps * weight_step;
    DQA_NEON_UNROLL
    for (unsigned c = 0; c < kColumns; ++c) {
      const int8x16_t codes = vreinterpretq_s8_u8(vld1q_u8(at + c * tap_bytes));
      DQA_NEON_UNROLL
      for (unsigned p = 0; p < kPixels; ++p) {
        const unsigned tap = c - p * kStride;
        if (tap >= kTaps) continue;
        sum[p][0] = vmlal_s8(sum[p][0], vget_low_s8(codes), vget_low_s8(w[tap]));
        sum[p][1] = vmlal_high_s8(sum[p][1], codes, w[tap]);
      }
    }
  }
}

// Adds sums of 16 bits without a sign to those of 32 bits.
DQA_NEON_INLINE void widen_sums(const int16x8_t* sum, const int32x4_t* to,
                                int32x4_t* total) {
  DQA_NEON_UNROLL
  for (unsigned q = 0; q < 4; ++q) {
    const uint16x8_t half = vreinterpretq_u16_s16(sum[q / 2]);
    const uint32x4_t before = vreinterpretq_u32_s32(to[q]);
    total[q] = vreinterpretq_s32_u32(q % 2 == 0 ? vaddw_u16(before, vget_low_u16(half))
                                                : vaddw_high_u16(before, half));
  }
}

template <unsigned kTaps, unsigned kStride, bool kOneSpan, End kEnd, unsigned kPixels>
void columns(const DepthwiseRow& row, size_t offset, size_t tiles, Ends to) {
  const unsigned span_rows = row.span_rows, taps_y = row.taps_y;
  for (; tiles > 0; --tiles, offset += kPixels * row.pixel_bytes) {
    const int8_t* weights = row.weights;
    const int16_t* base = row.base;
    int32x4_t total[kPixels][4], start[4];
    DQA_NEON_UNROLL
    for (unsigned q = 0; q < 4; ++q) start[q] = vld1q_s32(row.span_start + 4 * q);
    if (!kOneSpan) {
      DQA_NEON_UNROLL
      for (unsigned p = 0; p < kPixels; ++p) {
        DQA_NEON_UNROLL
        for (unsigned q = 0; q < 4; ++q) total[p][q] = start[q];
      }
    }
    unsigned y = 0;
    do {
      int16x8_t sum[kPixels][2];
      DQA_NEON_UNROLL
      for (unsigned p = 0; p < kPixels; ++p) {
        sum[p][0] = vld1q_s16(base);
        sum[p][1] = vld1q_s16(base + 8);
      }
      base += kBlock;
      const unsigned end = kOneSpan ? taps_y : std::min(taps_y, y + span_rows);
      add_rows<kTaps, kStride, kPixels>(row, offset, y, end, weights, sum);
      DQA_NEON_UNROLL
      for (unsigned p = 0; p < kPixels; ++p) {
        widen_sums(sum[p], kOneSpan ? start : total[p], total[p]);
      }
      y = end;
    } while (!kOneSpan && y < taps_y);
    finish_pixels<kEnd, kPixels>(total, to);
  }
}

// The same for any codes of a byte and any windows.
template <End kEnd, unsigned kPixels>
void any_window(const DepthwiseRow& row, size_t offset, size_t tiles, Ends to) {
  for (; tiles > 0; --tiles, offset += kPixels * row.pixel_bytes) {
    int32x4_t total[kPixels][4];
    for (unsigned p = 0; p < kPixels; ++p) {
      for (unsigned q = 0; q < 4; ++q) total[p][q] = vld1q_s32(row.start + 4 * q);
    }
    const int8_t* weights = row.weights;
    for (unsigned y = 0; y < row.taps_y; ++y) {
      const uint8_t* at = row.rows[y] + offset;
      for (unsigned x = 0; x < row.taps_x; ++x) {
        const int8x16_t w = vld1q_s8(weights);
        const int16x8_t w0 = vmovl_s8(vget_low_s8(w)), w1 = vmovl_high_s8(w);
        for (unsigned p = 0; p < kPixels; ++p) {
          const uint8x16_t codes = vld1q_u8(at + p * row.pixel_bytes);
          const int16x8_t c0 = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(codes)));
          const int16x8_t c1 = vreinterpretq_s16_u16(vmovl_high_u8(codes));
          int32x4_t* const sum = total[p];
          sum[0] = vmlal_s16(sum[0], vget_low_s16(c0), vget_low_s16(w0));
          sum[1] = vmlal_high_s16(sum[1], c0, w0);
          sum[2] = vmlal_s16(sum[2], vget_low_s16(c1), vget_low_s16(w1));
          sum[3] = vmlal_high_s16(sum[3], c1, w1);
        }
        at += row.tap_bytes;
        weights += row.weight_step;
      }
    }
    finish_pixels<kEnd, kPixels>(total, to);
  }
}

// Each block in its turn.
template <void (*kTiles)(const DepthwiseRow&, size_t, size_t, Ends)>
void each_block(const DepthwiseRow& row, size_t offset, size_t tiles, const Ends& to,
                unsigned blocks) {
  DepthwiseRow block = row;
  Ends ends = to;
  for (;; --blocks, offset += kBlock) {
    kTiles(block, offset, tiles, ends);
    if (blocks == 1) return;
    block.next_block();
    ends.next_block();
  }
}

// Tiles of some pixels as tiles of one: where few are met, for a smaller library.
template <TilesKernel<DepthwiseRow> kOne, unsigned kPixels>
void singles(const DepthwiseRow& row, size_t offset, size_t tiles, const Ends& to,
             unsigned blocks) {
  kOne(row, offset, kPixels * tiles, to, blocks);
}

template <unsigned kTaps, unsigned kStride, bool kOneSpan, End kEnd, unsigned kPixels>
constexpr TilesKernel<DepthwiseRow> kColumnTiles =
    each_block<columns<kTaps, kStride, kOneSpan, kEnd, kPixels>>;

template <unsigned kTaps, unsigned kStride, bool kOneSpan, End kEnd>
constexpr TilesKernel<DepthwiseRow> kColumns[] = {
    kColumnTiles<kTaps, kStride, kOneSpan, kEnd, 1>,
    singles<kColumnTiles<kTaps, kStride, kOneSpan, kEnd, 1>, 2>,
    kEnd == End::kCodes && (kOneSpan || kTaps == 5)
        ? kColumnTiles<kTaps, kStride, kOneSpan, kEnd, 3>
        : singles<kColumnTiles<kTaps, kStride, kOneSpan, kEnd, 1>, 3>,
    kColumnTiles<kTaps, kStride, kOneSpan, kEnd, 4>};

template <End kEnd>
constexpr TilesKernel<DepthwiseRow> kTiles[] = {
    each_block<any_window<kEnd, 1>>, singles<each_block<any_window<kEnd, 1>>, 2>,
    singles<each_block<any_window<kEnd, 1>>, 3>, each_block<any_window<kEnd, 4>>};

template <unsigned kTaps, unsigned kStride, bool kOneSpan>
constexpr EndKernels<DepthwiseRow> kByColumns = {
    4, kColumns<kTaps, kStride, kOneSpan, End::kSums>,
    kColumns<kTaps, kStride, kOneSpan, End::kCodes>, nullptr, nullptr};

EndKernels<DepthwiseRow> depthwise_kernels(const DepthwiseRow& row) {
  const bool one = row.pixel_bytes == row.tap_bytes,
             two = row.pixel_bytes == 2 * row.tap_bytes;
  if (row.peak <= 127 && row.span_rows > 0 && (one || two)) {
    const bool whole = row.span_rows == row.taps_y;
    if (row.taps_x == 3 && whole) {
      return one ? kByColumns<3, 1, true> : kByColumns<3, 2, true>;
    }
    if (row.taps_x == 3) return one ? kByColumns<3, 1, false> : kByColumns<3, 2, false>;
    if (row.taps_x == 5) return one ? kByColumns<5, 1, false> : kByColumns<5, 2, false>;
  }
  return {4, kTiles<End::kSums>, kTiles<End::kCodes>, nullptr, nullptr};
}

// One block that has fewer channels, or wide inputs.
void depthwise_slowly(const DepthwiseRow& row, const Epilogue& epilogue, unsigned block,
                      size_t offset) {
  const uint8_t* rows[kMaxTaps];
  for (unsigned y = 0; y < row.taps_y; ++y) rows[y] = row.rows[y] + offset;
  DepthwiseRow own = row;
  own.rows = rows;
  Epilogue e = epilogue.block(block);
  scalar_runtime_kernels().depthwise(own, &e);
}

void depthwise(const DepthwiseRow& row, Epilogue* epilogue) {
  const EndKernels<DepthwiseRow> kernels = depthwise_kernels(row);
  const unsigned done = row.wide ? 0 : run_plain_blocks(row, kernels, *epilogue);
  if (done == row.blocks) return;
  DepthwiseRow block = row;
  for (unsigned b = 0; b < row.blocks; ++b, block.next_block()) {
    if (b < done) continue;
    const size_t offset = b * kBlock * (row.wide ? 2 : 1);
    if (row.wide || epilogue->channels < (b + 1) * kBlock) {
      depthwise_slowly(block, *epilogue, b, offset);
    } else {
      run_block(block, kernels, *epilogue, b, offset);
    }
  }
}

void widen(const uint8_t* factors, size_t channels, size_t pixels, uint8_t zero,
           const uint8_t* stored, uint8_t* line, size_t pixel_bytes) {
  const uint8x16_t zeros = vdupq_n_u8(zero);
  const size_t whole = channels / 16 * 16;
  for (size_t p = 0; p < pixels; ++p) {
    for (size_t c = 0; c < whole; c += 16) {
      vst1q_u8(line + c, vmlaq_u8(zeros, vld1q_u8(stored + c), vld1q_u8(factors + c)));
    }
    for (size_t c = whole; c < channels; ++c) {
      line[c] = static_cast<uint8_t>(stored[c] * factors[c] + zero);
    }
    stored += channels;
    line += pixel_bytes;
  }
}

// Factors are 256 and less by powers of two: a product's high byte is a code shifted to
// the right.
uint8x8_t high_bytes(uint8x8_t codes, uint8x8_t zeros, const int16_t* factors) {
  const int16x8_t centred = vreinterpretq_s16_u16(vsubl_u8(codes, zeros));
  return vshrn_n_u16(vreinterpretq_u16_s16(vmulq_s16(centred, vld1q_s16(factors))), 8);
}

void narrow(const int16_t* factors, size_t channels, size_t pixels, uint8_t zero,
            const uint8_t* line, size_t pixel_bytes, uint8_t* stored) {
  const uint8x8_t zeros = vdup_n_u8(zero);
  const size_t whole = channels / 16 * 16;
  for (size_t p = 0; p < pixels; ++p) {
    for (size_t c = 0; c < whole; c += 16) {
      const uint8x16_t codes = vld1q_u8(line + c);
      const uint8x8_t low = high_bytes(vget_low_u8(codes), zeros, factors + c),
                      high = high_bytes(vget_high_u8(codes), zeros, factors + c + 8);
      vst1q_u8(stored + c, vcombine_u8(low, high));
    }
    for (size_t c = whole; c < channels; ++c) {
      const int code = line[c] - zero;
      stored[c] = static_cast<uint8_t>(static_cast<int16_t>(code * factors[c]) >> 8);
    }
    stored += channels;
    line += pixel_bytes;
  }
}

// Weights of narrow blends are below 256, and their sums below 2^15.
void blend(const Blend& b, const uint8_t* const* corners, size_t channels,
           uint8_t* out) {
  size_t c = 0;
  if (b.narrow) {
    uint8x16_t weight[4];
    for (unsigned i = 0; i < 4; ++i) {
      weight[i] = vdupq_n_u8(static_cast<uint8_t>(b.weight[i]));
    }
    const int16x8_t down = vdupq_n_s16(static_cast<int16_t>(-b.shift));
    const uint8_t *const first = corners[0], *const second = corners[1],
                         *const third = corners[2], *const fourth = corners[3];
    for (; c + 16 <= channels; c += 16) {
      const uint8x16_t codes[4] = {vld1q_u8(first + c), vld1q_u8(second + c),
                                   vld1q_u8(third + c), vld1q_u8(fourth + c)};
      uint16x8_t low = vmull_u8(vget_low_u8(codes[0]), vget_low_u8(weight[0])),
                 high = vmull_high_u8(codes[0], weight[0]);
      DQA_NEON_UNROLL
      for (unsigned i = 1; i < 4; ++i) {
        low = vmlal_u8(low, vget_low_u8(codes[i]), vget_low_u8(weight[i]));
        high = vmlal_high_u8(high, codes[i], weight[i]);
      }
      // Shifts that round: `half` is half of what is shifted out.
      low = vrshlq_u16(low, down);
      high = vrshlq_u16(high, down);
      vst1q_u8(out + c,
               vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high)));
    }
    if (c == channels) return;
  }
  const uint8_t* const rest[4] = {corners[0] + c, corners[1] + c, corners[2] + c,
                                  corners[3] + c};
  scalar_runtime_kernels().blend(b, rest, channels - c, out + c * (b.wide ? 2 : 1));
}

bool has_dot() {
#if defined(__linux__)
  constexpr unsigned long kAsimdDotProduct = 1ul << 20;
  return (getauxval(AT_HWCAP) & kAsimdDotProduct) != 0;
#else
  return true;  // every Apple machine of 64 bits since 2018
#endif
}

bool has_matrix() {
#if defined(__linux__)
  constexpr unsigned long kInt8MatrixMultiply = 1ul << 13;
  return has_dot() && (getauxval(AT_HWCAP2) & kInt8MatrixMultiply) != 0;
#else
  return false;  // Apple's since 2022 alone
#endif
}

RuntimeKernels kernels_of(DqaIsa isa, ConvKernel conv, SumsKernel sums, uint8_t less) {
  RuntimeKernels kernels = scalar_runtime_kernels();
  kernels.isa = isa;
  kernels.takes_blocks = true;
  kernels.conv = conv;
  kernels.sums = sums;
  kernels.less = less;
  kernels.tile_shift = 0;  // both multiply signed bytes
  kernels.depthwise = depthwise;
  kernels.wants_spans = true;
  kernels.wants_plain = true;
  kernels.requantize = neon_requantize;
  kernels.widen = widen;
  kernels.narrow = narrow;
  kernels.blend = blend;
  return kernels;
}

}  // namespace

const RuntimeKernels* neon_runtime_kernels() {
  static const RuntimeKernels kKernels = kernels_of(DQA_NEON, neon_conv, neon_sums, 0);
  return &kKernels;
}

const RuntimeKernels* neon_dot_runtime_kernels() {
  static const RuntimeKernels kKernels =
      kernels_of(DQA_NEON_DOT, neon_dot_conv, neon_dot_sums, 128);
  return has_dot() ? &kKernels : nullptr;
}

const RuntimeKernels* neon_i8mm_runtime_kernels() {
  static const RuntimeKernels kKernels =
      kernels_of(DQA_NEON_I8MM, neon_matrix_conv, neon_matrix_sums, 128);
  return has_matrix() ? &kKernels : nullptr;
}

}  // namespace dqa

#else

namespace dqa {
const RuntimeKernels* neon_runtime_kernels() { return nullptr; }
const RuntimeKernels* neon_dot_runtime_kernels() { return nullptr; }
const RuntimeKernels* neon_i8mm_runtime_kernels() { return nullptr; }
}  // namespace dqa

#endif
