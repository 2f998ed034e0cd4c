// What the native tests share: CHECK, and the golden vectors' tables.
#ifndef DQA_TESTS_CHECKS_H_
#define DQA_TESTS_CHECKS_H_

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "dqa/codec.h"

using Bytes = std::vector<uint8_t>;

inline int checks = 0;

inline void check(bool holds, const char* what, const char* file, int line) {
  ++checks;
  if (holds) return;
  std::fprintf(stderr, "%s:%d: %s does not hold\n", file, line, what);
  std::exit(1);
}
#define CHECK(condition) check((condition), #condition, __FILE__, __LINE__)

// A table that owns its arrays.
struct Table {
  uint32_t bits = 4, extra_bits = 2, sign = 0;
  Bytes mask, residual_lengths, base_lengths;
  std::vector<float> scale;

  DqaTable view() const {
    return {bits,
            extra_bits,
            sign,
            static_cast<uint32_t>(mask.size()),
            mask.data(),
            scale.data(),
            residual_lengths.data(),
            base_lengths.data()};
  }
};

constexpr const char* kGoldenCases[] = {
    "blocks",      "eight_bits", "fallback",   "odd",     "one_bit",
    "one_channel", "saturated",  "seven_bits", "special", "tail",
    "typical",     "vector",     "zeros"};

inline Bytes read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  CHECK(file.good());
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

inline uint32_t as_number(const std::string& word) {
  return static_cast<uint32_t>(std::stoul(word));
}

using Fields = std::map<std::string, std::vector<std::string>>;

// The lines of a golden case's table.txt, by their first word.
inline Fields golden_fields(const std::string& folder) {
  std::ifstream text(folder + "/table.txt");
  CHECK(text.good());
  Fields fields;
  for (std::string line; std::getline(text, line);) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    fields[name] = {std::istream_iterator<std::string>(words), {}};
  }
  return fields;
}

inline Table golden_table(const Fields& fields) {
  Table table;
  table.bits = as_number(fields.at("bits")[0]);
  table.extra_bits = as_number(fields.at("extra_bits")[0]);
  table.sign = as_number(fields.at("signed")[0]);
  for (const auto& word : fields.at("mask")) table.mask.push_back(word == "1");
  for (const auto& word : fields.at("scale")) {
    const auto pattern = static_cast<uint32_t>(std::stoul(word, nullptr, 16));
    float scale;
    std::memcpy(&scale, &pattern, sizeof scale);
    table.scale.push_back(scale);
  }
  for (const auto& word : fields.at("residual_lengths")) {
    table.residual_lengths.push_back(static_cast<uint8_t>(as_number(word)));
  }
  for (const auto& word : fields.at("base_lengths")) {
    table.base_lengths.push_back(static_cast<uint8_t>(as_number(word)));
  }
  return table;
}

// In residual_table_test.cc.
void check_residual_tables(const std::string& golden);

#endif  // DQA_TESTS_CHECKS_H_
