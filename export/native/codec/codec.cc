// Creating a codec from a layer's table.
#include "codec/codec.h"

#include <cstring>
#include <new>
#include <numeric>

#include "codec/errors.h"
#include "codec/table.h"

namespace dqa {
namespace {

constexpr uint32_t kMaxChannels = 65536;

DqaStatus check_channels(uint32_t channels, DqaError* error) {
  if (channels >= 1 && channels <= kMaxChannels) return DQA_OK;
  return fail(error, DQA_BAD_TABLE, "channels must be in 1..%u. Received: channels=%u",
              kMaxChannels, channels);
}

// The phase of a group that begins in channel `first`.
Phase phase_of(const DqaTable& table, size_t first) {
  const unsigned n = table.bits, m = table.extra_bits;
  Phase phase = {};
  unsigned unimportant = 0;
  for (unsigned i = 0; i < 8; ++i) {
    const bool important = table.mask[(first + i) % table.channels] != 0;
    const unsigned at = 8 * i, above = important ? m : 0;
    phase.base_mask |= ((uint64_t{1} << n) - 1) << above << at;
    phase.codes |= ((uint64_t{1} << (n + above)) - 1) << at;
    phase.zero |= uint64_t{zero_point_of(n, table.sign)} << above << at;
    if (!important) {
      ++unimportant;
      continue;
    }
    phase.important |= uint64_t{0xff} << at;
    phase.residual_mask |= ((uint64_t{1} << m) - 1) << at;
    phase.residual_bits[0] = static_cast<uint8_t>(phase.residual_bits[0] + m);
    // A byte moves down by the unimportant ones below it; after step s it has made the
    // moves of the lower bits of that number.
    for (unsigned step = 0; step < 3; ++step) {
      const unsigned moved = unimportant & ((1u << step) - 1);
      if (unimportant >> step & 1)
        phase.move[step] |= uint64_t{0xff} << 8 * (i - moved);
    }
  }
  return phase;
}

const Kernels* kernels_for(DqaIsa isa) {
  switch (isa) {
    case DQA_AUTO:
      if (const Kernels* kernels = avx2_kernels()) return kernels;
      if (const Kernels* kernels = neon_kernels()) return kernels;
      return &scalar_kernels();
    case DQA_SCALAR: return &scalar_kernels();
    case DQA_AVX2: return avx2_kernels();
    case DQA_NEON: return neon_kernels();
    default: return nullptr;
  }
}

template <typename T>
bool allocate(std::unique_ptr<T[]>* array, size_t count) {
  array->reset(new (std::nothrow) T[count]);
  return *array != nullptr;
}

// Adds up the residual bits of groups that follow each other.
void add_up(size_t channels, DqaCodec* codec) {
  codec->narrow = true;
  for (size_t at = 0; at < channels + kWrap; ++at) {
    uint8_t* const bits = codec->phases[at].residual_bits;
    for (size_t g = 1; g < 4; ++g) {
      const Phase& next = codec->phases[(at + 8 * g) % channels];
      bits[g] = static_cast<uint8_t>(bits[g - 1] + next.residual_bits[0]);
    }
    codec->narrow = codec->narrow && bits[3] <= 56;
  }
}

// The vector of sixteen values that begins in channel `first`.
Sixteen sixteen_of(const DqaTable& table, size_t first) {
  Sixteen sixteen = {};
  std::memset(sixteen.rank, 255, sizeof sixteen.rank);
  std::memset(sixteen.important, 255, sizeof sixteen.important);
  std::memset(sixteen.pair_byte, 255, sizeof sixteen.pair_byte);
  for (uint8_t i = 0; i < 16; ++i) {
    unsigned width = table.bits;
    if (table.mask[(first + i) % table.channels] != 0) {
      width += table.extra_bits;
      sixteen.shift[i] = static_cast<int8_t>(table.extra_bits);
      sixteen.rank[i] = static_cast<uint8_t>(sixteen.residuals);
      sixteen.pair_byte[i] = static_cast<uint8_t>(sixteen.residuals / 4);
      sixteen.pair_shift[i] = static_cast<int8_t>(-2 * int{sixteen.rank[i] % 4});
      sixteen.important[sixteen.residuals++] = i;
    }
    sixteen.codes[i] = static_cast<uint8_t>((1u << width) - 1);
    sixteen.zero[i] = static_cast<uint8_t>(zero_point_of(table.bits, table.sign)
                                           << (width - table.bits));
  }
  return sixteen;
}

bool fill_sixteens(const DqaTable& table, DqaCodec* codec) {
  codec->sixteen_count = table.channels / std::gcd(table.channels, 16u);
  if (!allocate(&codec->sixteens, codec->sixteen_count)) return false;
  for (size_t n = 0; n < codec->sixteen_count; ++n) {
    codec->sixteens[n] = sixteen_of(table, 16 * n % table.channels);
  }
  return true;
}

// Without lengths, or bits, there is no code.
bool add_code(const uint8_t* lengths, unsigned width,
              std::unique_ptr<HuffmanCode>* code) {
  if (lengths == nullptr || width == 0) return true;
  code->reset(new (std::nothrow) HuffmanCode);
  if (*code == nullptr) return false;
  build_huffman(lengths, width, code->get());
  return true;
}

bool fill_channels(const DqaTable& table, DqaCodec* codec) {
  const size_t entries = table.channels + kWrap;
  if (!allocate(&codec->phases, entries) || !allocate(&codec->scale, entries) ||
      !allocate(&codec->inverse_scale, entries) || !allocate(&codec->low, entries) ||
      !allocate(&codec->high, entries)) {
    return false;
  }
  for (size_t at = 0; at < entries; ++at) {
    const size_t c = at % table.channels;
    const unsigned width = table.bits + (table.mask[c] ? table.extra_bits : 0);
    const int levels = 1 << width;
    const int low = -static_cast<int>(zero_point_of(table.bits, table.sign)
                                      << (width - table.bits));
    codec->phases[at] = phase_of(table, c);
    codec->scale[at] = table.scale[c];
    codec->inverse_scale[at] = 1.0f / table.scale[c];
    codec->low[at] = static_cast<float>(low);
    codec->high[at] = static_cast<float>(low + levels - 1);
  }
  add_up(table.channels, codec);
  return true;
}

}  // namespace
}  // namespace dqa

