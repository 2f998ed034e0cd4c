// Executing a plan, strip by strip.
#include "dqa/runtime.h"

#include <chrono>
#include <cstring>
#include <new>

#include "../src/errors.h"
#include "kernels.h"
#include "plan.h"

namespace {

using dqa::Buffer;
using dqa::Code;
using dqa::kBlock;
using dqa::kGroup;
using dqa::kNone;
using dqa::kTile;
using dqa::Link;
using dqa::Op;
using dqa::Rows;
using dqa::Type;

// What is worked out once for a convolution, for each block of 16 channels.
struct Prepared {
  std::vector<int32_t> start;      // what `zero` adds to the sums, taken off
  std::vector<uint32_t> interval;  // groups that fit 16-bit sums; 0: none
};

// The magnitude of an input, as one step of its wide codes.
struct Slot {
  float scale = 0, inverse = 0;
};

size_t blocks_of(const Buffer& b) { return (b.channels + kBlock - 1) / kBlock; }

}  // namespace

struct DqaRuntime {
  dqa::Plan plan;
  const dqa::RuntimeKernels* kernels = nullptr;
  std::vector<Prepared> prepared;  // by op
  DqaObserver observer = nullptr;
  void* observer_user = nullptr;
  double* seconds = nullptr;
};

namespace {

// The most steps of a sequence whose sums stay within int16, wherever they begin.
// `step(i, up, down)` adds the largest sum and the smallest that step i can give.
template <class Step>
uint32_t longest_run(size_t count, Step step) {
  int64_t up = 0, down = 0;
  size_t begin = 0;
  size_t longest = count;
  for (size_t end = 0; end < count; ++end) {
    const auto grown = step(end);
    up += grown.first;
    down += grown.second;
    while (up > 32767 || down < -32768) {
      if (end - begin < longest) longest = end - begin;
      if (begin > end || longest == 0) return 0;
      const auto gone = step(begin++);
      up -= gone.first;
      down -= gone.second;
    }
  }
  return static_cast<uint32_t>(longest);
}

using Reach = std::pair<int64_t, int64_t>;

Reach reach(int weight, int64_t peak) {
  return weight > 0 ? Reach{weight * peak, 0} : Reach{0, weight * peak};
}

Prepared prepare_conv(const dqa::Plan& plan, const Op& op) {
  const Buffer& in = plan.buffers[plan.links[op.first_link].buffer];
  const Buffer& out = plan.buffers[op.output];
  const size_t groups = (in.channels + kGroup - 1) / kGroup;
  const size_t count = size_t{op.taps_y} * op.taps_x * groups;
  const size_t blocks = blocks_of(out);
  Prepared made;
  made.start.resize(blocks * kBlock);
  made.interval.resize(blocks);
  for (size_t b = 0; b < blocks; ++b) {
    const int8_t* const weights =
        reinterpret_cast<const int8_t*>(plan.constants + op.weights) +
        b * count * kBlock * kGroup;
    uint32_t interval = static_cast<uint32_t>(count);
    for (size_t o = 0; o < kBlock; ++o) {
      int32_t sum = 0;
      for (size_t g = 0; g < count; ++g) {
        for (size_t i = 0; i < kGroup; ++i) {
          sum += weights[(g * kBlock + o) * kGroup + i];
        }
      }
      made.start[b * kBlock + o] = -sum * in.zero;
      for (size_t pair = 0; pair < kGroup && in.type == Type::kCodes; pair += 2) {
        const uint32_t fits = longest_run(count, [&](size_t g) {
          const int8_t* const w = weights + (g * kBlock + o) * kGroup + pair;
          const Reach first = reach(w[0], in.peak), second = reach(w[1], in.peak);
          return Reach{first.first + second.first, first.second + second.second};
        });
        if (fits < interval) interval = fits;
      }
    }
    made.interval[b] = interval;
  }
  return made;
}

Prepared prepare_depthwise(const dqa::Plan& plan, const Op& op) {
  const Buffer& in = plan.buffers[plan.links[op.first_link].buffer];
  const size_t taps = size_t{op.taps_y} * op.taps_x;
  const size_t padded = blocks_of(in) * kBlock;
  const int8_t* const weights =
      reinterpret_cast<const int8_t*>(plan.constants + op.weights);
  Prepared made;
  made.start.resize(padded);
  made.interval.assign(1, static_cast<uint32_t>(taps));
  for (size_t c = 0; c < padded; ++c) {
    int32_t sum = 0;
    for (size_t t = 0; t < taps; ++t) sum += weights[t * padded + c];
    made.start[c] = -sum * in.zero;
    const uint32_t fits = longest_run(
        taps, [&](size_t t) { return reach(weights[t * padded + c], in.peak); });
    if (fits < made.interval[0]) made.interval[0] = fits;
  }
  return made;
}

// One run of a plan.
class Run {
 public:
  Run(const DqaRuntime& runtime, const void* const* inputs, float* const* outputs,
      uint8_t* arena, DqaError* error)
      : runtime_(runtime),
        plan_(runtime.plan),
        kernels_(*runtime.kernels),
        inputs_(inputs),
        outputs_(outputs),
        arena_(arena),
        error_(error),
        rows_(2 * runtime.plan.buffers.size()),
        slots_(runtime.plan.inputs.size()) {}

