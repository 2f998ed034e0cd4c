// Which arrays and rows the end of an op reads and writes.
#include <algorithm>

#include "runtime/ops/ops.h"

namespace dqa {
Epilogue epilogue(const Run& run, const Op& op, uint32_t y, size_t block,
                  unsigned blocks) {
  const Buffer& out = run.buffer(op.output);
  const size_t first = block * kBlock, count = blocks_of(out) * kBlock;
  Epilogue e = {};
  size_t array = 0;
  const auto values = [&](uint32_t offset) {
    const float* const base =
        op.scratch == kNone ? run.plan.floats(offset) : run.scratch(op, array++, count);
    return base + first;
  };
  if (has_operands(op.code)) e.multiplier = values(op.multiplier);
  e.bias = run.plan.floats(op.bias) + first;
  e.low = run.plan.floats(op.low) + first;
  e.high = run.plan.floats(op.high) + first;
  e.type = out.type;
  e.zero = out.zero;
  if (out.type == Type::kCodes) e.power = run.plan.floats(op.power) + first;
  const auto& plain =
      run.prepared[static_cast<size_t>(&op - run.plan.ops.data())].plain;
  if (!plain.empty()) e.plain = plain.data() + block;
  for (size_t k = 0; k < op.link_count; ++k) {
    if (!run.plan.link(op, k).addend) continue;
    const Buffer& b = run.buffer(run.plan.link(op, k).buffer);
    Addend& addend = e.addend[e.addends++];
    addend.codes = run.row(b, y) + first * b.element_bytes();
    addend.scale = values(run.plan.link(op, k).value);
    addend.pixel_bytes = b.pixel_bytes();
    addend.wide = b.type == Type::kWide;
    addend.zero = addend.wide ? 0 : b.zero;
  }
  if (is_line_buffer(out)) {
    e.out = run.row(out, y) + first * out.element_bytes();
    e.out_bytes = out.pixel_bytes();
  } else {
    e.out_bytes = out.channels * out.element_bytes();
    auto* const whole =
        static_cast<uint8_t*>(run.outputs[run.output_number(op.output)]);
    e.out =
        whole + (size_t{y} * out.width * out.channels + first) * out.element_bytes();
  }
  e.channels = std::min<size_t>(out.channels - first, blocks * kBlock);
  return e;
}

Epilogue Epilogue::block(unsigned number) const {
  Epilogue e = *this;
  const size_t first = number * kBlock;
  e.channels = std::min(channels - first, kBlock);
  for (const float** array : {&e.multiplier, &e.bias, &e.low, &e.high, &e.power}) {
    if (*array != nullptr) *array += first;
  }
  if (plain != nullptr) e.plain += number;
  const size_t bytes = type == Type::kFloat ? 4 : type == Type::kWide ? 2 : 1;
  e.out += first * bytes;
  for (unsigned k = 0; k < addends; ++k) {
    e.addend[k].codes += first * (addend[k].wide ? 2 : 1);
    e.addend[k].scale += first;
  }
  return e;
}

}  // namespace dqa
