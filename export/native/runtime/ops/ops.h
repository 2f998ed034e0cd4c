// What ops compute: one function for each op code.
#ifndef DQA_RUNTIME_OPS_OPS_H_
#define DQA_RUNTIME_OPS_OPS_H_

#include "runtime/schedule/run.h"

namespace dqa {

// Before the first stage: the bits of the largest magnitude in one part of an input's
// rows, and the step that follows from the largest of all parts.
int32_t measure(Run& run, size_t index, unsigned part, unsigned parts);
DqaStatus set_slot(Run& run, const Op& op, int32_t most);

// Scales the arrays of an op by the steps of its inputs.
void scale_arrays(const Run& run, const Op& op);

// Compute a piece of the output, or this thread's piece of some rows.
void conv(const Run& run, size_t index, Piece piece);
void depthwise(const Run& run, size_t index, Rows todo);
void winograd(const Run& run, size_t index, Rows todo);
void add(const Run& run, const Op& op, Piece piece);
void average(const Run& run, const Op& op, Piece piece);

// Compute row y of the output.
void quantize_input(Run& run, size_t index, uint32_t y);
DqaStatus load(Run& run, const Op& op, uint32_t y);
DqaStatus store(Run& run, const Op& op, uint32_t y);
void max_pool(const Run& run, const Op& op, uint32_t y);
void nearest(const Run& run, const Op& op, uint32_t y);
void bilinear(const Run& run, const Op& op, uint32_t y);
void depth_to_space(const Run& run, const Op& op, uint32_t y);
void concat(const Run& run, const Op& op, uint32_t y);

// How sums become codes in row y, for some blocks of channels.
Epilogue epilogue(const Run& run, const Op& op, uint32_t y, size_t block,
                  unsigned blocks);

// Copies pixels between a line buffer, whose pixels are padded, and packed rows.
void copy_pixels(const uint8_t* from, size_t from_step, uint8_t* to, size_t to_step,
                 size_t bytes, size_t pixels);

}  // namespace dqa

#endif  // DQA_RUNTIME_OPS_OPS_H_
