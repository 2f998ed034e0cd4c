// The inner loops of the runtime, one set for each instruction set. All sets compute
// the same bits.
#ifndef DQA_RUNTIME_KERNELS_KERNELS_H_
#define DQA_RUNTIME_KERNELS_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "runtime/plan/plan.h"

namespace dqa {

// The most pixels that a kernel computes at once.
constexpr unsigned kTile = 8;

// The most blocks of channels that a kernel is given at once.
constexpr unsigned kBlocks = 4;

// How sums become codes; export/FORMAT.md has the arithmetic. Arrays begin at the first
// channel.
struct Addend {
  const uint8_t* codes;
  const float* scale;
  size_t pixel_bytes;
  int32_t zero;
  bool wide;
};

// How values become codes of bytes, in a block of 16 channels: rounded, at least `low`,
// at most `high`, shifted up and moved by their zero. Without a sign `low` and zero are
// 0.
struct PlainCodes {
  uint8_t high[kBlock];
  int8_t shift[kBlock];
  int8_t low[kBlock];
  uint8_t zero[kBlock];
  bool has_sign;
};

struct Epilogue {
  const float *multiplier, *bias, *low, *high, *power;
  const PlainCodes* plain;  // of each block; NULL if its rules do not hold, or unread
  Type type;
  int32_t zero;
  float share;  // AVERAGE: 1 / taps
  bool averages;
  unsigned addends;
  Addend addend[2];
  uint8_t* out;
  size_t out_bytes;  // from a pixel to the next
  size_t channels;   // to write

  // Moves to the next pixels.
  void advance(size_t pixels) {
    out += pixels * out_bytes;
    for (unsigned k = 0; k < addends; ++k) {
      addend[k].codes += pixels * addend[k].pixel_bytes;
    }
  }

  // The epilogue of one block alone, of up to 16 channels.
  Epilogue block(unsigned number) const;
};

// Turns sums into codes, for up to 16 channels of some pixels.
using RequantizeKernel = void (*)(const Epilogue& epilogue,
                                  const int32_t (*sums)[kBlock], unsigned pixels);

// Neighbouring pixels of a convolution, for blocks of 16 output channels. A run is a
// number of inputs without gaps, in groups of four: with dilation 1 all taps of a row
// are one run.
struct ConvRow {
  unsigned taps_y;
  unsigned runs;         // of each row
  size_t run_groups;     // in a run
  size_t run_bytes;      // from a run to the next
  size_t pixel_bytes;    // of the input, from an output pixel to the next
  bool wide;             // whether the input's codes are wide
  uint32_t peak;         // their largest magnitude
  const uint8_t** rows;  // the first input of each tap row; kernels may advance them
  size_t pixels;
  // For each block: [tap y][run][group][16 outputs][4 inputs].
  const int8_t* weights;
  size_t block_bytes;
  const int32_t* start;
  // Accumulation spans: how many groups a 16-bit sum can take, one span after the
  // other. NULL if it cannot take a single group, or `conv` reads none.
  const uint32_t* spans;
  size_t span_count;  // with one more at the end: kernels look one span ahead
  unsigned blocks;
  // From a block to the next, where `sums` takes the positions of a tile as blocks.
  size_t rows_step, sums_step, start_step;

  void advance(size_t count) const {
    for (unsigned y = 0; y < taps_y; ++y) rows[y] += count * pixel_bytes;
  }

  void next_block() {
    weights += block_bytes;
    start += start_step;
  }
};
using ConvKernel = void (*)(const ConvRow& row, Epilogue* epilogue);

// Computes sums only, of one block or, if it `takes_blocks`, of all: 16 for each pixel.
using SumsKernel = void (*)(const ConvRow& row, int32_t* sums);

// WINOGRAD: neighbouring tiles of 2x2 outputs, and the 4x4 inputs of each.
struct TileInputs {
  const uint8_t* rows[4];  // the first input of each row
  size_t pixel_bytes;
  size_t tiles;
  uint8_t* out;
  size_t position_bytes;  // from a position of the tiles to the next
  uint8_t shift, middle;  // added to each position; to the one that sums four codes
};
using InputTransformKernel = void (*)(const TileInputs& tiles);

// WINOGRAD: two rows of outputs of up to `kTile / 2` tiles, from their sums.
using OutputTransformKernel = void (*)(const int32_t* sums, size_t position,
                                       size_t tiles, int32_t (*out)[kTile][kBlock]);

// Neighbouring pixels of a depthwise convolution.
struct DepthwiseRow {
  unsigned taps_y, taps_x;
  size_t tap_bytes;    // from a tap to the next in its row
  size_t pixel_bytes;  // from an output pixel to the next
  bool wide;
  uint32_t peak;  // the largest code
  const uint8_t** rows;
  size_t pixels;
  const int8_t* weights;
  size_t weight_step;  // from a tap's weights to the next tap's
  const int32_t* start;
  unsigned blocks;
  uint32_t interval;  // taps after which 16-bit sums may overflow
  // Spans of rows whose sums, counted up from a `base`, fit 16 bits without a sign. 0
  // rows: not even one row's do.
  uint32_t span_rows;
  const int16_t* base;  // [block][span][16 channels]
  // What sums start with, and then without all of `base`.
  const int32_t* span_start;
  // For each 32 channels: [tap x][four taps y][32 channels][4 taps y]. Channels are in
  // the order in which dot products of four taps leave their sums: channel
  // 8 j + 4 i + k is at [i][j][k].
  const int8_t* interleaved;

