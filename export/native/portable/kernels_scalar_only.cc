// Stands in for the runtime's kernels in vector instructions.
#include "runtime/kernels/kernels.h"

namespace dqa {

const RuntimeKernels* avx2_runtime_kernels() { return nullptr; }
const RuntimeKernels* avx_vnni_runtime_kernels() { return nullptr; }
const RuntimeKernels* avx512_runtime_kernels() { return nullptr; }
const RuntimeKernels* neon_runtime_kernels() { return nullptr; }
const RuntimeKernels* neon_dot_runtime_kernels() { return nullptr; }
const RuntimeKernels* neon_i8mm_runtime_kernels() { return nullptr; }

}  // namespace dqa