  DqaStatus operator()() {
    for (const Op& op : plan_.ops) {
      if (op.code != Code::kRead) continue;
      if (const DqaStatus status = measure(op)) return status;
    }
    for (const Op& op : plan_.ops) scale_arrays(op);
    return dqa::walk(
        plan_, &rows_, [this](size_t stage) { return clear_rings(stage); },
        [this](size_t index, Rows todo) {
          if (runtime_.seconds == nullptr) return visit(index, todo);
          const auto start = std::chrono::steady_clock::now();
          const DqaStatus status = visit(index, todo);
          const std::chrono::duration<double> spent =
              std::chrono::steady_clock::now() - start;
          runtime_.seconds[static_cast<size_t>(plan_.ops[index].code)] += spent.count();
          return status;
        });
  }

 private:
  const Buffer& buffer(size_t index) const { return plan_.buffers[index]; }
  const Link& link(const Op& op, size_t k) const {
    return plan_.links[op.first_link + k];
  }
  const Buffer& input(const Op& op) const { return buffer(link(op, 0).buffer); }

  // First pixel of a row of a ring.
  uint8_t* row(const Buffer& b, uint32_t y) const {
    return arena_ + b.offset + (y % b.rows) * b.row_bytes() + b.left * b.pixel_bytes();
  }

  // The same, or the row of zeros where there is no such row.
  const uint8_t* row_or_zeros(const Buffer& b, int64_t y) const {
    if (y >= 0 && y < b.height) return row(b, static_cast<uint32_t>(y));
    return arena_ + b.offset + size_t{b.rows} * b.row_bytes() +
           b.left * b.pixel_bytes();
  }

  // Everything a ring does not write itself is zero: columns and rows around the
  // tensor, and channels that JOIN adds.
  DqaStatus clear_rings(size_t stage) {
    for (size_t i = 0; i < plan_.stages[stage].count; ++i) {
      const Buffer& b = buffer(plan_.ops[plan_.stages[stage].first + i].output);
      if (b.kind != dqa::Kind::kRing) continue;
      std::memset(arena_ + b.offset, b.type == Type::kCodes ? b.zero : 0, b.size);
    }
    return DQA_OK;
  }

