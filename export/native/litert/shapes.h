// Shapes of a model's tensors, compared with those of a plan.
#ifndef DQA_LITERT_SHAPES_H_
#define DQA_LITERT_SHAPES_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>

#include "dqa/runtime.h"

namespace dqa {

// Height, width and channels of an input or output of a plan.
struct PlanShape {
  uint32_t sides[3];

  static PlanShape input(const DqaRuntime* runtime, uint32_t index) {
    PlanShape shape;
    dqa_runtime_input_shape(runtime, index, shape.sides);
    return shape;
  }
  static PlanShape output(const DqaRuntime* runtime, uint32_t index) {
    PlanShape shape;
    dqa_runtime_output_shape(runtime, index, shape.sides);
    return shape;
  }

  // Whether a tensor has this shape, with a batch of one: (1, height, width, channels),
  // (1, width, channels) for a single row, or (1, channels) for a single pixel. As many
  // values in another shape do not count.
  bool is_of(const int32_t* dims, size_t rank) const {
    const bool is_pixel = sides[0] == 1 && sides[1] == 1 && rank == 2,
               is_row = sides[0] == 1 && rank == 3;
    const size_t skipped = is_pixel ? 2 : is_row ? 1 : 0;
    if (rank != 4 - skipped || dims[0] != 1) return false;
    for (size_t i = 1; i < rank; ++i) {
      if (dims[i] < 1 || static_cast<uint32_t>(dims[i]) != sides[i - 1 + skipped]) {
        return false;
      }
    }
    return true;
  }
};

// A shape as text, such as "1, 8, 8, 3". It allocates nothing.
struct ShapeText {
  ShapeText(const int32_t* dims, size_t rank) {
    size_t at = 0;
    for (size_t i = 0; i < rank && at < sizeof text; ++i) {
      const char* const before = i == 0 ? "" : ", ";
      at += static_cast<size_t>(
          std::snprintf(text + at, sizeof text - at, "%s%d", before, dims[i]));
    }
  }
  explicit ShapeText(const PlanShape& shape) {
    std::snprintf(text, sizeof text, "1, %u, %u, %u", shape.sides[0], shape.sides[1],
                  shape.sides[2]);
  }

  char text[48] = "";
};

}  // namespace dqa

#endif  // DQA_LITERT_SHAPES_H_
