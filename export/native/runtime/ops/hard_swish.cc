// HARD_SWISH: x * clip(x + 3, 0, 6), in whole numbers.
#include <algorithm>
#include <cstring>

#include "runtime/kernels/tiles.h"
#include "runtime/ops/ops.h"
#include "runtime/plan/check.h"

namespace dqa {
namespace {

// Integers of up to 16 channels of a pixel: `three` is the code of 3. They fit 32 bits,
// as no code is larger than 32767 and neither is `three`.
void products(const uint8_t* pixel, size_t channels, int32_t three, int32_t* out) {
  for (size_t c = 0; c < channels; ++c) {
    int16_t code;
    std::memcpy(&code, pixel + sizeof code * c, sizeof code);
    out[c] = code * std::clamp(code + three, 0, 2 * three);
  }
}

}  // namespace

const char* hard_swish_rule(const Plan&, const Op& op, const Buffer& in,
                            const Buffer& out) {
  if (!is_line_buffer(in) || in.type != Type::kWide || in.slot != kNone ||
      in.height != out.height || in.width != out.width || in.channels != out.channels ||
      op.shift < 1 || op.shift > 32767) {
    return "a hard swish is of wide codes, and keeps their size";
  }
  return nullptr;
}

DqaStatus hard_swish(Run& run, size_t index, Rows todo) {
  const Op& op = run.plan.ops[index];
  const Buffer &in = run.input(op), &out = run.buffer(op.output);
  const Piece piece = run.piece(todo, blocks_of(out), 1);
  const auto three = static_cast<int32_t>(op.shift);
  for (uint32_t y = piece.rows.first; y < piece.rows.end; ++y) {
    for (size_t b = piece.first_block; b < piece.end_block; ++b) {
      Epilogue e = epilogue(run, op, y, b, 1);
      const uint8_t* pixel = run.row(in, y) + b * kBlock * in.element_bytes();
      for (size_t left = out.width; left > 0;) {
        const unsigned pixels = next_tile(left, kTile);
        alignas(64) int32_t sums[kTile][kBlock] = {};
        for (unsigned p = 0; p < pixels; ++p, pixel += in.pixel_bytes()) {
          products(pixel, e.channels, three, sums[p]);
        }
        run.kernels.requantize(e, sums, pixels);
        e.advance(pixels);
        left -= pixels;
      }
    }
  }
  return DQA_OK;
}

}  // namespace dqa