  // A row of an input, scaled and shifted as the op says: itself, or a copy in `room`.
  const float* affine_row(const Op& op, uint32_t y, std::vector<float>* room) const {
    const Buffer& in = input(op);
    const size_t values = size_t{in.width} * in.channels;
    const void* const whole = inputs_[buffer(op.output).slot];
    const float* x = static_cast<const float*>(whole) + y * values;
    const bool bytes = in.type == Type::kCodes;
    const bool plain = op.weights == kNone && op.multiplier == kNone;
    if (plain && !bytes) return x;
    room->resize(values);
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
            op.weights == kNone ? pixel[c] : pixel[c] * plan_.floats(op.weights)[c];
        if (op.multiplier != kNone) out[c] += plan_.floats(op.multiplier)[c];
      }
    }
    return room->data();
  }

  // Finds the largest magnitude of an input.
  DqaStatus measure(const Op& op) {
    const Buffer& in = input(op);
    // Magnitudes are ordered like the bits of their numbers; NaN and infinity come
    // last.
    int32_t most = 0;
    for (uint32_t y = 0; y < in.height; ++y) {
      const float* const x = affine_row(op, y, &room_);
      for (size_t i = 0; i < size_t{in.width} * in.channels; ++i) {
        int32_t bits;
        std::memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
      }
    }
    float largest;
    std::memcpy(&largest, &most, sizeof largest);
    if (!(largest <= 3.0e38f)) {
      return dqa::fail(error_, DQA_BAD_ARGUMENT,
                       "inputs must be finite. Received: input %u holds NaN, infinity "
                       "or more than 3e38",
                       buffer(op.output).slot);
    }
    if (largest < 1.0e-30f) largest = 1.0f;
    const auto limit = static_cast<float>(op.shift);
    Slot& slot = slots_[buffer(op.output).slot];
    slot.scale = largest / limit;
    slot.inverse = limit / largest;
    return DQA_OK;
  }

  // Scales the arrays of an op by the steps of its inputs.
  void scale_arrays(const Op& op) {
    if (op.scratch == kNone) return;
    const size_t count = blocks_of(buffer(op.output)) * kBlock;
    size_t array = 0;
    const auto scaled = [&](uint32_t offset, uint32_t slot) {
      const float by = slot == kNone ? 1.0f : slots_[slot].scale;
      float* const out = scratch(op, array++, count);
      const float* const in = plan_.floats(offset);
      for (size_t c = 0; c < count; ++c) out[c] = in[c] * by;
    };
    if (op.code != Code::kCombine) scaled(op.multiplier, input(op).slot);
    for (size_t k = 0; k < op.link_count; ++k) {
      if (link(op, k).addend) {
        scaled(link(op, k).value, buffer(link(op, k).buffer).slot);
      }
    }
  }

  float* scratch(const Op& op, size_t array, size_t count) const {
    return reinterpret_cast<float*>(arena_ + op.scratch) + array * count;
  }

  DqaStatus visit(size_t index, Rows todo) {
    const Op& op = plan_.ops[index];
    switch (op.code) {
      case Code::kConv: conv(index, todo); break;
      case Code::kDepthwise: depthwise(index, todo); break;
      default:
        for (uint32_t y = todo.first; y < todo.end; ++y) {
          if (const DqaStatus status = compute_row(op, y)) return status;
        }
    }
    const Buffer& out = buffer(op.output);
    if (runtime_.observer != nullptr && out.kind == dqa::Kind::kRing) {
      for (uint32_t y = todo.first; y < todo.end; ++y) {
        runtime_.observer(runtime_.observer_user, static_cast<uint32_t>(index), y,
                          row(out, y), out.pixel_bytes());
      }
    }
    return DQA_OK;
  }

  DqaStatus compute_row(const Op& op, uint32_t y) {
    switch (op.code) {
      case Code::kRead: read(op, y); break;
      case Code::kLoad: return unpack(op, y);
      case Code::kStore: return pack(op, y);
      case Code::kCombine: combine(op, y); break;
      case Code::kAverage: average(op, y); break;
      case Code::kMaximum: maximum(op, y); break;
      case Code::kNearest: nearest(op, y); break;
      case Code::kBilinear: bilinear(op, y); break;
      case Code::kJoin: join(op, y); break;
      case Code::kConv:
      case Code::kDepthwise: break;
    }
    return DQA_OK;
  }

  void read(const Op& op, uint32_t y) {
    const Buffer& out = buffer(op.output);
    const float inverse = slots_[out.slot].inverse;
    const auto limit = static_cast<float>(op.shift);
    const float* x = affine_row(op, y, &room_);
    uint8_t* to = row(out, y);
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

  uint8_t* stored_row(const Buffer& b, uint32_t y) const {
    return arena_ + b.offset + size_t{b.size / b.height} * y;
  }

  // Copies pixels between a ring, whose pixels are padded, and packed ones.
  static void copy_pixels(const uint8_t* from, size_t from_step, uint8_t* to,
                          size_t to_step, size_t bytes, size_t pixels) {
    if (from_step == bytes && to_step == bytes) {
      std::memcpy(to, from, bytes * pixels);
      return;
    }
    for (size_t p = 0; p < pixels; ++p) {
      std::memcpy(to + p * to_step, from + p * from_step, bytes);
    }
  }

  DqaStatus unpack(const Op& op, uint32_t y) {
    const Buffer &in = input(op), &out = buffer(op.output);
    const size_t bytes = in.channels * in.element_bytes();
    if (in.table == kNone) {
      copy_pixels(stored_row(in, y), bytes, row(out, y), out.pixel_bytes(), bytes,
                  in.width);
      return DQA_OK;
    }
    const dqa::Table& table = plan_.tables[in.table];
    uint8_t* const codes = row_scratch();
    if (const DqaStatus status =
            dqa_unpack_strip(table.codec.get(), DQA_RAW, DQA_CODES, stored_row(in, y),
                             in.size / in.height, in.width, codes, nullptr, error_)) {
      return status;
    }
    kernels_.widen(table.widen.data(), in.channels, in.width, in.zero, codes,
                   row(out, y), out.pixel_bytes());
    return DQA_OK;
  }

  DqaStatus pack(const Op& op, uint32_t y) {
    const Buffer &in = input(op), &out = buffer(op.output);
    const size_t bytes = in.channels * in.element_bytes();
    if (out.table == kNone) {
      copy_pixels(row(in, y), in.pixel_bytes(), stored_row(out, y), bytes, bytes,
                  in.width);
      return DQA_OK;
    }
    const dqa::Table& table = plan_.tables[out.table];
    uint8_t* const codes = row_scratch();
    kernels_.narrow(table.narrow.data(), in.channels, in.width, in.zero, row(in, y),
                    in.pixel_bytes(), codes);
    size_t size = 0;
    return dqa_pack_strip(table.codec.get(), DQA_RAW, DQA_CODES, codes, out.width,
                          stored_row(out, y), out.size / out.height, &size, nullptr,
                          error_);
  }

  uint8_t* row_scratch() const {
    return arena_ + plan_.arena - dqa::kSlack - plan_.row_scratch;
  }

  // The part of an epilogue that is the same for a whole row; `operands` links come in
  // front of the addends.
  dqa::Epilogue epilogue(const Op& op, uint32_t y, size_t block) const {
    const Buffer& out = buffer(op.output);
    const size_t first = block * kBlock, count = blocks_of(out) * kBlock;
    dqa::Epilogue e = {};
    size_t array = 0;
    const auto values = [&](uint32_t offset) {
      const float* const base =
          op.scratch == kNone ? plan_.floats(offset) : scratch(op, array++, count);
      return base + first;
    };
    if (op.code != Code::kCombine) e.multiplier = values(op.multiplier);
    e.bias = plan_.floats(op.bias) + first;
    e.low = plan_.floats(op.low) + first;
    e.high = plan_.floats(op.high) + first;
    e.type = out.type;
    e.zero = out.zero;
    if (out.type == Type::kCodes) e.power = plan_.floats(op.power) + first;
    for (size_t k = 0; k < op.link_count; ++k) {
      if (!link(op, k).addend) continue;
      const Buffer& b = buffer(link(op, k).buffer);
      dqa::Addend& addend = e.addend[e.addends++];
      addend.codes = row(b, y) + first * b.element_bytes();
      addend.scale = values(link(op, k).value);
      addend.pixel_bytes = b.pixel_bytes();
      addend.wide = b.type == Type::kWide;
      addend.zero = addend.wide ? 0 : b.zero;
    }
    if (out.kind == dqa::Kind::kRing) {
      e.out = row(out, y) + first * out.element_bytes();
      e.out_bytes = out.pixel_bytes();
    } else {
      e.out_bytes = out.channels * sizeof(float);
      float* const values_out = outputs_[output_number(op.output)];
      e.out = reinterpret_cast<uint8_t*>(values_out +
                                         size_t{y} * out.width * out.channels + first);
    }
    e.channels = out.channels - first < kBlock ? out.channels - first : kBlock;
    return e;
  }

  size_t output_number(uint16_t index) const {
    size_t number = 0;
    while (plan_.outputs[number] != index) ++number;
    return number;
  }

  // Moves an epilogue on to the next pixels.
  static void advance(dqa::Epilogue* e, size_t pixels) {
    e->out += pixels * e->out_bytes;
    for (unsigned k = 0; k < e->addends; ++k) {
      e->addend[k].codes += pixels * e->addend[k].pixel_bytes;
    }
  }

  // Neighbouring pixels in tiles of nearly the same size.
  template <class Tile>
  static void tiles(size_t width, Tile tile) {
    const size_t count = (width + kTile - 1) / kTile;
    for (size_t i = 0, x = 0; i < count; ++i) {
      const size_t end = width * (i + 1) / count;
      tile(x, static_cast<unsigned>(end - x));
      x = end;
    }
  }

  void conv(size_t index, Rows todo) {
    const Op& op = plan_.ops[index];
    const Buffer &in = input(op), &out = buffer(op.output);
    const dqa::Plan& plan = plan_;
    const Prepared& prepared = runtime_.prepared[index];
    const size_t groups = (in.channels + kGroup - 1) / kGroup;
    dqa::ConvShape shape;
    shape.taps_y = op.taps_y;
    const bool joined = op.dilation_x == 1;
    shape.runs = joined ? 1 : op.taps_x;
    shape.run_groups = joined ? op.taps_x * groups : groups;
    shape.run_bytes = op.dilation_x * in.pixel_bytes();
    shape.pixel_bytes = op.stride_x * in.pixel_bytes();
    const size_t block_bytes = size_t{op.taps_y} * op.taps_x * groups * kBlock * kGroup;
    const int8_t* weights =
        reinterpret_cast<const int8_t*>(plan.constants + op.weights);
    for (size_t b = 0; b < blocks_of(out); ++b, weights += block_bytes) {
      shape.interval = prepared.interval[b];
      const dqa::ConvKernel* const kernels = in.type == Type::kWide ? kernels_.conv_wide
                                             : shape.interval == 0 ? kernels_.conv_exact
                                                                   : kernels_.conv;
      for (uint32_t y = todo.first; y < todo.end; ++y) {
        dqa::Epilogue e = epilogue(op, y, b);
        const uint8_t* rows[dqa::kMaxTaps];
        window_rows(op, in, y, rows);
        tiles(out.width, [&](size_t, unsigned pixels) {
          alignas(32) int32_t sums[kTile][kBlock];
          kernels[pixels - 1](shape, rows, weights, prepared.start.data() + b * kBlock,
                              sums);
          kernels_.finish(e, sums, pixels);
          advance(&e, pixels);
          move_on(op, pixels * shape.pixel_bytes, rows);
        });
      }
    }
  }

  // Where the taps of the first pixel of output row y begin, one row after the other.
  void window_rows(const Op& op, const Buffer& in, uint32_t y,
                   const uint8_t** rows) const {
    const size_t before = static_cast<size_t>(op.left) * in.pixel_bytes();
    for (int t = 0; t < op.taps_y; ++t) {
      const int64_t from = int64_t{y} * op.stride_y - op.top + t * op.dilation_y;
      rows[t] = row_or_zeros(in, from) - before;
    }
  }

  static void move_on(const Op& op, size_t bytes, const uint8_t** rows) {
    for (unsigned t = 0; t < op.taps_y; ++t) rows[t] += bytes;
  }

  void depthwise(size_t index, Rows todo) {
    const Op& op = plan_.ops[index];
    const Buffer &in = input(op), &out = buffer(op.output);
    const Prepared& prepared = runtime_.prepared[index];
    dqa::DepthwiseShape shape;
    shape.taps_y = op.taps_y;
    shape.taps_x = op.taps_x;
    shape.tap_bytes = op.dilation_x * in.pixel_bytes();
    shape.pixel_bytes = op.stride_x * in.pixel_bytes();
    shape.weight_step = blocks_of(in) * kBlock;
    shape.interval = prepared.interval[0];
    const dqa::DepthwiseKernel kernel =
        in.type == Type::kWide ? kernels_.depthwise_wide : kernels_.depthwise;
    const int8_t* const weights =
        reinterpret_cast<const int8_t*>(plan_.constants + op.weights);
    for (uint32_t y = todo.first; y < todo.end; ++y) {
      for (size_t b = 0; b < blocks_of(out); ++b) {
        dqa::Epilogue e = epilogue(op, y, b);
        const uint8_t* rows[dqa::kMaxTaps];
        window_rows(op, in, y, rows);
        move_on(op, b * kBlock * in.element_bytes(), rows);
        tiles(out.width, [&](size_t, unsigned pixels) {
          alignas(32) int32_t sums[kTile][kBlock];
          kernel(shape, rows, pixels, weights + b * kBlock,
                 prepared.start.data() + b * kBlock, sums);
          kernels_.finish(e, sums, pixels);
          advance(&e, pixels);
          move_on(op, pixels * shape.pixel_bytes, rows);
        });
      }
    }
  }

  void combine(const Op& op, uint32_t y) {
    const Buffer& out = buffer(op.output);
    const int32_t nothing[kTile][kBlock] = {};
    for (size_t b = 0; b < blocks_of(out); ++b) {
      dqa::Epilogue e = epilogue(op, y, b);
      tiles(out.width, [&](size_t, unsigned pixels) {
        kernels_.finish(e, nothing, pixels);
        advance(&e, pixels);
      });
    }
  }

  // Taps of a window that lie inside the input.
  struct Span {
    int64_t first, end;
  };

  static Span span(int64_t at, int taps, int64_t size) {
    return {at < 0 ? 0 : at, at + taps > size ? size : at + taps};
  }

  static int32_t code(const Buffer& b, const uint8_t* pixel, size_t c) {
    if (b.type == Type::kCodes) return pixel[c];
    int16_t value;
    std::memcpy(&value, pixel + 2 * c, sizeof value);
    return value;
  }

  void average(const Op& op, uint32_t y) {
    const Buffer &in = input(op), &out = buffer(op.output);
    const Span ys = span(int64_t{y} * op.stride_y - op.top, op.taps_y, in.height);
    for (size_t b = 0; b < blocks_of(out); ++b) {
      dqa::Epilogue e = epilogue(op, y, b);
      e.averages = true;
      for (size_t x = 0; x < out.width; ++x) {
        const Span xs =
            span(static_cast<int64_t>(x) * op.stride_x - op.left, op.taps_x, in.width);
        const auto taps =
            static_cast<int32_t>((ys.end - ys.first) * (xs.end - xs.first));
        int32_t sums[1][kBlock];
        for (size_t c = 0; c < kBlock; ++c) {
          sums[0][c] = in.type == Type::kCodes ? -taps * in.zero : 0;
        }
        for (int64_t i = ys.first; i < ys.end; ++i) {
          const uint8_t* const from = row(in, static_cast<uint32_t>(i));
          for (int64_t j = xs.first; j < xs.end; ++j) {
            const uint8_t* const pixel =
                from + static_cast<size_t>(j) * in.pixel_bytes();
            for (size_t c = 0; c < e.channels; ++c) {
              sums[0][c] += code(in, pixel, b * kBlock + c);
            }
          }
        }
        e.share = 1.0f / static_cast<float>(taps);
        kernels_.finish(e, sums, 1);
        advance(&e, 1);
      }
    }
  }

  void maximum(const Op& op, uint32_t y) {
    const Buffer &in = input(op), &out = buffer(op.output);
    const Span ys = span(int64_t{y} * op.stride_y - op.top, op.taps_y, in.height);
    uint8_t* to = row(out, y);
    const size_t bytes = in.pixel_bytes();
    for (size_t x = 0; x < out.width; ++x, to += bytes) {
      const Span xs =
          span(static_cast<int64_t>(x) * op.stride_x - op.left, op.taps_x, in.width);
      bool first = true;
      for (int64_t i = ys.first; i < ys.end; ++i) {
        const uint8_t* pixel =
            row(in, static_cast<uint32_t>(i)) + static_cast<size_t>(xs.first) * bytes;
        for (int64_t j = xs.first; j < xs.end; ++j, pixel += bytes, first = false) {
          if (first) {
            std::memcpy(to, pixel, bytes);
          } else if (in.type == Type::kCodes) {
            for (size_t c = 0; c < bytes; ++c) {
              to[c] = to[c] > pixel[c] ? to[c] : pixel[c];
            }
          } else {
            for (size_t c = 0; c < in.channels; ++c) {
              if (code(in, pixel, c) > code(out, to, c)) {
                std::memcpy(to + 2 * c, pixel + 2 * c, 2);
              }
            }
          }
        }
      }
    }
  }

  void nearest(const Op& op, uint32_t y) {
    const Buffer &in = input(op), &out = buffer(op.output);
    const size_t bytes = in.pixel_bytes();
    uint8_t* to = row(out, y);
    const uint8_t* from = row(in, y / op.stride_y);
    for (size_t x = 0; x < in.width; ++x, from += bytes) {
      for (unsigned i = 0; i < op.stride_x; ++i, to += bytes) {
        std::memcpy(to, from, bytes);
      }
    }
  }

  // Two neighbours along an axis that grows `s` times, and the weight of the second in
  // parts of 2 s.
  struct Between {
    uint32_t first, second;
    int32_t weight;
  };

  static Between between(uint32_t at, uint32_t s, uint32_t size) {
    const uint32_t doubled = 2 * at + 1 + s;
    const uint32_t second = doubled / (2 * s);
    const auto weight = static_cast<int32_t>(doubled % (2 * s));
    return {second == 0 ? 0 : second - 1, second < size ? second : size - 1, weight};
  }

  void bilinear(const Op& op, uint32_t y) {
    const Buffer &in = input(op), &out = buffer(op.output);
    const Between ys = between(y, op.stride_y, in.height);
    const uint8_t* const above = row(in, ys.first);
    const uint8_t* const below = row(in, ys.second);
    const int32_t all_y = 2 * op.stride_y, all_x = 2 * op.stride_x;
    dqa::Blend blend;
    blend.half = op.shift == 0 ? 0 : 1 << (op.shift - 1);
    blend.shift = static_cast<int32_t>(op.shift);
    blend.wide = out.type == Type::kWide;
    // 255 * 64 + 2^13 is below 2^15.
    blend.narrow = !blend.wide && all_y * all_x <= 64 && op.shift <= 14;
    uint8_t* to = row(out, y);
    for (uint32_t x = 0; x < out.width; ++x, to += out.pixel_bytes()) {
      const Between xs = between(x, op.stride_x, in.width);
      const size_t left = xs.first * in.pixel_bytes(),
                   right = xs.second * in.pixel_bytes();
      blend.weight[0] = (all_y - ys.weight) * (all_x - xs.weight);
      blend.weight[1] = (all_y - ys.weight) * xs.weight;
      blend.weight[2] = ys.weight * (all_x - xs.weight);
      blend.weight[3] = ys.weight * xs.weight;
      const uint8_t* const corners[4] = {above + left, above + right, below + left,
                                         below + right};
      kernels_.blend(blend, corners, in.channels, to);
    }
  }

  void join(const Op& op, uint32_t y) {
    const Buffer& out = buffer(op.output);
    for (size_t k = 0; k < op.link_count; ++k) {
      const Buffer& part = buffer(link(op, k).buffer);
      copy_pixels(row(part, y), part.pixel_bytes(),
                  row(out, y) + link(op, k).value * out.element_bytes(),
                  out.pixel_bytes(), part.channels * part.element_bytes(), out.width);
    }
  }

  const DqaRuntime& runtime_;
  const dqa::Plan& plan_;
  const dqa::RuntimeKernels& kernels_;
  const void* const* const inputs_;
  float* const* const outputs_;
  uint8_t* const arena_;
  DqaError* const error_;
  std::vector<uint32_t> rows_;
  std::vector<Slot> slots_;
  std::vector<float> room_;  // a row of an input
};

