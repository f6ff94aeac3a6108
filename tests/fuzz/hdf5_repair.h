// Makes the checksums of a damaged HDF5 file right again, which whoever forges a file can do as
// well. SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "io/hdf5_walk.h"

namespace glm::fuzz {

// Of the groups in the corpus.
inline constexpr size_t kHeapWidth = 4;
inline constexpr size_t kHeapRows = 3;
inline constexpr size_t kRecord = 11;
inline constexpr size_t kPointer = 9;

inline void put(std::string& bytes, size_t at, uint64_t value, size_t width) {
  if (at + width <= bytes.size()) std::memcpy(&bytes[at], &value, width);
}

inline void seal(std::string& bytes, size_t begin, size_t end) {
  if (begin < end && end + 4 <= bytes.size())
    put(bytes, end, hdf5_checksum(std::string_view(bytes).substr(begin, end - begin)), 4);
}

inline uint64_t number(const std::string& bytes, size_t at, size_t width) {
  uint64_t value = 0;
  if (at + width <= bytes.size()) std::memcpy(&value, &bytes[at], width);
  return value;
}

// Object header of version 2: signature 4, version 1, flags 1, times, phase changes, size of the
// first chunk, messages, checksum.
inline void seal_header(std::string& bytes, size_t at) {
  const uint64_t flags = number(bytes, at + 5, 1);
  size_t start = at + 6 + ((flags & 0x20) != 0 ? 16 : 0) + ((flags & 0x10) != 0 ? 4 : 0);
  const size_t width = size_t{1} << (flags & 3);
  const uint64_t size = number(bytes, start, width);
  start += width;
  if (size > bytes.size()) return;
  seal(bytes, at, start + size);
  // Continuation messages (type 16) tell where the other chunks are and how long.
  for (size_t i = start; i + 20 <= std::min(start + size, bytes.size()); ++i)
    if (bytes[i] == 0x10 && number(bytes, i + 1, 2) == 16) {
      for (const size_t gap : {4, 6}) {
        const uint64_t chunk = number(bytes, i + gap, 8);
        const uint64_t length = number(bytes, i + gap + 8, 8);
        if (chunk < bytes.size() && length >= 8 && length <= bytes.size() - chunk)
          seal(bytes, chunk, chunk + length - 4);
      }
    }
}

// Block of a heap: signature 4, version 1, heap 8, offset 4, checksum 4, objects. The offset tells
// the size: blocks come in rows of four, the first two rows have 512 bytes, each further one twice
// those of the row before.
inline void seal_heap_block(std::string& bytes, size_t at) {
  const uint64_t offset = number(bytes, at + 13, 4);
  const size_t size = size_t{512} << (offset < 4096 ? 0 : std::bit_width(offset / 4096));
  if (at + size > bytes.size()) return;
  put(bytes, at + 17, 0, 4);
  put(bytes, at + 17, hdf5_checksum(std::string_view(bytes).substr(at, size)), 4);
}

// Node of a B-tree: signature 4, version 1, type 1, records, for inner nodes pointers of 9 bytes.
// How many records is known to the node above only; behind them come zeros.
inline void seal_node(std::string& bytes, size_t at, size_t record, size_t pointer) {
  for (size_t records = 1; records < 60; ++records) {
    const size_t end = at + 6 + records * record + (pointer == 0 ? 0 : (records + 1) * pointer);
    if (number(bytes, end + 4, 8) != 0) continue;
    seal(bytes, at, end);
    return;
  }
}

inline void repair_hdf5(std::string& bytes) {
  if (bytes.size() < 48) return;
  put(bytes, 28, bytes.size(), 8);
  seal(bytes, 0, 44);
  for (size_t at = 0; at + 8 < bytes.size(); ++at) {
    if (bytes[at] != 'O' && bytes[at] != 'F' && bytes[at] != 'B') continue;
    const std::string_view name = std::string_view(bytes).substr(at, 4);
    if (name == "OHDR") seal_header(bytes, at);
    if (name == "FRHP") seal(bytes, at, at + 142);
    if (name == "FHDB") seal_heap_block(bytes, at);
    if (name == "FHIB") seal(bytes, at, at + 17 + 8 * kHeapWidth * kHeapRows);
    if (name == "BTHD") seal(bytes, at, at + 34);
    if (name == "BTLF") seal_node(bytes, at, kRecord, 0);
    if (name == "BTIN") seal_node(bytes, at, kRecord, kPointer);
  }
}

}  // namespace glm::fuzz
