// The loops over groups of eight values that every instruction set shares. A path gives
// `quantize8` and `dequantize8`; the rest is 64-bit integer work.
#ifndef DQA_CODEC_GROUPS_H_
#define DQA_CODEC_GROUPS_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "codec/bits.h"
#include "codec/codec.h"

namespace dqa {

// Where a loop stands, so that another one can take over.
struct PackState {
  size_t done = 0;       // values, a multiple of 8
  size_t channel = 0;    // of the next value
  uint64_t waiting = 0;  // residual bits not yet written
  unsigned fill = 0;     // how many; below 8
};

struct UnpackState {
  size_t done = 0;
  size_t channel = 0;
  size_t residual_bit = 0;  // next bit of the residual plane
};

inline size_t next_channel(size_t channel, size_t step, size_t channels) {
  channel += step;  // step is below channels
  return channel >= channels ? channel - channels : channel;
}

inline uint64_t bring_together(uint64_t x, const uint64_t* move) {
  for (unsigned step = 0; step < 3; ++step) {
    const uint64_t moving = x & move[step];
    x = (x ^ moving) | (moving >> (8u << step));
  }
  return x;
}

inline uint64_t spread_out(uint64_t x, const Phase& phase) {
  for (unsigned step = 3; step-- > 0;) {
    const uint64_t move = phase.move[step];
    x = (x & ~move) | (x << (8u << step) & move);
  }
  return x & phase.important;
}

// The base bits of eight codes, adjacent.
inline uint64_t take_base(const DqaCodec& codec, const Phase& phase, uint64_t codes) {
  const uint64_t base = codes & phase.base_mask;
  return codec.join_base.join((base & phase.important) >> codec.extra_bits |
                              (base & ~phase.important));
}

// The residual bits of the important ones of eight codes, adjacent.
inline uint64_t take_residual(const DqaCodec& codec, const Phase& phase,
                              uint64_t codes) {
  return codec.join_residual.join(
      bring_together(codes & phase.residual_mask, phase.move));
}

// The inverse of both: eight codes, sign-extended to their bytes.
inline uint64_t give_codes(const DqaCodec& codec, const Phase& phase, uint64_t base,
                           uint64_t residual) {
  base = codec.join_base.split(base);
  base = (base & phase.important) << codec.extra_bits | (base & ~phase.important);
  residual = spread_out(codec.join_residual.split(residual), phase);
  const uint64_t up = add_bytes(base | residual, phase.zero) & phase.codes;
  return subtract_bytes(up, phase.zero);
}

// The scalar path, and the rounding that all paths share.
struct Scalar {
  static uint64_t quantize8(const float* x, const float* inverse_scale,
                            const float* low, const float* high) {
    uint64_t codes = 0;
    for (unsigned i = 0; i < 8; ++i) {
      float v = x[i] * inverse_scale[i];
      v = v > low[i] ? v : low[i];  // a NaN fails the comparison
      v = v < high[i] ? v : high[i];
      // Adding 1.5 * 2^23 leaves no bits for a fraction: the sum is rounded half to
      // even and its low byte is the code in two's complement.
      const float shifted = v + 12582912.0f;
      uint32_t pattern;
      std::memcpy(&pattern, &shifted, sizeof pattern);
      codes |= uint64_t{pattern & 0xff} << (8 * i);
    }
    return codes;
  }

