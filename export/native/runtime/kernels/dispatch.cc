// Choosing an instruction set.
#include "runtime/kernels/kernels.h"

namespace dqa {

const RuntimeKernels* runtime_kernels(DqaIsa isa) {
  switch (isa) {
    case DQA_SCALAR: return &scalar_runtime_kernels();
    case DQA_AVX2: return avx2_runtime_kernels();
    case DQA_AVX_VNNI: return avx_vnni_runtime_kernels();
    case DQA_AVX512_VNNI: return avx512_runtime_kernels();
    case DQA_NEON: return neon_runtime_kernels();
    case DQA_NEON_DOT: return neon_dot_runtime_kernels();
    case DQA_NEON_I8MM: return neon_i8mm_runtime_kernels();
    case DQA_AUTO: break;
  }
  for (const DqaIsa fast : {DQA_AVX512_VNNI, DQA_AVX_VNNI, DQA_AVX2, DQA_NEON_I8MM,
                            DQA_NEON_DOT, DQA_NEON}) {
    if (const RuntimeKernels* const kernels = runtime_kernels(fast)) return kernels;
  }
  return &scalar_runtime_kernels();
}

}  // namespace dqa
