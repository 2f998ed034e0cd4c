#include "runtime/schedule/thread_partition.h"

namespace dqa {
namespace {

// The cycles that a row of an op takes, roughly.
double row_cost(const Plan& plan, const Op& op) {
  const Buffer& in = plan.input(op);
  const Buffer& out = plan.buffers[op.output];
  const double values = static_cast<double>(out.width) * out.channels;
  const double taps = static_cast<double>(op.taps_y) * op.taps_x;
  switch (op.code) {
    case OpCode::kConv: return values * (taps * in.channels / 64 + 0.5);
    case OpCode::kWinograd:
      return values * (4.0 * in.channels / 64 + 1.5) + in.channels;
    case OpCode::kDepthwise:
    case OpCode::kAverage: return values * (taps / 16 + 0.5);
    default: return values * 0.3;
  }
}

// Cycles of one barrier, and by how much of its work the last thread is later than the
// others: cores never run equally fast. Rough figures of small x86 machines.
constexpr double kBarrierCost = 2000, kLate = 0.05;

// The share of some rows of an op that the slowest thread computes; see `compute`.
double largest_part(const Op& op, uint32_t rows, unsigned threads) {
  if (traits_of(op.code).requantizes) return 1.0 / threads;
  const uint32_t longest = (rows + threads - 1) / threads;
  return static_cast<double>(longest) / rows;
}

// Parts of a strip: threads begin at their edges.
constexpr uint32_t kParts = 8;

// The work of a stage before one of its strips.
double work_before(const Plan& plan, const Stage& stage, uint32_t strip, Progress* at) {
  begin_strips(plan, stage, {strip, strip, kParts}, at);
  double work = 0;
  for (size_t i = 0; i < stage.count; ++i) {
    const Op& op = plan.ops[stage.first + i];
    work += at->done[op.output] * row_cost(plan, op);
  }
  return work;
}

// Strips for each thread, with as equal work as possible. No row is computed twice.
std::vector<Strips> share_strips(const Plan& plan, const Stage& stage, unsigned threads,
                                 Progress* at) {
  const uint32_t all = stage.steps * kParts;
  const double whole = work_before(plan, stage, all, at);
  std::vector<Strips> shares;
  for (uint32_t t = 1, first = 0; t <= threads; ++t) {
    const double aim = whole * t / threads;
    uint32_t low = first, end = all;  // the first strip with so much work before it
    while (low < end) {
      const uint32_t middle = (low + end) / 2;
      if (work_before(plan, stage, middle, at) < aim) {
        low = middle + 1;
      } else {
        end = middle;
      }
    }
    if (end > first && aim - work_before(plan, stage, end - 1, at) <
                           work_before(plan, stage, end, at) - aim) {
      --end;
    }
    if (t == threads) end = all;
    shares.push_back({first, end, kParts});
    first = end;
  }
  return shares;
}

void extend(Rows* rows, Rows more) {
  if (more.end <= more.first) return;
  if (rows->end <= rows->first) rows->first = more.first;
  rows->end = more.end;
}

// The halo rows that each thread publishes, by op of the stage. Empty if a thread needs
// rows that the next thread does not have.
std::vector<std::vector<HaloRows>> share_halo_rows(const Plan& plan, const Stage& stage,
                                                   const std::vector<Strips>& shares,
                                                   Progress* at) {
  std::vector<std::vector<HaloRows>> published;
  std::vector<Rows> wanted(stage.count, Rows{0, 0});  // by the previous thread
  for (const Strips strips : shares) {
    std::vector<Rows> present(stage.count, Rows{0, 0}), copied = present;
    for_each_rows(plan, stage, strips, at, [&](size_t index, Rows computed, Rows halo) {
      extend(&present[index - stage.first], {computed.first, halo.end});
      extend(&copied[index - stage.first], halo);
      return DQA_OK;
    });
    std::vector<HaloRows> own(stage.count);
    for (size_t i = 0; i < stage.count; ++i) {
      own[i].rows = wanted[i];
      if (wanted[i].end <= wanted[i].first) continue;
      if (wanted[i].first < present[i].first || wanted[i].end > present[i].end) {
        return {};
      }
    }
    published.push_back(std::move(own));
    wanted = std::move(copied);
  }
  return published;
}

// Whether it is faster to share the work of every op than to share the strips.
bool is_together(const Plan& plan, const Stage& stage,
                 const std::vector<Strips>& shares, Progress* at) {
  const auto threads = static_cast<unsigned>(shares.size());
  double together = 0, apart = 0;
  for_each_rows(plan, stage, {0, stage.steps}, at, [&](size_t index, Rows todo, Rows) {
    const Op& op = plan.ops[index];
    const uint32_t rows = todo.end - todo.first;
    const double cost = rows * row_cost(plan, op);
    together += cost * largest_part(op, rows, threads) * (1 + kLate) + kBarrierCost;
    return DQA_OK;
  });
  for (const Strips strips : shares) {
    const double before = work_before(plan, stage, strips.first, at);
    apart = std::max(apart, work_before(plan, stage, strips.end, at) - before);
  }
  return together < apart;
}

struct Bytes {
  size_t first, end;
};

bool touch(Bytes a, Bytes b) { return a.first < b.end && b.first < a.end; }

Bytes stored_rows(const Buffer& b, Rows rows) {
  const size_t bytes = b.size / b.height;
  return {b.offset + bytes * rows.first, b.offset + bytes * rows.end};
}

// The stored rows that a thread writes in a stage.
struct Written {
  unsigned thread;
  uint16_t buffer;
  Bytes bytes;
};

std::vector<Written> written_bytes(const Plan& plan, const Stage& stage,
                                   const std::vector<Worker>& workers, size_t s) {
  std::vector<Written> written;
  for (unsigned t = 0; t < workers.size(); ++t) {
    const Strips strips = workers[t].shares[s].strips;
    for (size_t i = 0; i < stage.count; ++i) {
      const uint16_t output = plan.ops[stage.first + i].output;
      const Buffer& b = plan.buffers[output];
      if (b.kind != Kind::kStored || plan.is_coded(b)) continue;
      const Rows rows{rows_after(b.height, strips.first, strips.all(stage)),
                      rows_after(b.height, strips.end, strips.all(stage))};
      written.push_back({t, output, stored_rows(b, rows)});
    }
  }
  return written;
}

// Places a thread's line buffers, as high as it needs them, from `offset` on. Returns
// the end of the last one.
size_t place_line_buffers(const Plan& plan, const Stage& stage, Strips strips,
                          size_t offset, Progress* at, std::vector<Buffer>* buffers) {
  for (size_t i = 0; i < stage.count; ++i) {
    (*buffers)[plan.ops[stage.first + i].output].rows = 1;
  }
  const auto grow = [&](uint16_t buffer, uint32_t rows) {
    (*buffers)[buffer].rows = std::max((*buffers)[buffer].rows, rows);
  };
  for_each_rows(plan, stage, strips, at, [&](size_t index, Rows todo, Rows halo) {
    const Op& op = plan.ops[index];
    grow(op.output, halo.end - todo.first);
    if (todo.end == todo.first) return DQA_OK;
    for (size_t k = 0; k < op.link_count; ++k) {
      const Link& link = plan.link(op, k);
      if (!is_line_buffer(plan.buffers[link.buffer])) continue;
      const int64_t first = rows_seen(plan, op, link, todo).first;
      grow(link.buffer, static_cast<uint32_t>(at->done[link.buffer] - first));
    }
    return DQA_OK;
  });
  for (size_t i = 0; i < stage.count; ++i) {
    Buffer& line_buffer = (*buffers)[plan.ops[stage.first + i].output];
    if (!is_line_buffer(line_buffer)) continue;
    line_buffer.offset = static_cast<uint32_t>(offset);
    // One row more than there are holds all zeros above and below.
    line_buffer.rows = std::min(line_buffer.rows, line_buffer.height + 1);
    line_buffer.size =
        static_cast<uint32_t>(size_t{line_buffer.rows} * line_buffer.row_bytes());
    offset += align(line_buffer.size);
  }
  return offset;
}

// The stored rows that a thread loads and that may have been overwritten by then.
std::vector<Saved> endangered(const Plan& plan, const Stage& stage, Strips strips,
                              unsigned thread, const std::vector<Written>& written,
                              Progress* at) {
  std::vector<Saved> rows;
  for_each_rows(plan, stage, strips, at, [&](size_t index, Rows todo, Rows) {
    const Op& op = plan.ops[index];
    if (op.code != OpCode::kLoad) return DQA_OK;
    const uint16_t number = plan.links[op.first_link].buffer;
    // A coded buffer never shares its place with another buffer.
    if (plan.is_coded(plan.buffers[number])) return DQA_OK;
    for (uint32_t y = todo.first; y < todo.end; ++y) {
      const Bytes row = stored_rows(plan.buffers[number], {y, y + 1});
      const bool lost =
          std::any_of(written.begin(), written.end(), [&](const Written& w) {
            Bytes bytes = w.bytes;
            if (w.thread == thread) {
              const Buffer& own = plan.buffers[w.buffer];
              bytes.end = stored_rows(own, {0, at->done[w.buffer]}).end;
            }
            return touch(row, bytes);
          });
      if (lost) rows.push_back({number, y, 0});
    }
    return DQA_OK;
  });
  return rows;
}

// Threads share the groups of channels of a stage that has some.
bool has_groups(const Plan& plan, const Stage& stage) {
  for (size_t i = 0; i < stage.count; ++i) {
    if (is_grouped(plan.buffers[plan.ops[stage.first + i].output])) return true;
  }
  return false;
}

}  // namespace

Partition partition_stages(const Plan& plan, unsigned threads) {
  Partition partition;
  Progress at(plan);
  partition.together.resize(plan.stages.size());
  partition.saves.resize(plan.stages.size());
  partition.workers.resize(threads);
  for (Worker& worker : partition.workers) {
    worker.buffers = plan.buffers;
    worker.shares.resize(plan.stages.size());
  }
  partition.workers[0].row_scratch = plan.arena - kSlack - plan.row_scratch;
  size_t end = plan.arena;
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const Stage& stage = plan.stages[s];
    std::vector<Strips> shares;
    std::vector<std::vector<HaloRows>> halo;
    if (!has_groups(plan, stage)) {
      shares = share_strips(plan, stage, threads, &at);
      halo = share_halo_rows(plan, stage, shares, &at);
    }
    partition.together[s] = halo.empty() || is_together(plan, stage, shares, &at);
    for (unsigned t = 0; t < threads; ++t) {
      Share& share = partition.workers[t].shares[s];
      share.strips = partition.together[s] ? Strips{0, stage.steps} : shares[t];
      if (!partition.together[s]) share.halo = std::move(halo[t]);
    }
  }
  if (threads == 1) {
    partition.arena = end;
    return partition;
  }
  // A thread's line buffers lie together; after them the rows saved and published.
  for (unsigned t = 1; t < threads; ++t) {
    Worker& worker = partition.workers[t];
    const size_t first = align(end);
    end = first;
    for (size_t s = 0; s < plan.stages.size(); ++s) {
      if (partition.together[s]) continue;
      end = std::max(
          end, place_line_buffers(plan, plan.stages[s], worker.shares[s].strips, first,
                                  &at, &worker.buffers));
    }
    worker.row_scratch = end;
    end += align(plan.row_scratch) + kSlack;
  }
  const size_t saved_from = align(end);
  end = saved_from;
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    if (partition.together[s]) continue;
    const Stage& stage = plan.stages[s];
    const std::vector<Written> written =
        written_bytes(plan, stage, partition.workers, s);
    size_t offset = saved_from;
    for (unsigned t = 0; t < threads; ++t) {
      Share& share = partition.workers[t].shares[s];
      share.saved = endangered(plan, stage, share.strips, t, written, &at);
      for (Saved& saved : share.saved) {
        const Buffer& b = plan.buffers[saved.buffer];
        saved.offset = offset;
        offset += b.size / b.height;
        partition.saves[s] = true;
      }
      for (size_t i = 0; i < stage.count; ++i) {
        HaloRows& halo = share.halo[i];
        halo.offset = offset;
        const Buffer& b = plan.buffers[plan.ops[stage.first + i].output];
        offset += (halo.rows.end - halo.rows.first) * size_t{b.row_bytes()};
      }
    }
    end = std::max(end, offset);
  }
  partition.arena = align(end) + kSlack;
  return partition;
}

}  // namespace dqa
