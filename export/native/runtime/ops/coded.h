// Stored tensors whose rows are Huffman-coded.
#ifndef DQA_RUNTIME_OPS_CODED_H_
#define DQA_RUNTIME_OPS_CODED_H_

#include <atomic>
#include <vector>

#include "runtime/plan/plan.h"

namespace dqa {

// Where a coded row lies in its buffer: an entry of the buffer's directory.
struct RowPlace {
  uint32_t offset, size;
};

constexpr size_t directory_bytes(const Buffer& b) {
  return size_t{b.height} * sizeof(RowPlace);
}

// Room for a row that is being coded or decoded: its codes, its coded bytes, and the
// codec's scratch. All of it begins at `row_scratch`.
struct RowRoom {
  RowRoom(const Table& table, const Buffer& b);

  size_t coded, scratch, end;  // offsets; the codes are at 0
};

// The rows of coded buffers during one run. A buffer holds a directory of its rows,
// then the rows in the order in which they were stored. Its size in the plan is what
// calibration measured. A row that does not fit is kept outside the arena until the run
// ends. Threads may put and get rows at the same time, each row once.
class CodedStores {
 public:
  explicit CodedStores(const Plan& plan);

  // Stores a copy of a row in buffer `number`, which begins at `memory`.
  DqaStatus put(const Buffer& b, uint16_t number, uint8_t* memory, uint32_t y,
                const uint8_t* row, size_t size, DqaError* error);

  // Finds a row that was put; fails if the directory was overwritten.
  DqaStatus get(const Buffer& b, uint16_t number, const uint8_t* memory, uint32_t y,
                const uint8_t** row, size_t* size, DqaError* error);

  // Bytes of the rows that did not fit the arena.
  size_t spilled() const { return spilled_; }

 private:
  // Reserves bytes of a buffer; false if too few are left.
  bool reserve(const Buffer& b, uint16_t number, size_t size, size_t* offset);

  std::vector<std::atomic<size_t>> used_;      // bytes, by buffer
  std::vector<size_t> first_;                  // of its rows in `outside_`, by buffer
  std::vector<std::vector<uint8_t>> outside_;  // rows that did not fit the arena
  std::atomic<size_t> spilled_{0};
};

}  // namespace dqa

#endif  // DQA_RUNTIME_OPS_CODED_H_