DqaStatus no_memory(DqaError* error) {
  return dqa::fail(error, DQA_NO_MEMORY, "no memory for the runtime");
}

size_t values_of(const dqa::Plan& plan, const std::vector<uint16_t>& buffers,
                 uint32_t index) {
  if (index >= buffers.size()) return 0;
  const Buffer& b = plan.buffers[buffers[index]];
  return size_t{b.height} * b.width * b.channels;
}

}  // namespace

DqaStatus dqa_runtime_create(const uint8_t* plan, size_t plan_size,
                             const uint8_t* constants, size_t constants_size,
                             DqaIsa isa, DqaRuntime** runtime, DqaError* error) {
  *runtime = nullptr;
  try {
    auto made = std::make_unique<DqaRuntime>();
    if (const DqaStatus status = dqa::read_plan(
            plan, plan_size, constants, constants_size, isa, &made->plan, error)) {
      return status;
    }
    const dqa::RuntimeKernels* const fast = dqa::avx2_runtime_kernels();
    made->kernels =
        isa == DQA_SCALAR || fast == nullptr ? &dqa::scalar_runtime_kernels() : fast;
    for (const Op& op : made->plan.ops) {
      made->prepared.push_back(op.code == Code::kConv ? prepare_conv(made->plan, op)
                               : op.code == Code::kDepthwise
                                   ? prepare_depthwise(made->plan, op)
                                   : Prepared{});
    }
    *runtime = made.release();
    return DQA_OK;
  } catch (const std::bad_alloc&) {
    return no_memory(error);
  }
}

