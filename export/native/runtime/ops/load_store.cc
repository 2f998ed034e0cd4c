// Moving rows: between line buffers and what is stored, and next to each other. Rows of
// a hostile plan may overlap: hence memmove.
#include <cstring>

#include "codec/codec.h"
#include "runtime/ops/ops.h"

namespace dqa {
void copy_pixels(const uint8_t* from, size_t from_step, uint8_t* to, size_t to_step,
                 size_t bytes, size_t pixels) {
  if (from_step == bytes && to_step == bytes) {
    std::memmove(to, from, bytes * pixels);
    return;
  }
  for (size_t p = 0; p < pixels; ++p) {
    std::memmove(to + p * to_step, from + p * from_step, bytes);
  }
}

DqaStatus unpack_line(Run& run, const Table& table, const Buffer& b,
                      const uint8_t* strip, size_t size, uint8_t* line) {
  const DqaCodec& codec = *table.codec;
  const size_t count = size_t{b.width} * table.channels;
  if (codec.kernels->unpack_line != nullptr &&
      codec.kernels->unpack_line(codec, strip, count, line)) {
    return DQA_OK;
  }
  const DqaStatus status = dqa_unpack_strip(&codec, DQA_RAW, DQA_CODES, strip, size,
                                            b.width, line, nullptr, &run.error);
  if (status != DQA_OK) return status;
  run.kernels.widen(table.widen.data(), table.channels, b.width, b.zero, line, line,
                    table.channels);
  return DQA_OK;
}

DqaStatus pack_line(Run& run, const Table& table, const Buffer& b, uint8_t* line,
                    uint8_t* strip, size_t capacity) {
  const DqaCodec& codec = *table.codec;
  const size_t count = size_t{b.width} * table.channels;
  if (codec.kernels->pack_line != nullptr &&
      codec.kernels->pack_line(codec, line, count, strip)) {
    return DQA_OK;
  }
  run.kernels.narrow(table.narrow.data(), table.channels, b.width, b.zero, line,
                     table.channels, line);
  size_t size = 0;
  const DqaStatus status = dqa_pack_strip(&codec, DQA_RAW, DQA_CODES, line, b.width,
                                          strip, capacity, &size, nullptr, &run.error);
  run.kernels.widen(table.widen.data(), table.channels, b.width, b.zero, line, line,
                    table.channels);
  return status;
}

namespace {

// A stored row, or the copy that was saved before the stage.
const uint8_t* loaded_row(const Run& run, uint16_t buffer, uint32_t y) {
  for (const Saved& saved : run.share->saved) {
    if (saved.buffer == buffer && saved.row == y) return run.arena + saved.offset;
  }
  return run.stored_row(run.buffer(buffer), y);
}

// Between the codes of a row at the beginning of the row scratch and a store.
DqaStatus unpack_row(Run& run, const Op& op, const Table& table, uint32_t y,
                     uint8_t* codes) {
  const Buffer& in = run.input(op);
  const uint16_t number = run.plan.link(op, 0).buffer;
  const uint8_t* row = nullptr;
  size_t size = in.size / in.height;
  uint8_t* scratch = nullptr;
  if (table.storage == DQA_RAW) {
    row = loaded_row(run, number, y);
  } else {
    scratch = codes + RowRoom(table, in).scratch;
    if (const DqaStatus status = run.coded->get(in, number, run.arena + in.offset, y,
                                                &row, &size, &run.error)) {
      return status;
    }
  }
  return dqa_unpack_strip(table.codec.get(), table.storage, DQA_CODES, row, size,
                          in.width, codes, scratch, &run.error);
}

DqaStatus pack_row(Run& run, const Op& op, const Table& table, uint32_t y,
                   uint8_t* codes) {
  const Buffer& out = run.buffer(op.output);
  size_t size = 0;
  if (table.storage == DQA_RAW) {
    return dqa_pack_strip(table.codec.get(), DQA_RAW, DQA_CODES, codes, out.width,
                          run.stored_row(out, y), out.size / out.height, &size, nullptr,
                          &run.error);
  }
  const RowRoom room(table, out);
  uint8_t* const coded = codes + room.coded;
  if (const DqaStatus status = dqa_pack_strip(
          table.codec.get(), table.storage, DQA_CODES, codes, out.width, coded,
          room.scratch - room.coded, &size, codes + room.scratch, &run.error)) {
    return status;
  }
  return run.coded->put(out, op.output, run.arena + out.offset, y, coded, size,
                        &run.error);
}

DqaStatus load_row(Run& run, const Op& op, uint32_t y) {
  const Buffer &in = run.input(op), &out = run.buffer(op.output);
  const size_t bytes = in.channels * in.element_bytes();
  if (in.table == kNone) {
    copy_pixels(loaded_row(run, run.plan.link(op, 0).buffer, y), bytes, run.row(out, y),
                out.pixel_bytes(), bytes, in.width);
    return DQA_OK;
  }
  const Table& table = run.plan.tables[in.table];
  if (packs_in_line(table, out.channels)) {
    return unpack_line(run, table, in, loaded_row(run, run.plan.link(op, 0).buffer, y),
                       in.size / in.height, run.row(out, y));
  }
  uint8_t* const codes = run.row_scratch();
  if (const DqaStatus status = unpack_row(run, op, table, y, codes)) return status;
  run.kernels.widen(table.widen.data(), in.channels, in.width, in.zero, codes,
                    run.row(out, y), out.pixel_bytes());
  return DQA_OK;
}

DqaStatus store_row(Run& run, const Op& op, uint32_t y) {
  const Buffer &in = run.input(op), &out = run.buffer(op.output);
  const size_t bytes = in.channels * in.element_bytes();
  if (out.table == kNone) {
    copy_pixels(run.row(in, y), in.pixel_bytes(), run.stored_row(out, y), bytes, bytes,
                in.width);
    return DQA_OK;
  }
  const Table& table = run.plan.tables[out.table];
  if (packs_in_line(table, in.channels)) {
    return pack_line(run, table, out, run.row(in, y), run.stored_row(out, y),
                     out.size / out.height);
  }
  uint8_t* const codes = run.row_scratch();
  run.kernels.narrow(table.narrow.data(), in.channels, in.width, in.zero,
                     run.row(in, y), in.pixel_bytes(), codes);
  return pack_row(run, op, table, y, codes);
}

void concat_row(const Run& run, const Op& op, uint32_t y) {
  const Buffer& out = run.buffer(op.output);
  for (size_t k = 0; k < op.link_count; ++k) {
    const Buffer& part = run.buffer(run.plan.link(op, k).buffer);
    copy_pixels(run.row(part, y), part.pixel_bytes(),
                run.row(out, y) + run.plan.link(op, k).value * out.element_bytes(),
                out.pixel_bytes(), part.channels * part.element_bytes(), out.width);
  }
}

}  // namespace

DqaStatus load(Run& run, size_t index, Rows rows) {
  const Op& op = run.plan.ops[index];
  return run.each_row(rows, [&](uint32_t y) { return load_row(run, op, y); });
}

DqaStatus store(Run& run, size_t index, Rows rows) {
  const Op& op = run.plan.ops[index];
  return run.each_row(rows, [&](uint32_t y) { return store_row(run, op, y); });
}

DqaStatus concat(Run& run, size_t index, Rows rows) {
  const Op& op = run.plan.ops[index];
  return run.each_row(rows, [&](uint32_t y) {
    concat_row(run, op, y);
    return DQA_OK;
  });
}

}  // namespace dqa
