#include "runtime/schedule/thread_partition.h"

namespace dqa {
namespace {

// Roughly, cycles that a row of an op takes.
double row_cost(const Plan& plan, const Op& op) {
  const Buffer& in = plan.buffers[plan.links[op.first_link].buffer];
  const Buffer& out = plan.buffers[op.output];
  const double values = static_cast<double>(out.width) * out.channels;
  const double taps = static_cast<double>(op.taps_y) * op.taps_x;
  switch (op.code) {
    case Code::kConv: return values * (taps * in.channels / 64 + 0.5);
    case Code::kWinograd: return values * (4.0 * in.channels / 64 + 1.5) + in.channels;
    case Code::kDepthwise:
    case Code::kAverage: return values * (taps / 16 + 0.5);
    default: return values * 0.3;
  }
}

// What it costs if threads meet once, and how much later than the others the last one
// comes: cores never run equally fast. Rough figures of small x86 machines.
constexpr double kMeeting = 2000, kLate = 0.05;

// The part of some rows of an op that the busiest thread takes; see `compute`.
double largest_part(const Op& op, uint32_t rows, unsigned threads) {
  switch (op.code) {
    case Code::kConv:
    case Code::kWinograd:
    case Code::kDepthwise:
    case Code::kCombine:
    case Code::kAverage: return 1.0 / threads;
    default: break;
  }
  const uint32_t most = (rows + threads - 1) / threads;
  return static_cast<double>(most) / rows;
}

// Parts of a strip at whose ends another thread may begin.
constexpr uint32_t kParts = 8;

// What is to be computed in front of a strip of a stage.
double work_before(const Plan& plan, const Stage& stage, uint32_t strip, Progress* at) {
  begin_strips(plan, stage, {strip, strip, kParts}, at);
  double work = 0;
  for (size_t i = 0; i < stage.count; ++i) {
    const Op& op = plan.ops[stage.first + i];
    work += at->done[op.output] * row_cost(plan, op);
  }
  return work;
}

// Strips for each thread, as equal in their work as can be: nothing is computed twice.
std::vector<Strips> share_strips(const Plan& plan, const Stage& stage, unsigned threads,
                                 Progress* at) {
  const uint32_t all = stage.steps * kParts;
  const double whole = work_before(plan, stage, all, at);
  std::vector<Strips> shares;
  for (uint32_t t = 1, first = 0; t <= threads; ++t) {
    const double aim = whole * t / threads;
    uint32_t low = first, end = all;  // the first strip with so much in front of it
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

// What each thread gives, by op of the stage; nothing at all if a thread needs rows
// that the next one does not have.
std::vector<std::vector<Given>> share_rows(const Plan& plan, const Stage& stage,
                                           const std::vector<Strips>& shares,
                                           Progress* at) {
  std::vector<std::vector<Given>> given;
  std::vector<Rows> wanted(stage.count, Rows{0, 0});
  for (const Strips strips : shares) {
    std::vector<Rows> there(stage.count, Rows{0, 0}), taken = there;
    walk(plan, stage, strips, at, [&](size_t index, Rows computed, Rows rest) {
      extend(&there[index - stage.first], {computed.first, rest.end});
      extend(&taken[index - stage.first], rest);
      return DQA_OK;
    });
    std::vector<Given> own(stage.count);
    for (size_t i = 0; i < stage.count; ++i) {
      own[i].rows = wanted[i];
      if (wanted[i].end <= wanted[i].first) continue;
      if (wanted[i].first < there[i].first || wanted[i].end > there[i].end) return {};
    }
    given.push_back(std::move(own));
    wanted = std::move(taken);
  }
  return given;
}

// Whether it is faster to share the work of every op than to share the strips.
bool is_together(const Plan& plan, const Stage& stage,
                 const std::vector<Strips>& shares, Progress* at) {
  const auto threads = static_cast<unsigned>(shares.size());
  double together = 0, apart = 0;
  walk(plan, stage, {0, stage.steps}, at, [&](size_t index, Rows todo, Rows) {
    const Op& op = plan.ops[index];
    const uint32_t rows = todo.end - todo.first;
    const double cost = rows * row_cost(plan, op);
    together += cost * largest_part(op, rows, threads) * (1 + kLate) + kMeeting;
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

// The rows of a stage's stores that a thread writes.
struct Written {
  unsigned thread;
  uint16_t buffer;
  Bytes bytes;
};

std::vector<Written> written_bytes(const Plan& plan, const Stage& stage,
                                   const std::vector<Worker>& workers, size_t s) {
  std::vector<Written> found;
  for (unsigned t = 0; t < workers.size(); ++t) {
    const Strips strips = workers[t].shares[s].strips;
    for (size_t i = 0; i < stage.count; ++i) {
      const uint16_t output = plan.ops[stage.first + i].output;
      const Buffer& b = plan.buffers[output];
      if (b.kind != Kind::kStored || plan.is_coded(b)) continue;
      const Rows rows{rows_after(b.height, strips.first, strips.all(stage)),
                      rows_after(b.height, strips.end, strips.all(stage))};
      found.push_back({t, output, stored_rows(b, rows)});
    }
  }
  return found;
}

// Gives a thread rings, as high as it needs them, from `offset` on; returns their end.
size_t place_rings(const Plan& plan, const Stage& stage, Strips strips, size_t offset,
                   Progress* at, std::vector<Buffer>* buffers) {
  for (size_t i = 0; i < stage.count; ++i) {
    (*buffers)[plan.ops[stage.first + i].output].rows = 1;
  }
  const auto grow = [&](uint16_t buffer, uint32_t rows) {
    (*buffers)[buffer].rows = std::max((*buffers)[buffer].rows, rows);
  };
  walk(plan, stage, strips, at, [&](size_t index, Rows todo, Rows taken) {
    const Op& op = plan.ops[index];
    grow(op.output, taken.end - todo.first);
    if (todo.end == todo.first) return DQA_OK;
    for (size_t k = 0; k < op.link_count; ++k) {
      const Link& link = plan.links[op.first_link + k];
      if (plan.buffers[link.buffer].kind != Kind::kRing) continue;
      grow(link.buffer, at->done[link.buffer] - rows_read(plan, op, link, todo).first);
    }
    return DQA_OK;
  });
  for (size_t i = 0; i < stage.count; ++i) {
    Buffer& ring = (*buffers)[plan.ops[stage.first + i].output];
    if (ring.kind != Kind::kRing) continue;
    ring.offset = static_cast<uint32_t>(offset);
    const size_t size = (size_t{ring.rows} + ring.zero_row) * ring.row_bytes();
    ring.size = static_cast<uint32_t>(size);
    offset += align(size);
  }
  return offset;
}

// The rows that a thread loads and that somebody may have overwritten by then.
std::vector<Saved> endangered(const Plan& plan, const Stage& stage, Strips strips,
                              unsigned thread, const std::vector<Written>& written,
                              Progress* at) {
  std::vector<Saved> found;
  walk(plan, stage, strips, at, [&](size_t index, Rows todo, Rows) {
    const Op& op = plan.ops[index];
    if (op.code != Code::kLoad) return DQA_OK;
    const uint16_t number = plan.links[op.first_link].buffer;
    // Nothing is placed over a coded buffer, nor one over anything.
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
      if (lost) found.push_back({number, y, 0});
    }
    return DQA_OK;
  });
  return found;
}

}  // namespace

Division divide(const Plan& plan, unsigned threads) {
  Division made;
  Progress at(plan);
  made.together.resize(plan.stages.size());
  made.saves.resize(plan.stages.size());
  made.workers.resize(threads);
  for (Worker& worker : made.workers) {
    worker.buffers = plan.buffers;
    worker.shares.resize(plan.stages.size());
  }
  made.workers[0].row_scratch = plan.arena - kSlack - plan.row_scratch;
  size_t end = plan.arena;
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const Stage& stage = plan.stages[s];
    const std::vector<Strips> shares = share_strips(plan, stage, threads, &at);
    std::vector<std::vector<Given>> given = share_rows(plan, stage, shares, &at);
    made.together[s] = given.empty() || is_together(plan, stage, shares, &at);
    for (unsigned t = 0; t < threads; ++t) {
      Share& share = made.workers[t].shares[s];
      share.strips = made.together[s] ? Strips{0, stage.steps} : shares[t];
      if (!made.together[s]) share.given = std::move(given[t]);
    }
  }
  if (threads == 1) {
    made.arena = end;
    return made;
  }
  // Rings of a stage, then rows it saves and gives; what a thread has lies together.
  for (unsigned t = 1; t < threads; ++t) {
    Worker& worker = made.workers[t];
    const size_t first = align(end);
    end = first;
    for (size_t s = 0; s < plan.stages.size(); ++s) {
      if (made.together[s]) continue;
      end = std::max(end, place_rings(plan, plan.stages[s], worker.shares[s].strips,
                                      first, &at, &worker.buffers));
    }
    worker.row_scratch = end;
    end += align(plan.row_scratch) + kSlack;
  }
  const size_t saved_from = align(end);
  end = saved_from;
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    if (made.together[s]) continue;
    const Stage& stage = plan.stages[s];
    const std::vector<Written> written = written_bytes(plan, stage, made.workers, s);
    size_t offset = saved_from;
    for (unsigned t = 0; t < threads; ++t) {
      Share& share = made.workers[t].shares[s];
      share.saved = endangered(plan, stage, share.strips, t, written, &at);
      for (Saved& saved : share.saved) {
        const Buffer& b = plan.buffers[saved.buffer];
        saved.offset = offset;
        offset += b.size / b.height;
        made.saves[s] = true;
      }
      for (size_t i = 0; i < stage.count; ++i) {
        Given& given = share.given[i];
        given.offset = offset;
        const Buffer& b = plan.buffers[plan.ops[stage.first + i].output];
        offset += (given.rows.end - given.rows.first) * size_t{b.row_bytes()};
      }
    }
    end = std::max(end, offset);
  }
  made.arena = align(end) + kSlack;
  return made;
}

}  // namespace dqa
