// dqa_keras._codec: the C codec for Python. Arrays are used in place and the
// interpreter lock is released while bytes move; dqa_keras/codec.py is what users call.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <memory>
#include <string>

#include "dqa/codec.h"
#include "dqa/residual_table.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Buffer = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Values = nb::ndarray<nb::ro, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr const char* kIsaNames[] = {"auto", "scalar", "avx2", "neon"};

DqaIsa isa_of(const std::string& name) {
  for (int isa = DQA_AUTO; isa <= DQA_NEON; ++isa) {
    if (name == kIsaNames[isa]) return static_cast<DqaIsa>(isa);
  }
  throw nb::value_error(
      ("isa must be auto, scalar, avx2 or neon. Received: isa='" + name + "'").c_str());
}

void require(DqaStatus status, const DqaError& error) {
  if (status == DQA_NO_MEMORY) throw std::bad_alloc();
  if (status != DQA_OK) throw nb::value_error(error.message);
}

void require_size(const char* what, size_t size, size_t wanted) {
  if (size == wanted) return;
  throw nb::value_error((std::string(what) + " must have " + std::to_string(wanted) +
                         " elements. Received: " + std::to_string(size))
                            .c_str());
}

template <class Array>
DqaType type_of(const Array& values) {
  if (values.dtype() == nb::dtype<float>()) return DQA_FLOAT32;
  if (values.dtype() == nb::dtype<uint8_t>()) return DQA_CODES;
  throw nb::value_error("values must be float32, or codes viewed as uint8");
}

class Codec {
 public:
  Codec(uint32_t bits, uint32_t extra_bits, uint32_t sign, const Bytes& mask,
        const Floats& scale, const Bytes& residual_lengths, const Bytes& base_lengths,
        const std::string& isa)
      : channels_(mask.size()) {
    require_size("scale", scale.size(), channels_);
    if (bits <= 8 && extra_bits <= 8) {  // otherwise refused below, with its rule
      require_size("residual_lengths", residual_lengths.size(),
                   size_t{1} << extra_bits);
      require_size("base_lengths", base_lengths.size(), size_t{1} << bits);
    }
    const DqaTable table = {bits,
                            extra_bits,
                            sign,
                            static_cast<uint32_t>(channels_),
                            mask.data(),
                            scale.data(),
                            residual_lengths.data(),
                            base_lengths.data()};
    DqaCodec* codec = nullptr;
    DqaError error;
    require(dqa_codec_create(&table, isa_of(isa), &codec, &error), error);
    codec_.reset(codec);
  }

  const char* isa() const { return kIsaNames[dqa_codec_isa(codec_.get())]; }

  size_t pack(const Values& values, int storage, size_t rows, size_t strip_rows,
              uint32_t threads, const Buffer& out) const {
    const DqaGeometry geometry = {rows, row_pixels(values.size(), rows), strip_rows};
    const DqaType type = type_of(values);
    size_t size = 0;
    call([&](DqaError* error) {
      return dqa_pack(codec_.get(), static_cast<DqaStorage>(storage), type,
                      values.data(), &geometry, threads, out.data(), out.size(), &size,
                      error);
    });
    return size;
  }

  void unpack(const Bytes& blob, size_t rows, uint32_t threads,
              const Output& values) const {
    const size_t pixels = row_pixels(values.size(), rows);
    const DqaType type = type_of(values);
    call([&](DqaError* error) {
      return dqa_unpack(codec_.get(), type, blob.data(), blob.size(), rows, pixels,
                        threads, values.data(), error);
    });
  }

  size_t pack_strip(const Values& values, int storage, const Buffer& out) const {
    const size_t pixels = row_pixels(values.size(), 1);
    const DqaType type = type_of(values);
    const auto scratch = strip_scratch(storage, pixels);
    size_t size = 0;
    call([&](DqaError* error) {
      return dqa_pack_strip(codec_.get(), static_cast<DqaStorage>(storage), type,
                            values.data(), pixels, out.data(), out.size(), &size,
                            scratch.get(), error);
    });
    return size;
  }

  void unpack_strip(const Bytes& strip, int storage, const Output& values) const {
    const size_t pixels = row_pixels(values.size(), 1);
    const DqaType type = type_of(values);
    const auto scratch = strip_scratch(storage, pixels);
    call([&](DqaError* error) {
      return dqa_unpack_strip(codec_.get(), static_cast<DqaStorage>(storage), type,
                              strip.data(), strip.size(), pixels, values.data(),
                              scratch.get(), error);
    });
  }

