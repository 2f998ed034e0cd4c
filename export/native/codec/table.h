// What a layer's table must hold to, wherever it comes from.
#ifndef DQA_CODEC_TABLE_H_
#define DQA_CODEC_TABLE_H_

#include <cstdint>

#include "dqa/codec.h"

namespace dqa {

DqaStatus check_numbers(uint32_t bits, uint32_t extra_bits, uint32_t sign,
                        DqaError* error);

// How many of the base codes lie below 0.
inline unsigned zero_point_of(unsigned bits, unsigned sign) {
  if (sign > 1) return sign - 1;
  return sign == 0 ? 0 : 1u << (bits - 1);
}

// Numbers, mask, scales and code lengths of a whole table.
DqaStatus check_table(const DqaTable& table, DqaError* error);

}  // namespace dqa

#endif  // DQA_CODEC_TABLE_H_
