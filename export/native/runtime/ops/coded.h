// Stored tensors whose rows are Huffman-coded.
#ifndef DQA_RUNTIME_CODED_H_
#define DQA_RUNTIME_CODED_H_

#include <atomic>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "runtime/plan/plan.h"

namespace dqa {

// A row's place among the rows of its buffer, as the arena keeps it.
struct RowPlace {
  uint32_t offset, size;
};

constexpr size_t directory_bytes(const Buffer& b) {
  return size_t{b.height} * sizeof(RowPlace);
}

// Room for a row on its way to or from a coded store: its codes, its bytes, and what
// the codec needs. All of it lies behind `row_scratch`.
struct RowRoom {
  RowRoom(const Table& table, const Buffer& b);

  size_t coded, scratch, end;  // offsets; the codes are at 0
};

// The rows of coded buffers during one run. A buffer is a directory of its rows, then
// the rows in the order in which they came: the plan gives them the room that
// calibration saw them take. A row that finds none left lies outside the arena until
// the run ends. Threads may put and get rows at once, each row once.
class CodedStores {
 public:
  explicit CodedStores(const Plan& plan) : used_(plan.buffers.size()) {}

  // Keeps a copy of a row of buffer `number`, which begins at `memory`.
  DqaStatus put(const Buffer& b, uint16_t number, uint8_t* memory, uint32_t y,
                const uint8_t* row, size_t size, DqaError* error);

  // A row that was put; fails if the directory is not what `put` left.
  DqaStatus get(const Buffer& b, uint16_t number, const uint8_t* memory, uint32_t y,
                const uint8_t** row, size_t* size, DqaError* error);

  // Bytes of the rows that found no room in the arena.
  size_t spilled() const { return spilled_; }

 private:
  // Takes some bytes of a buffer's room; false if so many are not left.
  bool reserve(const Buffer& b, uint16_t number, size_t size, size_t* offset);

  std::vector<std::atomic<size_t>> used_;  // bytes, by buffer
  std::mutex mutex_;
  std::map<std::pair<uint16_t, uint32_t>, std::vector<uint8_t>> outside_;
  std::atomic<size_t> spilled_{0};
};

}  // namespace dqa

#endif  // DQA_RUNTIME_CODED_H_