void dqa_runtime_destroy(DqaRuntime* runtime) { delete runtime; }

size_t dqa_runtime_arena(const DqaRuntime* runtime) { return runtime->plan.arena; }

size_t dqa_runtime_input_size(const DqaRuntime* runtime, uint32_t index) {
  return values_of(runtime->plan, runtime->plan.inputs, index);
}

DqaType dqa_runtime_input_type(const DqaRuntime* runtime, uint32_t index) {
  const dqa::Plan& plan = runtime->plan;
  return plan.buffers[plan.inputs[index]].type == Type::kCodes ? DQA_CODES
                                                               : DQA_FLOAT32;
}

size_t dqa_runtime_output_size(const DqaRuntime* runtime, uint32_t index) {
  return values_of(runtime->plan, runtime->plan.outputs, index);
}

DqaStatus dqa_runtime_run(const DqaRuntime* runtime, const void* const* inputs,
                          float* const* outputs, uint8_t* arena, DqaError* error) {
  try {
    return Run(*runtime, inputs, outputs, arena, error)();
  } catch (const std::bad_alloc&) {
    return no_memory(error);
  }
}

void dqa_runtime_observe(DqaRuntime* runtime, DqaObserver observer, void* user) {
  runtime->observer = observer;
  runtime->observer_user = user;
}

void dqa_runtime_profile(DqaRuntime* runtime, double* seconds) {
  runtime->seconds = seconds;
}
