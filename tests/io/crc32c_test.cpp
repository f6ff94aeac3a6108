// CRC-32C against the values of RFC 3720 B.4, and the CPU's instruction against the tables.
// SPDX-License-Identifier: MIT
#include "io/crc32c.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace glm {
namespace {

TEST(Crc32c, KnownValues) {
  const std::string zeros(32, '\0');
  const std::string ones(32, '\xFF');
  std::string ascending(32, '\0');
  for (size_t i = 0; i < 32; ++i) ascending[i] = static_cast<char>(i);
  for (const auto crc : {crc32c, crc32c_portable}) {
    EXPECT_EQ(crc(0, "", 0), 0u);
    EXPECT_EQ(crc(0, "123456789", 9), 0xE3069283u);
    EXPECT_EQ(crc(0, zeros.data(), 32), 0x8A9136AAu);
    EXPECT_EQ(crc(0, ones.data(), 32), 0x62A8AB43u);
    EXPECT_EQ(crc(0, ascending.data(), 32), 0x46DD794Eu);
  }
}

TEST(Crc32c, InstructionEqualsTablesForAllLengthsAndSplits) {
  std::vector<unsigned char> data(40000);
  uint32_t state = 12345;
  for (auto& byte : data) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<unsigned char>(state >> 24);
  }
  for (const size_t length : {0, 1, 7, 8, 9, 63, 4096, 12287, 12288, 12289, 24577, 39990})
    for (const size_t start : {0, 1, 3, 8}) {
      const uint32_t whole = crc32c_portable(0, data.data() + start, length);
      EXPECT_EQ(crc32c(0, data.data() + start, length), whole) << length << " from " << start;
      const size_t half = length / 3;
      const uint32_t first = crc32c(0, data.data() + start, half);
      EXPECT_EQ(crc32c(first, data.data() + start + half, length - half), whole) << length;
    }
}

}  // namespace
}  // namespace glm
