// Reading float inputs as codes scaled by the largest magnitude.
#include <algorithm>
#include <cstring>

#include "codec/errors.h"
#include "runtime/ops/ops.h"

namespace dqa {
namespace {

InputRow input_row(const Run& run, size_t index, uint32_t y) {
  const Op& op = run.plan.ops[index];
  const Buffer& in = run.input(op);
  const Prepared& prepared = run.prepared[index];
  const size_t count = size_t{in.width} * in.channels;
  const bool affine = !prepared.factors.empty(), bytes = in.type == Type::kCodes;
  const auto* const values =
      static_cast<const uint8_t*>(run.inputs[run.buffer(op.output).slot]);
  return {values + count * y * (bytes ? 1 : sizeof(float)), bytes,
          affine ? prepared.factors.data() : nullptr,
          affine ? prepared.summands.data() : nullptr, count};
}

// Codes of three channels to pixels of four: 8 bytes at a time, one code too many,
// which is cleared.
void spread_three(const int16_t* codes, size_t pixels, uint8_t* to) {
  for (size_t p = 0; p < pixels; ++p, codes += 3, to += 8) {
    uint64_t pixel;
    std::memcpy(&pixel, codes, sizeof pixel);
    pixel &= 0xffffffffffff;
    std::memcpy(to, &pixel, sizeof pixel);
  }
}

}  // namespace

int32_t measure(Run& run, size_t index, unsigned part, unsigned parts) {
  const uint32_t height = run.input(run.plan.ops[index]).height;
  const auto edge = [&](uint64_t n) {
    return static_cast<uint32_t>(height * n / parts);
  };
  int32_t largest = 0;
  for (uint32_t y = edge(part); y < edge(part + 1); ++y) {
    largest = std::max(largest, run.kernels.measure(input_row(run, index, y)));
  }
  return largest;
}

DqaStatus set_slot(Run& run, const Op& op, int32_t bits) {
  float largest;
  std::memcpy(&largest, &bits, sizeof largest);
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
  if (has_operands(op.code)) scaled(op.multiplier, run.input(op).slot);
  for (size_t k = 0; k < op.link_count; ++k) {
    if (run.plan.link(op, k).addend) {
      scaled(run.plan.link(op, k).value, run.buffer(run.plan.link(op, k).buffer).slot);
    }
  }
}

DqaStatus quantize_input(Run& run, size_t index, Rows rows) {
  const Op& op = run.plan.ops[index];
  const Buffer& out = run.buffer(op.output);
  int16_t* const codes = run.room.data();
  const size_t bytes = out.channels * out.element_bytes();
  return run.each_row(rows, [&](uint32_t y) {
    run.kernels.quantize(input_row(run, index, y), run.slots[out.slot].inverse,
                         static_cast<float>(op.shift), codes);
    if (out.channels == 3) {
      spread_three(codes, out.width, run.row(out, y));
    } else {
      copy_pixels(reinterpret_cast<const uint8_t*>(codes), bytes, run.row(out, y),
                  out.pixel_bytes(), bytes, out.width);
    }
    return DQA_OK;
  });
}

}  // namespace dqa
