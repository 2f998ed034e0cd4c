// The inner loops of the runtime, one set for each instruction set; all give the same
// bits.
#ifndef DQA_RUNTIME_KERNELS_H_
#define DQA_RUNTIME_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "plan.h"

namespace dqa {

// Pixels that are computed together.
constexpr unsigned kTile = 6;

// What the tiles of one convolution share. A run is a stretch of inputs that lie one
// behind the other, in groups of four: with dilation 1 all taps of a row are one run.
struct ConvShape {
  unsigned taps_y;
  unsigned runs;       // of each row
  size_t run_groups;   // in a run
  size_t run_bytes;    // from a run to the next
  size_t pixel_bytes;  // of the input, from an output pixel to the next
  uint32_t interval;   // groups after which 16-bit sums may overflow
};

// Sums for 16 output channels of `pixels` neighbours. `rows[y]` points to the first
// input of tap row y. Weights: [tap y][run][group][16 outputs][4 inputs].
using ConvKernel = void (*)(const ConvShape& shape, const uint8_t* const* rows,
                            const int8_t* weights, const int32_t* start,
                            int32_t (*sums)[kBlock]);

struct DepthwiseShape {
  unsigned taps_y, taps_x;
  size_t tap_bytes;    // from a tap to the next in its row
  size_t pixel_bytes;  // from an output pixel to the next
  size_t weight_step;  // from a tap's weights to the next tap's
  uint32_t interval;   // taps after which 16-bit sums may overflow
};

// The same for 16 channels, each by itself.
using DepthwiseKernel = void (*)(const DepthwiseShape& shape,
                                 const uint8_t* const* rows, unsigned pixels,
                                 const int8_t* weights, const int32_t* start,
                                 int32_t (*sums)[kBlock]);

// From sums to codes; see `Op` in export/plan.py. Arrays begin at the first of the 16
// channels.
struct Addend {
  const uint8_t* codes;
  const float* scale;
  size_t pixel_bytes;
  int32_t zero;
  bool wide;
};

struct Epilogue {
  const float *multiplier, *bias, *low, *high, *power;
  Type type;
  int32_t zero;
  float share;  // AVERAGE: 1 / taps
  bool averages;
  unsigned addends;
  Addend addend[2];
  uint8_t* out;
  size_t out_bytes;  // from a pixel to the next
  size_t channels;   // to write, up to 16

  // Moves on to the next pixels.
  void advance(size_t pixels) {
    out += pixels * out_bytes;
    for (unsigned k = 0; k < addends; ++k) {
      addend[k].codes += pixels * addend[k].pixel_bytes;
    }
  }
};

using FinishKernel = void (*)(const Epilogue& epilogue, const int32_t (*sums)[kBlock],
                              unsigned pixels);

// Rows of codes between a ring (shifted, with a zero) and what the codec stores.
using WidenKernel = void (*)(const uint8_t* widen, size_t channels, size_t pixels,
                             uint8_t zero, const uint8_t* stored, uint8_t* ring,
                             size_t pixel_bytes);
using NarrowKernel = void (*)(const int16_t* narrow, size_t channels, size_t pixels,
                              uint8_t zero, const uint8_t* ring, size_t pixel_bytes,
                              uint8_t* stored);

// A pixel between four others: codes weighted, rounded and shifted.
struct Blend {
  int32_t weight[4];  // of above left, above right, below left, below right
  int32_t half;       // for rounding
  int32_t shift;
  bool narrow;  // results are codes, and all sums fit 15 bits
  bool wide;    // results are wide
};
using BlendKernel = void (*)(const Blend& blend, const uint8_t* const* corners,
                             size_t channels, uint8_t* out);

struct RuntimeKernels {
  ConvKernel conv[kTile];          // by pixels - 1; codes, 16-bit sums
  ConvKernel conv_exact[kTile];    // codes, 32-bit sums
  ConvKernel conv_wide[kTile];     // wide codes
  DepthwiseKernel depthwise;       // codes, 16-bit sums
  DepthwiseKernel depthwise_wide;  // wide codes
  FinishKernel finish;
  WidenKernel widen;
  NarrowKernel narrow;
  BlendKernel blend;
};

const RuntimeKernels& scalar_runtime_kernels();
// NULL where the instruction set is not compiled in or this machine lacks it.
const RuntimeKernels* avx2_runtime_kernels();

}  // namespace dqa

#endif  // DQA_RUNTIME_KERNELS_H_