  void decode_blocks(const Bytes& section, bool base, size_t count,
                     const Buffer& plane) const {
    if (plane.size() < count + 8) {
      throw nb::value_error("plane must have count + 8 elements");
    }
    call([&](DqaError* error) {
      return dqa_decode_blocks(codec_.get(), base ? DQA_ALL : DQA_RESIDUAL,
                               section.data(), section.size(), count, plane.data(),
                               error);
    });
  }

 private:
  struct Destroy {
    void operator()(DqaCodec* codec) const { dqa_codec_destroy(codec); }
  };

  template <class Function>
  static void call(const Function& function) {
    DqaStatus status;
    DqaError error;
    {
      const nb::gil_scoped_release release;
      status = function(&error);
    }
    require(status, error);
  }

  size_t row_pixels(size_t values, size_t rows) const {
    if (rows < 1 || values < 1 || values % (rows * channels_) != 0) {
      throw nb::value_error(("values must be whole pixels of " +
                             std::to_string(channels_) + " channels in " +
                             std::to_string(rows) +
                             " rows. Received: " + std::to_string(values))
                                .c_str());
    }
    return values / rows / channels_;
  }

  std::unique_ptr<uint8_t[]> strip_scratch(int storage, size_t pixels) const {
    return std::unique_ptr<uint8_t[]>(new uint8_t[dqa_strip_scratch(
        codec_.get(), static_cast<DqaStorage>(storage), pixels)]);
  }

  size_t channels_;
  std::unique_ptr<DqaCodec, Destroy> codec_;
};

template <typename T>
nb::bytes as_bytes(const T* values, size_t count) {
  return nb::bytes(reinterpret_cast<const char*>(values), count * sizeof(T));
}

// One layer as a tuple: name, bits, extra_bits, sign, then shape (uint32), mask,
// scale (float32), residual_lengths and base_lengths as bytes.
nb::tuple as_tuple(const DqaLayer& layer) {
  const DqaTable& table = layer.table;
  return nb::make_tuple(as_bytes(layer.name, layer.name_size), table.bits,
                        table.extra_bits, table.sign, as_bytes(layer.shape, layer.rank),
                        as_bytes(table.mask, table.channels),
                        as_bytes(table.scale, table.channels),
                        as_bytes(table.residual_lengths, size_t{1} << table.extra_bits),
                        as_bytes(table.base_lengths, size_t{1} << table.bits));
}

// The reader of DQA_RESIDUAL as interpreters use it; tests hold it against Python's.
nb::list read_tables(const nb::bytes& data) {
  DqaTables* opened = nullptr;
  DqaError error;
  require(dqa_tables_open(static_cast<const uint8_t*>(data.data()), data.size(),
                          &opened, &error),
          error);
  const std::unique_ptr<DqaTables, decltype(&dqa_tables_close)> tables(
      opened, dqa_tables_close);
  nb::list layers;
  for (size_t i = 0; i < dqa_tables_count(tables.get()); ++i) {
    layers.append(as_tuple(*dqa_tables_layer(tables.get(), i)));
  }
  return layers;
}

}  // namespace

NB_MODULE(_codec, module) {
  module.def("read_tables", &read_tables, "data"_a);
  module.def("best_isa", [] { return kIsaNames[dqa_codec_isa(nullptr)]; });
  nb::class_<Codec>(module, "Codec")
      .def(nb::init<uint32_t, uint32_t, uint32_t, const Bytes&, const Floats&,
                    const Bytes&, const Bytes&, const std::string&>(),
           "bits"_a, "extra_bits"_a, "sign"_a, "mask"_a, "scale"_a,
           "residual_lengths"_a, "base_lengths"_a, "isa"_a)
      .def_prop_ro("isa", &Codec::isa)
      .def("pack", &Codec::pack, "values"_a, "storage"_a, "rows"_a, "strip_rows"_a,
           "threads"_a, "out"_a)
      .def("unpack", &Codec::unpack, "blob"_a, "rows"_a, "threads"_a, "values"_a)
      .def("pack_strip", &Codec::pack_strip, "values"_a, "storage"_a, "out"_a)
      .def("unpack_strip", &Codec::unpack_strip, "strip"_a, "storage"_a, "values"_a)
      .def("decode_blocks", &Codec::decode_blocks, "section"_a, "base"_a, "count"_a,
           "plane"_a);
}