  static void dequantize8(uint64_t codes, bool is_signed, const float* scale,
                          float* x) {
    for (unsigned i = 0; i < 8; ++i) {
      const uint8_t code = static_cast<uint8_t>(codes >> (8 * i));
      const int q = is_signed ? static_cast<int8_t>(code) : code;
      x[i] = static_cast<float>(q) * scale[i];
    }
  }
};

template <class Path, bool kFloat>
uint64_t read_codes(const DqaCodec& codec, const void* values, size_t at,
                    size_t channel) {
  if (kFloat) {
    return Path::quantize8(static_cast<const float*>(values) + at,
                           codec.inverse_scale.get() + channel,
                           codec.low.get() + channel, codec.high.get() + channel);
  }
  return load8(static_cast<const uint8_t*>(values) + at);
}

template <class Path, bool kFloat>
void write_codes(const DqaCodec& codec, uint64_t codes, size_t channel, void* values,
                 size_t at) {
  if (kFloat) {
    Path::dequantize8(codes, codec.is_signed, codec.scale.get() + channel,
                      static_cast<float*>(values) + at);
  } else {
    store8(static_cast<uint8_t*>(values) + at, codes);
  }
}

// Packs values state.done..count and writes exactly the planes' bytes. `base` and
// `residual` are where the next bytes go.
template <class Path, bool kFloat>
void pack_groups(const DqaCodec& codec, const void* values, size_t count, uint8_t* base,
                 uint8_t* residual, size_t residual_left, PackState state) {
  const size_t step = 8 % codec.channels, width = codec.bits;
  const auto put = [&](uint64_t codes, size_t base_bytes) {
    const Phase& phase = codec.phases[state.channel];
    store_bytes(base, take_base(codec, phase, codes), base_bytes);
    base += base_bytes;
    state.waiting |= take_residual(codec, phase, codes) << state.fill;
    state.fill += phase.residual_bits[0];
    for (; state.fill >= 8 && residual_left > 0; state.fill -= 8, --residual_left) {
      *residual++ = static_cast<uint8_t>(state.waiting);
      state.waiting >>= 8;
    }
  };
  for (; count - state.done >= 8; state.done += 8) {
    put(read_codes<Path, kFloat>(codec, values, state.done, state.channel), width);
    state.channel = next_channel(state.channel, step, codec.channels);
  }
  if (const size_t rest = count - state.done) {
    constexpr size_t kBytes = kFloat ? sizeof(float) : 1;
    unsigned char last[8 * sizeof(float)] = {};
    std::memcpy(last, static_cast<const unsigned char*>(values) + state.done * kBytes,
                rest * kBytes);
    float aligned[8];
    std::memcpy(aligned, last, sizeof aligned);
    const void* from = kFloat ? static_cast<const void*>(aligned) : last;
    put(read_codes<Path, kFloat>(codec, from, 0, state.channel) & low_bytes(rest),
        plane_bytes(rest, codec.bits));
  }
  if (residual_left > 0) *residual = static_cast<uint8_t>(state.waiting);
}

// Unpacks values state.done..count; reads exactly the planes' bytes. `base` is where
// the next byte is, `residual` the whole residual plane.
template <class Path, bool kFloat>
void unpack_groups(const DqaCodec& codec, const uint8_t* base, const uint8_t* residual,
                   size_t residual_bytes, size_t count, void* values,
                   UnpackState state) {
  const size_t step = 8 % codec.channels, width = codec.bits;
  const auto get = [&](size_t base_bytes) {
    const Phase& phase = codec.phases[state.channel];
    const size_t byte = state.residual_bit >> 3;
    uint64_t bits = 0;
    if (byte < residual_bytes) {
      const size_t left = residual_bytes - byte;
      bits = (left >= 8 ? load8(residual + byte) : load_bytes(residual + byte, left)) >>
             (state.residual_bit & 7);
    }
    state.residual_bit += phase.residual_bits[0];
    return give_codes(codec, phase, load_bytes(base, base_bytes), bits);
  };
  for (; count - state.done >= 8; state.done += 8) {
    write_codes<Path, kFloat>(codec, get(width), state.channel, values, state.done);
    base += width;
    state.channel = next_channel(state.channel, step, codec.channels);
  }
  if (const size_t rest = count - state.done) {
    const uint64_t codes = get(plane_bytes(rest, codec.bits));
    constexpr size_t kBytes = kFloat ? sizeof(float) : 1;
    float last[8];
    write_codes<Path, kFloat>(codec, codes, state.channel, last, 0);
    std::memcpy(static_cast<unsigned char*>(values) + state.done * kBytes, last,
                rest * kBytes);
  }
}

template <class Path, bool kFloat>
void pack_all(const DqaCodec& codec, const void* values, size_t count, uint8_t* base,
              uint8_t* residual) {
  pack_groups<Path, kFloat>(codec, values, count, base, residual,
                            plane_bytes(codec.residual_count(count), codec.extra_bits),
                            PackState{});
}

template <class Path, bool kFloat>
void unpack_all(const DqaCodec& codec, const uint8_t* base, const uint8_t* residual,
                size_t count, void* values) {
  unpack_groups<Path, kFloat>(
      codec, base, residual, plane_bytes(codec.residual_count(count), codec.extra_bits),
      count, values, UnpackState{});
}

}  // namespace dqa

#endif  // DQA_CODEC_GROUPS_H_
