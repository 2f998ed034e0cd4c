// The path for any machine.
#include "codec/blocks.h"
#include "codec/groups.h"

namespace dqa {
namespace {

size_t encode(const HuffmanCode& code, const uint8_t* plane, size_t count, uint8_t* out,
              uint8_t* scratch) {
  return encode_section(code, plane, count, out, scratch);
}

DqaStatus decode(const HuffmanCode& code, const uint8_t* section, size_t size,
                 size_t count, uint8_t* plane, size_t* used, DqaError* error) {
  return decode_section(code, section, size, count, plane, used, error);
}

}  // namespace

const Kernels& scalar_kernels() {
  static constexpr Kernels kKernels = {
      DQA_SCALAR,
      {pack_all<Scalar, true>, pack_all<Scalar, false>},
      {unpack_all<Scalar, true>, unpack_all<Scalar, false>},
      encode,
      decode};
  return kKernels;
}

}  // namespace dqa
