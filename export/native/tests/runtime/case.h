// A plan with inputs and outputs in a file: blocks of bytes, each behind its length in
// 8 bytes: the plan, the constants, the tables of layers, the numbers of inputs and
// outputs, then the inputs and the outputs. make_cases.py writes them.
#ifndef DQA_TESTS_CASE_H_
#define DQA_TESTS_CASE_H_

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <vector>

using Bytes = std::vector<uint8_t>;

struct Case {
  Bytes plan, constants, tables;
  std::vector<Bytes> inputs, outputs;
};

inline Bytes read_block(std::istream* in) {
  uint64_t size = 0;
  in->read(reinterpret_cast<char*>(&size), sizeof size);
  Bytes bytes(in->good() && size < (uint64_t{1} << 30) ? size : 0);
  in->read(reinterpret_cast<char*>(bytes.data()),
           static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

inline Case read_case(const char* path) {
  std::ifstream in(path, std::ios::binary);
  Case content;
  content.plan = read_block(&in);
  content.constants = read_block(&in);
  content.tables = read_block(&in);
  const Bytes counts = read_block(&in);
  if (!in.good() || counts.size() != 2) {
    std::fprintf(stderr, "%s: not a case\n", path);
    std::exit(2);
  }
  for (unsigned i = 0; i < counts[0]; ++i) content.inputs.push_back(read_block(&in));
  for (unsigned i = 0; i < counts[1]; ++i) content.outputs.push_back(read_block(&in));
  return content;
}

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

// Memory of exactly so many bytes: sanitizers see what lies behind.
inline std::unique_ptr<uint8_t, Free> aligned(size_t size) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, size) != 0) std::abort();
  std::memset(memory, 0xa5, size);
  return std::unique_ptr<uint8_t, Free>(static_cast<uint8_t*>(memory));
}

#endif  // DQA_TESTS_CASE_H_
