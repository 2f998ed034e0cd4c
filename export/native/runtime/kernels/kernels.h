// The inner loops of the runtime, one set for each instruction set; all give the same
// bits.
#ifndef DQA_RUNTIME_KERNELS_H_
#define DQA_RUNTIME_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "runtime/plan/plan.h"

namespace dqa {

// Pixels that are computed together at most.
constexpr unsigned kTile = 8;

// Blocks of channels that are computed together at most.
constexpr unsigned kBlocks = 4;

// From sums to codes; see `Op` in export/plan.py. Arrays begin at the first channel.
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
  size_t channels;   // to write

  // Moves on to the next pixels.
  void advance(size_t pixels) {
    out += pixels * out_bytes;
    for (unsigned k = 0; k < addends; ++k) {
      addend[k].codes += pixels * addend[k].pixel_bytes;
    }
  }

  // The same from a later block of 16 channels on, up to 16 of them.
  Epilogue block(unsigned number) const;
};

// Up to 16 channels of some pixels.
using FinishKernel = void (*)(const Epilogue& epilogue, const int32_t (*sums)[kBlock],
                              unsigned pixels);

// Neighbouring pixels of a convolution, for blocks of 16 output channels. A run is a
// stretch of inputs that lie one behind the other, in groups of four: with dilation 1
// all taps of a row are one run.
struct ConvRow {
  unsigned taps_y;
  unsigned runs;         // of each row
  size_t run_groups;     // in a run
  size_t run_bytes;      // from a run to the next
  size_t pixel_bytes;    // of the input, from an output pixel to the next
  bool wide;             // the input's codes
  uint32_t peak;         // the largest of them
  const uint8_t** rows;  // the first input of each tap row; kernels move them on
  size_t pixels;
  // Of each block: [tap y][run][group][16 outputs][4 inputs].
  const int8_t* weights;
  size_t block_bytes;
  const int32_t* start;
  // How many groups fit sums of 16 bits, stretch by stretch; NULL: not even one.
  const uint32_t* stretches;
  size_t stretch_count;  // with the one behind, which kernels look at
  unsigned blocks;

  void advance(size_t count) const {
    for (unsigned y = 0; y < taps_y; ++y) rows[y] += count * pixel_bytes;
  }
};
using ConvKernel = void (*)(const ConvRow& row, Epilogue* epilogue);

// The sums of one block alone, 16 for each pixel.
using SumsKernel = void (*)(const ConvRow& row, int32_t* sums);

// Neighbouring tiles of 2x2 outputs and the 4x4 inputs of each.
struct TileInputs {
  const uint8_t* rows[4];  // the first input of each row
  size_t pixel_bytes;
  size_t tiles;
  uint8_t* out;
  size_t position_bytes;  // from a position of the tiles to the next
  uint8_t shift, middle;  // added to each position, and to that of four codes' sum
};
using SpreadKernel = void (*)(const TileInputs& tiles);

// The outputs of up to `kTile / 2` tiles from their sums, two rows of them.
using GatherKernel = void (*)(const int32_t* sums, size_t position, size_t tiles,
                              int32_t (*out)[kTile][kBlock]);

// Arrays of 32 channels in the order in which dot products of four taps leave their
// sums: channel 8 j + 4 i + k is at [i][j][k].
struct WovenArrays {
  int32_t start[32];
  float multiplier[32], bias[32], low[32], high[32], power[32];
};

// The same for channels each by itself.
struct DepthwiseRow {
  unsigned taps_y, taps_x;
  size_t tap_bytes;    // from a tap to the next in its row
  size_t pixel_bytes;  // from an output pixel to the next
  bool wide;
  const uint8_t** rows;
  size_t pixels;
  const int8_t* weights;
  size_t weight_step;  // from a tap's weights to the next tap's
  const int32_t* start;
  uint32_t interval;  // taps after which 16-bit sums may overflow
  // Of each 32 channels: [tap x][four taps y][32 channels, as in `arrays`][4 taps y].
  const int8_t* woven;
  const WovenArrays* arrays;

  void advance(size_t count) const {
    for (unsigned y = 0; y < taps_y; ++y) rows[y] += count * pixel_bytes;
  }
};
using DepthwiseKernel = void (*)(const DepthwiseRow& row, Epilogue* epilogue);

// Rows of codes between a ring (shifted, with a zero) and what the codec stores.
using WidenKernel = void (*)(const uint8_t* widen, size_t channels, size_t pixels,
                             uint8_t zero, const uint8_t* stored, uint8_t* ring,
                             size_t pixel_bytes);
using NarrowKernel = void (*)(const int16_t* narrow, size_t channels, size_t pixels,
                              uint8_t zero, const uint8_t* ring, size_t pixel_bytes,
                              uint8_t* stored);

// A row of an input: values, times factors, plus summands, unless these are NULL.
struct InputRow {
  const void* values;
  bool bytes;  // instead of floats
  const float *factors, *summands;
  size_t count;
};

// The bits of the largest magnitude; the row as codes within a limit.
using MeasureKernel = int32_t (*)(const InputRow& row);
using ReadKernel = void (*)(const InputRow& row, float inverse_scale, float limit,
                            int16_t* codes);

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
  DqaIsa isa;
  unsigned conv_blocks;  // that `conv` takes at most
  ConvKernel conv;
  SumsKernel sums;
  SpreadKernel spread;
  GatherKernel gather;
  uint8_t tile_shift;         // what `sums` takes for 0: bytes are signed, or are not
  DepthwiseKernel depthwise;  // 16 channels
  // All channels of codes up to `woven_peak`, to codes without addends; NULL and 0: 16
  // at a time are as fast.
  DepthwiseKernel depthwise_woven;
  uint32_t woven_peak;
  FinishKernel finish;
  WidenKernel widen;
  NarrowKernel narrow;
  BlendKernel blend;
  MeasureKernel measure;
  ReadKernel read;
};

// The kernels of an instruction set, or the fastest ones (DQA_AUTO); NULL where it is
// not compiled in or this machine lacks it.
const RuntimeKernels* runtime_kernels(DqaIsa isa);

const RuntimeKernels& scalar_runtime_kernels();
const RuntimeKernels* avx2_runtime_kernels();
const RuntimeKernels* avx_vnni_runtime_kernels();
const RuntimeKernels* avx512_runtime_kernels();
const RuntimeKernels* neon_runtime_kernels();
const RuntimeKernels* neon_dot_runtime_kernels();

}  // namespace dqa

#endif  // DQA_RUNTIME_KERNELS_H_
