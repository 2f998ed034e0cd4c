// The path for any machine.
#include "groups.h"

namespace dqa {

const Kernels& scalar_kernels() {
  static constexpr Kernels kKernels = {
      DQA_SCALAR,
      {pack_all<Scalar, true>, pack_all<Scalar, false>},
      {unpack_all<Scalar, true>, unpack_all<Scalar, false>}};
  return kKernels;
}

}  // namespace dqa