DqaStatus dqa_codec_create(const DqaTable* table, DqaIsa isa, DqaCodec** codec,
                           DqaError* error) {
  using dqa::fail;
  *codec = nullptr;
  if (const DqaStatus status = dqa::check_channels(table->channels, error)) {
    return status;
  }
  if (const DqaStatus status = dqa::check_table(*table, error)) return status;
  const dqa::Kernels* const kernels = dqa::kernels_for(isa);
  if (kernels == nullptr) {
    return fail(error, DQA_BAD_ARGUMENT,
                "the instruction set must be one of this machine. Received: isa=%d",
                static_cast<int>(isa));
  }
  std::unique_ptr<DqaCodec> created(new (std::nothrow) DqaCodec);
  if (created == nullptr || !dqa::fill_channels(*table, created.get()) ||
      (kernels->takes_sixteens && !dqa::fill_sixteens(*table, created.get())) ||
      !dqa::add_code(table->base_lengths, table->bits, &created->base_code) ||
      !dqa::add_code(table->residual_lengths, table->extra_bits,
                     &created->residual_code)) {
    return fail(error, DQA_NO_MEMORY, "no memory for a codec of %u channels",
                table->channels);
  }
  created->bits = table->bits;
  created->extra_bits = table->extra_bits;
  created->zero_point = dqa::zero_point_of(table->bits, table->sign);
  created->is_signed = created->zero_point != 0;
  created->channels = table->channels;
  for (uint32_t c = 0; c < table->channels; ++c) created->important += table->mask[c];
  created->kernels = kernels;
  created->join_base = dqa::Joiner(table->bits);
  created->join_residual = dqa::Joiner(table->extra_bits);
  *codec = created.release();
  return DQA_OK;
}

void dqa_codec_destroy(DqaCodec* codec) { delete codec; }

DqaIsa dqa_codec_isa(const DqaCodec* codec) {
  return (codec == nullptr ? dqa::kernels_for(DQA_AUTO) : codec->kernels)->isa;
}
