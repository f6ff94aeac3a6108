// CRC-32C by tables, and by the SSE4.2 instruction on three streams at once: its latency is three
// cycles, its throughput one per cycle. SPDX-License-Identifier: MIT
#include "io/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace glm {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78u;  // bits reversed

// kTables[k][b]: the register after byte b and k zero bytes.
using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables make_tables() {
  Tables tables = {};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) != 0 ? kPolynomial : 0u);
    tables[0][byte] = crc;
  }
  for (size_t k = 1; k < tables.size(); ++k)
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8) ^ tables[0][before & 0xFFu];
    }
  return tables;
}

constexpr Tables kTables = make_tables();

uint64_t load64(const unsigned char* at) {
  uint64_t word = 0;
  std::memcpy(&word, at, sizeof word);
  return word;
}

#if defined(__x86_64__)

constexpr size_t kStream = 4096;  // bytes of each of the three streams

// Advances the register over kStream zero bytes. The register is linear in its bits, so four tables
// of one byte each suffice.
class ZeroRun {
 public:
  ZeroRun() {
    std::array<uint32_t, 32> basis = {};
    for (size_t bit = 0; bit < basis.size(); ++bit) {
      uint32_t crc = uint32_t{1} << bit;
      for (size_t i = 0; i < kStream; ++i) crc = (crc >> 8) ^ kTables[0][crc & 0xFFu];
      basis[bit] = crc;
    }
    for (size_t lane = 0; lane < 4; ++lane)
      for (size_t byte = 0; byte < 256; ++byte)
        for (size_t bit = 0; bit < 8; ++bit)
          if ((byte >> bit & 1u) != 0) tables_[lane][byte] ^= basis[lane * 8 + bit];
  }
  uint32_t operator()(uint32_t crc) const {
    return tables_[0][crc & 0xFFu] ^ tables_[1][crc >> 8 & 0xFFu] ^ tables_[2][crc >> 16 & 0xFFu] ^
           tables_[3][crc >> 24];
  }

 private:
  std::array<std::array<uint32_t, 256>, 4> tables_ = {};
};

__attribute__((target("sse4.2"))) uint32_t crc32c_sse42(uint32_t crc,
                                                        const unsigned char* at,
                                                        size_t bytes) {
  static const ZeroRun zero_run;
  uint64_t a = ~crc;
  while (bytes >= 3 * kStream) {
    uint64_t b = 0;
    uint64_t c = 0;
    for (size_t i = 0; i < kStream; i += 8) {
      a = _mm_crc32_u64(a, load64(at + i));
      b = _mm_crc32_u64(b, load64(at + kStream + i));
      c = _mm_crc32_u64(c, load64(at + 2 * kStream + i));
    }
    a = zero_run(zero_run(static_cast<uint32_t>(a)) ^ static_cast<uint32_t>(b)) ^ c;
    at += 3 * kStream;
    bytes -= 3 * kStream;
  }
  for (; bytes >= 8; at += 8, bytes -= 8) a = _mm_crc32_u64(a, load64(at));
  auto last = static_cast<uint32_t>(a);
  for (; bytes > 0; ++at, --bytes) last = _mm_crc32_u8(last, *at);
  return ~last;
}

bool has_crc_instruction() { return __builtin_cpu_supports("sse4.2") != 0; }

#else

uint32_t crc32c_sse42(uint32_t crc, const unsigned char* at, size_t bytes) {
  return crc32c_portable(crc, at, bytes);
}

bool has_crc_instruction() { return false; }

#endif

}  // namespace

uint32_t crc32c_portable(uint32_t crc, const void* data, size_t bytes) {
  const auto* at = static_cast<const unsigned char*>(data);
  crc = ~crc;
  for (; bytes >= 8; at += 8, bytes -= 8) {
    const uint64_t word = load64(at) ^ crc;
    crc = 0;
    for (size_t i = 0; i < 8; ++i) crc ^= kTables[7 - i][word >> (8 * i) & 0xFFu];
  }
  for (; bytes > 0; ++at, --bytes) crc = (crc >> 8) ^ kTables[0][(crc ^ *at) & 0xFFu];
  return ~crc;
}

uint32_t crc32c(uint32_t crc, const void* data, size_t bytes) {
  static const bool instruction = has_crc_instruction();
  return instruction ? crc32c_sse42(crc, static_cast<const unsigned char*>(data), bytes)
                     : crc32c_portable(crc, data, bytes);
}

}  // namespace glm
