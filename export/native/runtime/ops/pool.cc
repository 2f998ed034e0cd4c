// Averages and maxima of windows.
#include <algorithm>
#include <cstring>

#include "runtime/ops/ops.h"

namespace dqa {
namespace {

// The taps first..end of a window, along one axis, that lie inside the input.
struct Taps {
  int64_t first, end;
};

Taps taps_inside(int64_t at, int taps, int64_t size) {
  return {at < 0 ? 0 : at, at + taps > size ? size : at + taps};
}

int32_t code(const Buffer& b, const uint8_t* pixel, size_t c) {
  if (b.type == Type::kCodes) return pixel[c];
  int16_t value;
  std::memcpy(&value, pixel + 2 * c, sizeof value);
  return value;
}

// Adds the codes of up to 16 channels.
template <bool kWide>
void add_codes(const uint8_t* pixel, size_t channels, int32_t* sums) {
  for (size_t c = 0; c < channels; ++c) {
    int16_t wide = 0;
    if (kWide) std::memcpy(&wide, pixel + 2 * c, sizeof wide);
    sums[c] += kWide ? wide : pixel[c];
  }
}

// Adds the codes of 16 channels of some pixels, in numbers that nothing else can reach:
// compilers then keep them in registers.
void add_pixels(const uint8_t* pixel, size_t pixel_bytes, size_t pixels,
                int32_t* sums) {
  int32_t own[kBlock];
  std::copy(sums, sums + kBlock, own);
  for (; pixels > 0; --pixels, pixel += pixel_bytes) {
    for (size_t c = 0; c < kBlock; ++c) own[c] += pixel[c];
  }
  std::copy(own, own + kBlock, sums);
}

// The largest codes of the windows of output row y.
void max_pool_row(const Run& run, const Op& op, uint32_t y) {
  const Buffer &in = run.input(op), &out = run.buffer(op.output);
  const Taps ys = taps_inside(int64_t{y} * op.stride_y - op.top, op.taps_y, in.height);
  uint8_t* to = run.row(out, y);
  const size_t bytes = in.pixel_bytes();
  for (size_t x = 0; x < out.width; ++x, to += bytes) {
    const Taps xs = taps_inside(static_cast<int64_t>(x) * op.stride_x - op.left,
                                op.taps_x, in.width);
    bool first = true;
    for (int64_t i = ys.first; i < ys.end; ++i) {
      const uint8_t* pixel =
          run.row(in, static_cast<uint32_t>(i)) + static_cast<size_t>(xs.first) * bytes;
      for (int64_t j = xs.first; j < xs.end; ++j, pixel += bytes, first = false) {
        if (first) {
          std::memmove(to, pixel, bytes);
        } else if (in.type == Type::kCodes) {
          for (size_t c = 0; c < bytes; ++c) {
            to[c] = to[c] > pixel[c] ? to[c] : pixel[c];
          }
        } else {
          for (size_t c = 0; c < in.channels; ++c) {
            if (code(in, pixel, c) > code(out, to, c)) {
              std::memmove(to + 2 * c, pixel + 2 * c, 2);
            }
          }
        }
      }
    }
  }
}

}  // namespace

DqaStatus average(Run& run, size_t index, Rows todo) {
  const Op& op = run.plan.ops[index];
  const Buffer &in = run.input(op), &out = run.buffer(op.output);
  const Piece piece = run.piece(todo, blocks_of(out), 1);
  const bool wide = in.type == Type::kWide;
  for (uint32_t y = piece.rows.first; y < piece.rows.end; ++y) {
    const Taps ys =
        taps_inside(int64_t{y} * op.stride_y - op.top, op.taps_y, in.height);
    for (size_t b = piece.first_block; b < piece.end_block; ++b) {
      Epilogue e = epilogue(run, op, y, b, 1);
      e.averages = true;
      for (size_t x = 0; x < out.width; ++x) {
        const Taps xs = taps_inside(static_cast<int64_t>(x) * op.stride_x - op.left,
                                    op.taps_x, in.width);
        const auto taps =
            static_cast<int32_t>((ys.end - ys.first) * (xs.end - xs.first));
        int32_t sums[1][kBlock];
        std::fill(sums[0], sums[0] + kBlock, wide ? 0 : -taps * in.zero);
        for (int64_t i = ys.first; i < ys.end; ++i) {
          const uint8_t* const from =
              run.row(in, static_cast<uint32_t>(i)) + b * kBlock * in.element_bytes();
          const uint8_t* pixel =
              from + static_cast<size_t>(xs.first) * in.pixel_bytes();
          if (!wide && e.channels == kBlock) {
            add_pixels(pixel, in.pixel_bytes(), static_cast<size_t>(xs.end - xs.first),
                       sums[0]);
            continue;
          }
          for (int64_t j = xs.first; j < xs.end; ++j, pixel += in.pixel_bytes()) {
            (wide ? add_codes<true> : add_codes<false>)(pixel, e.channels, sums[0]);
          }
        }
        e.share = 1.0f / static_cast<float>(taps);
        run.kernels.requantize(e, sums, 1);
        e.advance(1);
      }
    }
  }
  return DQA_OK;
}

DqaStatus max_pool(Run& run, size_t index, Rows rows) {
  return run.each_row(rows, [&](uint32_t y) {
    max_pool_row(run, run.plan.ops[index], y);
    return DQA_OK;
  });
}

}  // namespace dqa