  void advance(size_t count) const {
    for (unsigned y = 0; y < taps_y; ++y) rows[y] += count * pixel_bytes;
  }

  void next_block() {
    weights += kBlock;
    start += kBlock;
    if (span_rows == 0) return;
    base += (taps_y + span_rows - 1) / span_rows * kBlock;
    span_start += kBlock;
  }
};
using DepthwiseKernel = void (*)(const DepthwiseRow& row, Epilogue* epilogue);

// Turn stored codes of a row into those of a line buffer, which are shifted and have a
// zero; and back.
using WidenKernel = void (*)(const uint8_t* widen, size_t channels, size_t pixels,
                             uint8_t zero, const uint8_t* stored, uint8_t* line,
                             size_t pixel_bytes);
using NarrowKernel = void (*)(const int16_t* narrow, size_t channels, size_t pixels,
                              uint8_t zero, const uint8_t* line, size_t pixel_bytes,
                              uint8_t* stored);

// A row of an input. A value counts as `value * factor + summand`, unless there are
// none (NULL).
struct InputRow {
  const void* values;
  bool bytes;  // instead of floats
  const float *factors, *summands;
  size_t count;
};

// Returns the bits of the largest magnitude of a row.
using MeasureKernel = int32_t (*)(const InputRow& row);
// Turns a row into codes within a limit.
using QuantizeKernel = void (*)(const InputRow& row, float inverse_scale, float limit,
                                int16_t* codes);

// BILINEAR: a pixel between four others. Their codes are weighted, added, rounded and
// shifted.
struct Blend {
  int32_t weight[4];  // of above left, above right, below left, below right
  int32_t half;       // for rounding
  int32_t shift;
  bool narrow;  // whether results are codes and all sums fit 15 bits
  bool wide;    // whether results are wide
};
using BlendKernel = void (*)(const Blend& blend, const uint8_t* const* corners,
                             size_t channels, uint8_t* out);

struct RuntimeKernels {
  DqaIsa isa;
  unsigned conv_blocks;  // that `conv` computes at once
  ConvKernel conv;
  SumsKernel sums;
  InputTransformKernel transform_inputs;
  OutputTransformKernel transform_sums;
  uint8_t tile_shift;         // the zero of `sums`: 0 or 128, as its bytes are signed
  DepthwiseKernel depthwise;  // of up to 16 channels, or of more if it `takes_blocks`
  // Of any number of channels, from codes up to `interleaved_peak`, to codes, without
  // addends. NULL and 0 if it would be no faster.
  DepthwiseKernel depthwise_interleaved;
  uint32_t interleaved_peak;
  RequantizeKernel requantize;
  WidenKernel widen;
  NarrowKernel narrow;
  BlendKernel blend;
  MeasureKernel measure;
  QuantizeKernel quantize;
  // Whether `conv` and `depthwise` take up to `kBlocks` blocks, one after the other,
  // and `sums` all positions of tiles.
  bool takes_blocks = false;
  // What bytes above 127, and low halves of wide inputs, are taken less by in `conv`.
  uint8_t less = 0;
  // Whether `conv` reads `spans`.
  bool conv_wants_spans = false;
  // Whether `depthwise` reads `span_rows` and what belongs to it.
  bool wants_spans = false;
  // Whether they read `PlainCodes`.
  bool wants_plain = false;
};

// The kernels of an instruction set, or the fastest ones (DQA_AUTO). NULL if they are
// not compiled in or this machine cannot run them.
const RuntimeKernels* runtime_kernels(DqaIsa isa);

const RuntimeKernels& scalar_runtime_kernels();
const RuntimeKernels* avx2_runtime_kernels();
const RuntimeKernels* avx_vnni_runtime_kernels();
const RuntimeKernels* avx512_runtime_kernels();
const RuntimeKernels* neon_runtime_kernels();
const RuntimeKernels* neon_dot_runtime_kernels();
const RuntimeKernels* neon_i8mm_runtime_kernels();

}  // namespace dqa

#endif  // DQA_RUNTIME_KERNELS_KERNELS_H_
