#include "runtime/ops/coded.h"

#include <cstring>
#include <new>

#include "codec/errors.h"

namespace dqa {

RowRoom::RowRoom(const Table& table, const Buffer& b)
    : coded(align(size_t{b.width} * b.channels)),
      scratch(coded +
              align(dqa_strip_bound(table.codec.get(), table.storage, b.width))),
      end(scratch + dqa_strip_scratch(table.codec.get(), table.storage, b.width)) {}

CodedStores::CodedStores(const Plan& plan) : used_(plan.buffers.size()) {
  size_t rows = 0;
  for (const Buffer& b : plan.buffers) {
    first_.push_back(rows);
    if (plan.is_coded(b)) rows += b.height;
  }
  outside_.resize(rows);
}

bool CodedStores::reserve(const Buffer& b, uint16_t number, size_t size,
                          size_t* offset) {
  const size_t room = b.size - directory_bytes(b);
  size_t used = used_[number].load(std::memory_order_relaxed);
  do {
    if (size > room - used) return false;
  } while (!used_[number].compare_exchange_weak(used, used + size,
                                                std::memory_order_relaxed));
  *offset = used;
  return true;
}

DqaStatus CodedStores::put(const Buffer& b, uint16_t number, uint8_t* memory,
                           uint32_t y, const uint8_t* row, size_t size,
                           DqaError* error) {
  RowPlace place = {kNone, static_cast<uint32_t>(size)};
  size_t offset = 0;
  if (reserve(b, number, size, &offset)) {
    place.offset = static_cast<uint32_t>(offset);
    std::memcpy(memory + directory_bytes(b) + offset, row, size);
  } else {
    try {
      outside_[first_[number] + y].assign(row, row + size);
    } catch (const std::bad_alloc&) {
      return fail(error, DQA_NO_MEMORY,
                  "no memory for a coded row of %zu bytes that its arena has no room "
                  "for",
                  size);
    }
    spilled_ += size;
  }
  std::memcpy(memory + y * sizeof place, &place, sizeof place);
  return DQA_OK;
}

DqaStatus CodedStores::get(const Buffer& b, uint16_t number, const uint8_t* memory,
                           uint32_t y, const uint8_t** row, size_t* size,
                           DqaError* error) {
  RowPlace place;
  std::memcpy(&place, memory + y * sizeof place, sizeof place);
  *size = place.size;
  const size_t room = b.size - directory_bytes(b);
  if (place.offset != kNone && place.offset <= room &&
      place.size <= room - place.offset) {
    *row = memory + directory_bytes(b) + place.offset;
    return DQA_OK;
  }
  const std::vector<uint8_t>& outside = outside_[first_[number] + y];
  if (place.offset == kNone && !outside.empty() && place.size <= outside.size()) {
    *row = outside.data();
    return DQA_OK;
  }
  return fail(error, DQA_CORRUPT, "row %u of buffer %u was overwritten", y,
              unsigned{number});
}

}  // namespace dqa
