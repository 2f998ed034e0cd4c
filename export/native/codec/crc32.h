// The checksum of zlib and PNG, which ends every metadata buffer and every plan.
#ifndef DQA_CODEC_CRC32_H_
#define DQA_CODEC_CRC32_H_

#include <array>
#include <cstddef>
#include <cstdint>

namespace dqa {

constexpr std::array<uint32_t, 256> crc_table() {
  std::array<uint32_t, 256> table = {};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) {
      value = value & 1 ? value >> 1 ^ 0xedb88320u : value >> 1;
    }
    table[byte] = value;
  }
  return table;
}

inline uint32_t crc32(const uint8_t* data, size_t size) {
  static constexpr std::array<uint32_t, 256> kTable = crc_table();
  uint32_t crc = 0xffffffffu;
  for (size_t i = 0; i < size; ++i) crc = kTable[(crc ^ data[i]) & 0xff] ^ crc >> 8;
  return ~crc;
}

}  // namespace dqa

#endif  // DQA_CODEC_CRC32_H_
