// Reading float inputs as codes scaled by the largest magnitude.
#include <cstring>

#include "../src/errors.h"
#include "ops.h"

namespace dqa {
namespace {

// A row of an input, scaled and shifted as the op says: itself, or a copy in `room`.
const float* affine_row(const Run& run, const Op& op, uint32_t y,
                        std::vector<float>* room) {
  const Buffer& in = run.input(op);
  const size_t values = size_t{in.width} * in.channels;
  const void* const whole = run.inputs[run.buffer(op.output).slot];
  const float* x = static_cast<const float*>(whole) + y * values;
  const bool bytes = in.type == Type::kCodes;
  const bool plain = op.weights == kNone && op.multiplier == kNone;
  if (plain && !bytes) return x;
  if (bytes) {
    const uint8_t* const codes = static_cast<const uint8_t*>(whole) + y * values;
    for (size_t i = 0; i < values; ++i) (*room)[i] = codes[i];
    x = room->data();
    if (plain) return x;
  }
  float* out = room->data();
  for (size_t p = 0; p < in.width; ++p, out += in.channels) {
    const float* const pixel = x + p * in.channels;
    for (size_t c = 0; c < in.channels; ++c) {
      out[c] =
          op.weights == kNone ? pixel[c] : pixel[c] * run.plan.floats(op.weights)[c];
      if (op.multiplier != kNone) out[c] += run.plan.floats(op.multiplier)[c];
    }
  }
  return room->data();
}

}  // namespace

// Magnitudes are ordered like the bits of their numbers; NaN and infinity come last.
int32_t measure(Run& run, const Op& op, unsigned part, unsigned parts) {
  const Buffer& in = run.input(op);
  const auto edge = [&](uint64_t n) {
    return static_cast<uint32_t>(in.height * n / parts);
  };
  int32_t most = 0;
  for (uint32_t y = edge(part); y < edge(part + 1); ++y) {
    const float* const x = affine_row(run, op, y, &run.room);
    for (size_t i = 0; i < size_t{in.width} * in.channels; ++i) {
      int32_t bits;
      std::memcpy(&bits, x + i, sizeof bits);
      bits &= 0x7fffffff;
      most = bits > most ? bits : most;
    }
  }
  return most;
}

DqaStatus set_slot(Run& run, const Op& op, int32_t most) {
  float largest;
  std::memcpy(&largest, &most, sizeof largest);
  if (!(largest <= 3.0e38f)) {
    return fail(&run.error, DQA_BAD_ARGUMENT,
                "inputs must be finite. Received: input %u holds NaN, infinity "
                "or more than 3e38",
                run.buffer(op.output).slot);
  }
  if (largest < 1.0e-30f) largest = 1.0f;
  const auto limit = static_cast<float>(op.shift);
  Slot& slot = run.slots[run.buffer(op.output).slot];
  slot.scale = largest / limit;
  slot.inverse = limit / largest;
  return DQA_OK;
}

// Scales the arrays of an op by the steps of its inputs.
void scale_arrays(const Run& run, const Op& op) {
  if (op.scratch == kNone) return;
  const size_t count = blocks_of(run.buffer(op.output)) * kBlock;
  size_t array = 0;
  const auto scaled = [&](uint32_t offset, uint32_t slot) {
    const float by = slot == kNone ? 1.0f : run.slots[slot].scale;
    float* const out = run.scratch(op, array++, count);
    const float* const in = run.plan.floats(offset);
    for (size_t c = 0; c < count; ++c) out[c] = in[c] * by;
  };
  if (op.code != Code::kCombine) scaled(op.multiplier, run.input(op).slot);
  for (size_t k = 0; k < op.link_count; ++k) {
    if (run.link(op, k).addend) {
      scaled(run.link(op, k).value, run.buffer(run.link(op, k).buffer).slot);
    }
  }
}

void read(Run& run, const Op& op, uint32_t y) {
  const Buffer& out = run.buffer(op.output);
  const float inverse = run.slots[out.slot].inverse;
  const auto limit = static_cast<float>(op.shift);
  const float* x = affine_row(run, op, y, &run.room);
  uint8_t* to = run.row(out, y);
  for (size_t p = 0; p < out.width; ++p) {
    for (size_t c = 0; c < out.channels; ++c) {
      float v = x[c] * inverse;
      v = v > -limit ? v : -limit;
      v = v < limit ? v : limit;
      // Rounds half to even: the sum has no bits left for a fraction.
      v += 12582912.0f;
      int32_t bits;
      std::memcpy(&bits, &v, sizeof bits);
      const auto code = static_cast<int16_t>(bits);
      std::memcpy(to + 2 * c, &code, sizeof code);
    }
    x += out.channels;
    to += out.pixel_bytes();
  }
}

}  // namespace dqa
