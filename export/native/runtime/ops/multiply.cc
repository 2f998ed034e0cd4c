// MULTIPLY: products of two tensors, the second of which may have a single pixel.
#include <cstring>

#include "runtime/kernels/tiles.h"
#include "runtime/ops/ops.h"
#include "runtime/plan/check.h"

namespace dqa {
namespace {

// Codes of up to 16 channels of some pixels, less the code of 0. Neither those of bytes
// nor wide ones are beyond 2^15: their products fit 32 bits.
void read_values(const Buffer& b, const uint8_t* pixel, size_t step, size_t channels,
                 unsigned pixels, int32_t (*out)[kBlock]) {
  for (unsigned p = 0; p < pixels; ++p, pixel += step) {
    for (size_t c = 0; c < channels; ++c) {
      if (b.type == Type::kCodes) {
        out[p][c] = pixel[c] - static_cast<int32_t>(b.zero);
      } else {
        int16_t code;
        std::memcpy(&code, pixel + sizeof code * c, sizeof code);
        out[p][c] = code;
      }
    }
  }
}

bool is_factor(const Buffer& b) {
  return is_line_buffer(b) && b.slot == kNone &&
         (b.type == Type::kWide || b.type == Type::kCodes);
}

}  // namespace

const char* multiply_rule(const Plan& plan, const Op& op, const Buffer& in,
                          const Buffer& out) {
  const Buffer& second = plan.buffers[plan.link(op, 1).buffer];
  const bool single = second.height == 1 && second.width == 1;
  if (!is_factor(in) || !is_factor(second) || in.height != out.height ||
      in.width != out.width || in.channels != out.channels ||
      second.channels != out.channels ||
      (!single && (second.height != out.height || second.width != out.width))) {
    return "factors have one size, or the second a single pixel";
  }
  return nullptr;
}

DqaStatus multiply(Run& run, size_t index, Rows todo) {
  const Op& op = run.plan.ops[index];
  const Buffer &in = run.input(op), &out = run.buffer(op.output);
  const Buffer& second = run.buffer(run.plan.link(op, 1).buffer);
  const size_t second_step = second.width == 1 ? 0 : second.pixel_bytes();
  const Piece piece = run.piece(todo, blocks_of(out), 1);
  for (uint32_t y = piece.rows.first; y < piece.rows.end; ++y) {
    for (size_t b = piece.first_block; b < piece.end_block; ++b) {
      Epilogue e = epilogue(run, op, y, b, 1);
      const uint8_t* pixel = run.row(in, y) + b * kBlock * in.element_bytes();
      const uint8_t* factor = run.row(second, second.height == 1 ? 0 : y) +
                              b * kBlock * second.element_bytes();
      for (size_t left = out.width; left > 0;) {
        const unsigned pixels = next_tile(left, kTile);
        alignas(64) int32_t sums[kTile][kBlock] = {}, factors[kTile][kBlock] = {};
        read_values(in, pixel, in.pixel_bytes(), e.channels, pixels, sums);
        read_values(second, factor, second_step, e.channels, pixels, factors);
        for (unsigned p = 0; p < pixels; ++p) {
          for (size_t c = 0; c < kBlock; ++c) sums[p][c] *= factors[p][c];
        }
        run.kernels.requantize(e, sums, pixels);
        e.advance(pixels);
        pixel += pixels * in.pixel_bytes();
        factor += pixels * second_step;
        left -= pixels;
      }
    }
  }
  return DQA_OK;
}

}  // namespace dqa
