// Element-wise ops of wide codes, a pixel's block of channels at a time.
#ifndef DQA_RUNTIME_OPS_WIDE_CODES_H_
#define DQA_RUNTIME_OPS_WIDE_CODES_H_

#include <cstring>

#include "runtime/kernels/tiles.h"
#include "runtime/ops/ops.h"

namespace dqa {

// Whether an op has one operand of wide codes with a fixed step, and keeps its size.
inline bool keeps_wide_codes(const Buffer& in, const Buffer& out) {
  return is_line_buffer(in) && in.type == Type::kWide && in.slot == kNone &&
         in.height == out.height && in.width == out.width &&
         in.channels == out.channels;
}

// Computes this thread's piece of some rows: `function` turns a code into an integer.
template <class Function>
DqaStatus map_wide_codes(Run& run, size_t index, Rows todo, Function function) {
  const Op& op = run.plan.ops[index];
  const Buffer &in = run.input(op), &out = run.buffer(op.output);
  const Piece piece = run.piece(todo, blocks_of(out), 1);
  for (uint32_t y = piece.rows.first; y < piece.rows.end; ++y) {
    for (size_t b = piece.first_block; b < piece.end_block; ++b) {
      Epilogue e = epilogue(run, op, y, b, 1);
      const uint8_t* pixel = run.row(in, y) + b * kBlock * in.element_bytes();
      for (size_t left = out.width; left > 0;) {
        const unsigned pixels = next_tile(left, kTile);
        alignas(64) int32_t sums[kTile][kBlock] = {};
        for (unsigned p = 0; p < pixels; ++p, pixel += in.pixel_bytes()) {
          for (size_t c = 0; c < e.channels; ++c) {
            int16_t code;
            std::memcpy(&code, pixel + sizeof code * c, sizeof code);
            sums[p][c] = function(code);
          }
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

#endif  // DQA_RUNTIME_OPS_WIDE_CODES_H_
