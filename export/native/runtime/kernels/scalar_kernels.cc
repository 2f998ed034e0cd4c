// The plain path: what every other one must reproduce.
#include <cstring>

#include "runtime/kernels/input_rows.h"
#include "runtime/kernels/kernels.h"
#include "runtime/kernels/tiles.h"
#include "runtime/kernels/winograd_rows.h"

namespace dqa {
namespace {

template <bool kWide>
int32_t input(const uint8_t* at, size_t index) {
  if (!kWide) return at[index];
  int16_t value;
  std::memcpy(&value, at + 2 * index, sizeof value);
  return value;
}

// Sums wrap around, as in the vector paths; plans keep them in range.
int32_t add(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}

template <bool kWide>
void conv_pixel(const ConvRow& row, int32_t (*sums)[kBlock]) {
  std::memcpy(sums[0], row.start, sizeof sums[0]);
  const int8_t* weights = row.weights;
  for (unsigned y = 0; y < row.taps_y; ++y) {
    for (unsigned run = 0; run < row.runs; ++run) {
      const uint8_t* const at = row.rows[y] + run * row.run_bytes;
      for (size_t g = 0; g < row.run_groups; ++g, weights += kBlock * kGroup) {
        for (size_t o = 0; o < kBlock; ++o) {
          for (size_t i = 0; i < kGroup; ++i) {
            sums[0][o] = add(
                sums[0][o], input<kWide>(at, g * kGroup + i) * weights[o * kGroup + i]);
          }
        }
      }
    }
  }
}

template <bool kWide>
void depthwise_pixel(const DepthwiseRow& row, int32_t (*sums)[kBlock],
                     size_t channels) {
  std::memcpy(sums[0], row.start, sizeof sums[0]);
  const int8_t* w = row.weights;
  for (unsigned y = 0; y < row.taps_y; ++y) {
    for (unsigned x = 0; x < row.taps_x; ++x, w += row.weight_step) {
      const uint8_t* const at = row.rows[y] + x * row.tap_bytes;
      for (size_t c = 0; c < channels; ++c) {
        sums[0][c] = add(sums[0][c], input<kWide>(at, c) * w[c]);
      }
    }
  }
}

// Rounds half to even: adding 1.5 * 2^23 leaves no bits for a fraction. What is no
// number becomes the lowest code.
int32_t rounded(float v) {
  v = v > -32768.0f ? v : -32768.0f;
  v = v < 32767.0f ? v : 32767.0f;
  const float shifted = v + 12582912.0f;
  int32_t pattern;
  std::memcpy(&pattern, &shifted, sizeof pattern);
  return pattern - 0x4b400000;
}

void requantize(const Epilogue& e, const int32_t (*sums)[kBlock], unsigned pixels) {
  for (unsigned p = 0; p < pixels; ++p) {
    uint8_t* const out = e.out + p * e.out_bytes;
    for (size_t c = 0; c < e.channels; ++c) {
      float v = e.bias[c];
      if (e.multiplier != nullptr) {
        float sum = static_cast<float>(sums[p][c]);
        if (e.averages) sum *= e.share;
        v = sum * e.multiplier[c] + v;
      }
      for (unsigned k = 0; k < e.addends; ++k) {
        const Addend& a = e.addend[k];
        const uint8_t* const at = a.codes + p * a.pixel_bytes;
        const int32_t code = a.wide ? input<true>(at, c) : input<false>(at, c);
        v += static_cast<float>(code - a.zero) * a.scale[c];
      }
      v = v > e.low[c] ? v : e.low[c];
      v = v < e.high[c] ? v : e.high[c];
      if (e.type == Type::kFloat) {
        std::memcpy(out + c * sizeof v, &v, sizeof v);
        continue;
      }
      const int32_t code = rounded(v);
      if (e.type == Type::kWide) {
        const auto wide = static_cast<int16_t>(code);
        std::memcpy(out + c * sizeof wide, &wide, sizeof wide);
      } else {
        const int32_t shifted = rounded(static_cast<float>(code) * e.power[c]);
        out[c] = static_cast<uint8_t>(shifted + e.zero);
      }
    }
  }
}

void widen(const uint8_t* factors, size_t channels, size_t pixels, uint8_t zero,
           const uint8_t* stored, uint8_t* line, size_t pixel_bytes) {
  for (size_t p = 0; p < pixels; ++p) {
    for (size_t c = 0; c < channels; ++c) {
      line[c] = static_cast<uint8_t>(stored[c] * factors[c] + zero);
    }
    stored += channels;
    line += pixel_bytes;
  }
}

void narrow(const int16_t* factors, size_t channels, size_t pixels, uint8_t zero,
            const uint8_t* line, size_t pixel_bytes, uint8_t* stored) {
  for (size_t p = 0; p < pixels; ++p) {
    for (size_t c = 0; c < channels; ++c) {
      const int code = static_cast<int16_t>(line[c]) - static_cast<int16_t>(zero);
      stored[c] = static_cast<uint8_t>(static_cast<int16_t>(code * factors[c]) >> 8);
    }
    stored += channels;
    line += pixel_bytes;
  }
}

void blend(const Blend& b, const uint8_t* const* corners, size_t channels,
           uint8_t* out) {
  for (size_t c = 0; c < channels; ++c) {
    int32_t sum = b.half;
    for (unsigned i = 0; i < 4; ++i) sum += corners[i][c] * b.weight[i];
    sum >>= b.shift;
    if (b.wide) {
      const auto code = static_cast<int16_t>(sum);
      std::memcpy(out + 2 * c, &code, sizeof code);
    } else {
      out[c] = static_cast<uint8_t>(sum);
    }
  }
}

void conv(const ConvRow& row, Epilogue* epilogue) {
  const TileKernel<ConvRow> kernel = row.wide ? conv_pixel<true> : conv_pixel<false>;
  run_tiles(row, &kernel, 1, requantize, epilogue);
}

void sums(const ConvRow& row, int32_t* out) {
  const TileKernel<ConvRow> kernel = conv_pixel<false>;
  sum_tiles(row, &kernel, 1, out);
}

void transform_inputs(const TileInputs& tiles) { transform_tile_inputs(tiles); }

void transform_sums(const int32_t* sums, size_t position, size_t tiles,
                    int32_t (*out)[kTile][kBlock]) {
  transform_tile_sums(sums, position, tiles, out);
}

void depthwise(const DepthwiseRow& row, Epilogue* epilogue) {
  for (size_t p = 0; p < row.pixels; ++p) {
    int32_t sums[1][kBlock];
    (row.wide ? depthwise_pixel<true> : depthwise_pixel<false>)(row, sums,
                                                                epilogue->channels);
    requantize(*epilogue, sums, 1);
    epilogue->advance(1);
    row.advance(1);
  }
}

int32_t measure(const InputRow& row) { return measure_row(row); }

void quantize(const InputRow& row, float inverse_scale, float limit, int16_t* codes) {
  quantize_row(row, inverse_scale, limit, codes);
}

}  // namespace

const RuntimeKernels& scalar_runtime_kernels() {
  static constexpr RuntimeKernels kKernels = {
      DQA_SCALAR, 1,         conv,    sums,    transform_inputs, transform_sums,
      128,        depthwise, nullptr, 0,       requantize,       widen,
      narrow,     blend,     measure, quantize};
  return kKernels;
}

}  // namespace dqa
