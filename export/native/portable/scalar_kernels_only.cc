// No vector instructions: stands in for the kernels of every instruction set but the
// scalar ones, in the codec and in the runtime.
#include "codec/codec.h"
#include "runtime/kernels/kernels.h"

namespace dqa {

const Kernels* avx2_kernels() { return nullptr; }
const Kernels* neon_kernels() { return nullptr; }

const RuntimeKernels* avx2_runtime_kernels() { return nullptr; }
const RuntimeKernels* avx_vnni_runtime_kernels() { return nullptr; }
const RuntimeKernels* avx512_runtime_kernels() { return nullptr; }
const RuntimeKernels* neon_runtime_kernels() { return nullptr; }
const RuntimeKernels* neon_dot_runtime_kernels() { return nullptr; }

}  // namespace dqa
