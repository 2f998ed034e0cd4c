#include "codec/table.h"

#include <cmath>

#include "codec/errors.h"
#include "codec/huffman.h"

namespace dqa {
namespace {

DqaStatus check_lengths(const uint8_t* lengths, unsigned width, const char* what,
                        DqaError* error) {
  if (lengths == nullptr) return DQA_OK;
  if (width == 0) {
    if (lengths[0] == 0) return DQA_OK;
    return fail(error, DQA_BAD_TABLE,
                "%s: a single symbol takes no bits. Received: length=%u", what,
                unsigned{lengths[0]});
  }
  unsigned kraft = 0;
  for (unsigned symbol = 0; symbol < 1u << width; ++symbol) {
    const unsigned length = lengths[symbol];
    if (length < 1 || length > kMaxCodeLength) {
      return fail(error, DQA_BAD_TABLE,
                  "%s: code lengths must be in 1..%u. Received: %u for symbol %u", what,
                  kMaxCodeLength, length, symbol);
    }
    kraft += 1u << (kMaxCodeLength - length);
  }
  if (kraft == kWindow) return DQA_OK;
  return fail(error, DQA_BAD_TABLE,
              "%s: code lengths must fill the code space exactly; they are %s. "
              "Received: %u/%u of it",
              what, kraft > kWindow ? "over-subscribed" : "incomplete", kraft, kWindow);
}

}  // namespace

DqaStatus check_numbers(uint32_t bits, uint32_t extra_bits, uint32_t sign,
                        DqaError* error) {
  if (bits < 1 || bits > 8 || extra_bits > 4 || bits + extra_bits > 8) {
    return fail(error, DQA_BAD_TABLE,
                "bits must be in 1..8, extra_bits in 0..4 and their sum at most 8. "
                "Received: bits=%u, extra_bits=%u",
                bits, extra_bits);
  }
  // The zero point is below half of the codes, whose bits fit a signed byte.
  if (sign > 1 && (sign > 1u << (bits - 1) || bits + extra_bits > 7)) {
    return fail(
        error, DQA_BAD_TABLE,
        "sign must be 0, 1 or, where bits + extra_bits is below 8, a zero point "
        "plus 1 of at most 2^(bits - 1). Received: sign=%u, bits=%u, "
        "extra_bits=%u",
        sign, bits, extra_bits);
  }
  return DQA_OK;
}

DqaStatus check_table(const DqaTable& table, DqaError* error) {
  if (const DqaStatus status =
          check_numbers(table.bits, table.extra_bits, table.sign, error)) {
    return status;
  }
  for (uint32_t c = 0; c < table.channels; ++c) {
    if (table.mask[c] > 1) {
      return fail(error, DQA_BAD_TABLE,
                  "mask must be 0 or 1. Received: %u in channel %u",
                  unsigned{table.mask[c]}, c);
    }
    if (!std::isfinite(table.scale[c]) || !(table.scale[c] > 0)) {
      return fail(error, DQA_BAD_TABLE,
                  "scale must be positive and finite. Received: %g in channel %u",
                  static_cast<double>(table.scale[c]), c);
    }
  }
  if (const DqaStatus status =
          check_lengths(table.base_lengths, table.bits, "base_lengths", error)) {
    return status;
  }
  return check_lengths(table.residual_lengths, table.extra_bits, "residual_lengths",
                       error);
}

}  // namespace dqa
