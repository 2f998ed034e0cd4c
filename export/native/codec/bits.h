// Eight small fields in one 64-bit word: the group that every path of the codec works
// on.
#ifndef DQA_CODEC_BITS_H_
#define DQA_CODEC_BITS_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "the codec reads and writes its little-endian format in place");

namespace dqa {

inline uint64_t load8(const uint8_t* from) {
  uint64_t word;
  std::memcpy(&word, from, sizeof word);
  return word;
}

inline void store8(uint8_t* to, uint64_t word) { std::memcpy(to, &word, sizeof word); }

inline uint64_t load_bytes(const uint8_t* from, size_t count) {
  uint64_t word = 0;
  for (size_t i = 0; i < count && i < 8; ++i) word |= uint64_t{from[i]} << (8 * i);
  return word;
}

inline void store_bytes(uint8_t* to, uint64_t word, size_t count) {
  for (size_t i = 0; i < count; ++i) to[i] = static_cast<uint8_t>(word >> (8 * i));
}

// The first `count` bytes of a word, 0 <= count <= 8.
inline uint64_t low_bytes(size_t count) {
  return count < 8 ? (uint64_t{1} << (8 * count)) - 1 : ~uint64_t{0};
}

constexpr size_t plane_bytes(size_t count, unsigned width) {
  return (count * width + 7) / 8;
}

// Moves eight w-bit fields between the low bits of eight bytes and 8 w adjacent bits:
// neighbours are joined to pairs, fours and eights, so three masked shifts do it.
class Joiner {
 public:
  explicit Joiner(unsigned width) : width_(width) {
    for (unsigned step = 0; step < 3; ++step) {
      const unsigned lane = 16u << step, field = width << step;
      const uint64_t one = (uint64_t{1} << field) - 1;
      low_[step] = 0;
      for (unsigned at = 0; at < 64; at += lane) low_[step] |= one << at;
      shift_[step] = lane / 2 - field;
    }
  }

  // Bytes in, adjacent bits out. Bytes must be below 2^w.
  uint64_t join(uint64_t x) const {
    for (unsigned step = 0; step < 3; ++step) {
      x = (x & low_[step]) | ((x >> shift_[step]) & (low_[step] << (width_ << step)));
    }
    return x;
  }

  // Adjacent bits in (higher bits are ignored), bytes out.
  uint64_t split(uint64_t x) const {
    for (unsigned step = 3; step-- > 0;) {
      const uint64_t low = low_[step];
      x = (x & low) | ((x & (low << (width_ << step))) << shift_[step]);
    }
    return x;
  }

 private:
  unsigned width_;
  unsigned shift_[3];
  uint64_t low_[3];
};

// x - y in each byte.
inline uint64_t add_bytes(uint64_t x, uint64_t y) {
  constexpr uint64_t kHigh = 0x8080808080808080u;
  return ((x & ~kHigh) + (y & ~kHigh)) ^ ((x ^ y) & kHigh);
}

inline uint64_t subtract_bytes(uint64_t x, uint64_t y) {
  constexpr uint64_t kHigh = 0x8080808080808080u;
  return ((x | kHigh) - (y & ~kHigh)) ^ ((x ^ ~y) & kHigh);
}

}  // namespace dqa

#endif  // DQA_CODEC_BITS_H_
