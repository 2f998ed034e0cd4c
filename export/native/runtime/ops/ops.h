// What ops compute: one function for each line of the table of ops.
#ifndef DQA_RUNTIME_OPS_OPS_H_
#define DQA_RUNTIME_OPS_OPS_H_

#include "runtime/schedule/run.h"

namespace dqa {

// Before the first stage: the bits of the largest magnitude in one part of an input's
// rows, and the step that follows from the largest of all parts.
int32_t measure(Run& run, size_t index, unsigned part, unsigned parts);
DqaStatus set_slot(Run& run, const Op& op, int32_t bits);

// Scales the arrays of an op by the steps of its inputs.
void scale_arrays(const Run& run, const Op& op);

// Compute this thread's piece of some rows of an op's output.
#define DQA_OP(code, function, ...) \
  DqaStatus function(Run& run, size_t index, Rows rows);
DQA_OP_TABLE(DQA_OP)
#undef DQA_OP

// How sums become codes in row y, for some blocks of channels.
Epilogue epilogue(const Run& run, const Op& op, uint32_t y, size_t block,
                  unsigned blocks);

// Copies pixels between a line buffer, whose pixels are padded, and packed rows.
void copy_pixels(const uint8_t* from, size_t from_step, uint8_t* to, size_t to_step,
                 size_t bytes, size_t pixels);

// Between a line of codes without padding, as wide as a buffer, and a raw strip of some
// bytes. Packing leaves the line as it was: others may read it.
DqaStatus unpack_line(Run& run, const Table& table, const Buffer& b,
                      const uint8_t* strip, size_t size, uint8_t* line);
DqaStatus pack_line(Run& run, const Table& table, const Buffer& b, uint8_t* line,
                    uint8_t* strip, size_t capacity);

}  // namespace dqa

#endif  // DQA_RUNTIME_OPS_OPS_H_
