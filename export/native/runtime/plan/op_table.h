// The table of ops, with one line for each op code. The enumeration of op codes, their
// number and names, the checks of a plan, the row schedule and the dispatch to `ops/`
// are derived from it. export/plan/ops.py is the same table in Python.
#ifndef DQA_RUNTIME_PLAN_OP_TABLE_H_
#define DQA_RUNTIME_PLAN_OP_TABLE_H_

#include <cstddef>
#include <cstdint>

#include "dqa/runtime.h"

namespace dqa {

// How many buffers an op reads, besides its addends.
enum class Operands : uint8_t { kNone, kOne, kTwo, kMany };

// Which rows of an operand make a row of the output.
enum class RowRule : uint8_t {
  kSame,      // the row of the same number
  kWindow,    // those that the taps of its window touch
  kEnlarged,  // row y / stride
  kBetween,   // the two rows whose centres are next to it
};

// How the weights of an op lie in the constants, for I input and O output channels.
enum class WeightsLayout : uint8_t {
  kNone,
  kChannels,   // float32 [O], or no array
  kDense,      // int8 [O / 16][taps][I / 4][16][4]
  kDepthwise,  // int8 [taps][O padded to 16]
  kTiles,      // int8 [O / 16][16 positions][I / 4][16][4]
  kKnots,      // int16 [513]
  kSources,    // uint16 [O]
};

// OP(code, function, Name, NAME, operands, requantizes, row rule, weights layout)
//
// `function` names what computes the op (`ops/ops.h`) and its own rules
// (`function`_rule, beside it or in `check_op.cc`). An op that requantizes has an
// epilogue: arrays of a number for each output channel, and up to two addends.
#define DQA_OP_TABLE(OP)                                                              \
  OP(0, quantize_input, QuantizeInput, QUANTIZE_INPUT, kOne, false, kSame, kChannels) \
  OP(1, load, Load, LOAD, kOne, false, kSame, kNone)                                  \
  OP(2, store, Store, STORE, kOne, false, kSame, kNone)                               \
  OP(3, conv, Conv, CONV, kOne, true, kWindow, kDense)                                \
  OP(4, depthwise, Depthwise, DEPTHWISE, kOne, true, kWindow, kDepthwise)             \
  OP(5, add, Add, ADD, kNone, true, kSame, kNone)                                     \
  OP(6, average, Average, AVERAGE, kOne, true, kWindow, kNone)                        \
  OP(7, max_pool, MaxPool, MAX_POOL, kOne, false, kWindow, kNone)                     \
  OP(8, nearest, Nearest, NEAREST, kOne, false, kEnlarged, kNone)                     \
  OP(9, bilinear, Bilinear, BILINEAR, kOne, false, kBetween, kNone)                   \
  OP(10, concat, Concat, CONCAT, kMany, false, kSame, kNone)                          \
  OP(11, depth_to_space, DepthToSpace, DEPTH_TO_SPACE, kOne, false, kEnlarged, kNone) \
  OP(12, winograd, Winograd, WINOGRAD, kOne, true, kWindow, kTiles)                   \
  OP(13, hard_swish, HardSwish, HARD_SWISH, kOne, true, kSame, kNone)                 \
  OP(14, piecewise_linear, PiecewiseLinear, PIECEWISE_LINEAR, kOne, true, kSame,      \
     kKnots)                                                                          \
  OP(15, multiply, Multiply, MULTIPLY, kTwo, true, kSame, kNone)                      \
  OP(16, gather, Gather, GATHER, kOne, false, kWindow, kSources)

#define DQA_OP(code, function, Name, ...) k##Name = code,
enum class OpCode : uint8_t { DQA_OP_TABLE(DQA_OP) };
#undef DQA_OP

struct OpTraits {
  OpCode code;
  const char* name;
  Operands operands;
  bool requantizes;
  RowRule rows;
  WeightsLayout weights;
};

#define DQA_OP(code, function, Name, NAME, operands, requantizes, rows, weights) \
  {OpCode::k##Name, #NAME,         Operands::operands,                           \
   requantizes,     RowRule::rows, WeightsLayout::weights},
inline constexpr OpTraits kOpTraits[] = {DQA_OP_TABLE(DQA_OP)};
#undef DQA_OP

constexpr size_t kOpCodes = sizeof kOpTraits / sizeof *kOpTraits;
static_assert(kOpCodes == DQA_OP_CODES, "dqa/runtime.h states another number of ops");

constexpr bool is_in_order() {
  for (size_t i = 0; i < kOpCodes; ++i) {
    if (static_cast<size_t>(kOpTraits[i].code) != i) return false;
  }
  return true;
}
static_assert(is_in_order(), "line i of the table has code i");

constexpr const OpTraits& traits_of(OpCode code) {
  return kOpTraits[static_cast<size_t>(code)];
}

// Whether an op computes something of its own, which its addends are added to.
constexpr bool has_operands(OpCode code) {
  return traits_of(code).operands != Operands::kNone;
}

// Whether its taps read zeros around its operand.
constexpr bool sees_zeros(OpCode code) {
  const WeightsLayout weights = traits_of(code).weights;
  return weights == WeightsLayout::kDense || weights == WeightsLayout::kDepthwise ||
         weights == WeightsLayout::kTiles || weights == WeightsLayout::kSources;
}

}  // namespace dqa

#endif  // DQA_RUNTIME_PLAN_OP_TABLE_H_
