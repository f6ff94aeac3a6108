// Links of large groups: a fractal heap holds them, a B-tree of version 2 has their names' hashes
// in order. The parameters are those that the HDF5 library itself gives to groups, and no others
// are taken. SPDX-License-Identifier: MIT
#include <array>
#include <bit>
#include <cstring>
#include <map>
#include <vector>

#include "io/hdf5_walk.h"

namespace glm {
namespace {

constexpr uint64_t kHeaderBytes = 142;         // of a heap, without the checksum
constexpr uint64_t kWidth = 4;                 // blocks in a row of the heap's table
constexpr uint64_t kFirstBlock = 512;          // bytes of the blocks in rows 0 and 1
constexpr uint64_t kMostDirect = 65536;        // bytes of the largest blocks with objects
constexpr uint64_t kDirectRows = 9;            // rows of such blocks
constexpr uint64_t kMostRows = 22;             // 32 bits of heap space
constexpr uint64_t kBlockHead = 21;            // of a block with objects, its checksum included
constexpr uint64_t kMostHeapBytes = 64 << 20;  // kept in memory
constexpr uint64_t kNodeBytes = 512;
constexpr uint64_t kRecordBytes = 11;   // hash 4, heap id 7
constexpr uint64_t kNodeOverhead = 10;  // signature 4, version 1, type 1, checksum 4
constexpr uint64_t kLeafRecords = (kNodeBytes - kNodeOverhead) / kRecordBytes;
constexpr uint64_t kMostDepth = 4;
constexpr uint64_t kLinkNames = 5;  // type of the B-tree

uint64_t row_bytes(uint64_t row) { return row < 2 ? kFirstBlock : kFirstBlock << (row - 1); }

// Bytes that hold numbers up to `limit`.
uint64_t width_of(uint64_t limit) {
  return (static_cast<uint64_t>(std::bit_width(limit)) - 1) / 8 + 1;
}

class Heap {
 public:
  Heap(Hdf5Bytes& file, uint64_t at) : file_(file), at_(at) {
    file_.claim(at);
    const std::string bytes = file_.sealed(at, kHeaderBytes, "FRHP");
    Hdf5Cursor header(file_, bytes, fmt::format("heap at byte {}", at));
    header.take(4);
    header.expect(1, 0, "version");
    header.expect(2, 7, "bytes of an id");
    header.expect(2, 0, "filters");
    header.expect(1, 2, "flags");
    header.expect(4, 4096, "largest object");
    header.take(8);
    header.expect(8, kHdf5Undefined, "huge objects");
    header.take(9 * 8);
    header.expect(8, 0, "number of tiny objects");
    header.expect(2, kWidth, "width");
    header.expect(8, kFirstBlock, "first block");
    header.expect(8, kMostDirect, "largest block");
    header.expect(2, 32, "bits of an offset");
    header.take(2);
    const uint64_t root = header.number(8);
    const uint64_t rows = header.number(2);
    if (root == kHdf5Undefined) return;
    if (rows == 0) {
      direct(root, 0, kFirstBlock);
    } else {
      indirect(root, 0, rows);
    }
  }

  // The object with this id.
  std::string_view object(std::string_view id) const {
    Hdf5Cursor cursor(file_, id, fmt::format("heap at byte {}", at_));
    cursor.expect(1, 0, "kind of id");
    const uint64_t offset = cursor.number(4);
    const uint64_t bytes = cursor.number(2);
    auto block = blocks_.upper_bound(offset);
    if (block == blocks_.begin()) cursor.reject("an object is outside its blocks");
    --block;
    const uint64_t inside = offset - block->first;
    if (inside < kBlockHead || inside > block->second.size() ||
        bytes > block->second.size() - inside)
      cursor.reject("an object is outside its blocks");
    return std::string_view(block->second).substr(inside, bytes);
  }

 private:
  Hdf5Cursor head(const std::string& bytes, uint64_t at, uint64_t offset) const {
    Hdf5Cursor cursor(file_, bytes, fmt::format("heap block at byte {}", at));
    cursor.take(4);
    cursor.expect(1, 0, "version");
    cursor.expect(8, at_, "heap");
    cursor.expect(4, offset, "offset");
    return cursor;
  }

  // A block with objects. Its checksum lies within and counts as 0.
  void direct(uint64_t at, uint64_t offset, uint64_t bytes) {
    file_.claim(at);
    held_ += bytes;
    if (held_ > kMostHeapBytes)
      file_.reject("the links of a group take more than {} bytes", kMostHeapBytes);
    std::string block = file_.block(at, bytes);
    Hdf5Cursor cursor = head(block, at, offset);
    if (!block.starts_with("FHDB")) cursor.reject("no signature FHDB");
    const uint64_t found = cursor.number(4);
    std::memset(&block[kBlockHead - 4], 0, 4);
    if (found != hdf5_checksum(block)) cursor.reject("wrong checksum");
    blocks_.emplace(offset, std::move(block));
  }

  void indirect(uint64_t at, uint64_t offset, uint64_t rows) {
    if (rows == 0 || rows > kMostRows) file_.reject("heap block at byte {}: {} rows", at, rows);
    file_.claim(at);
    const std::string bytes = file_.sealed(at, 17 + rows * kWidth * 8, "FHIB");
    Hdf5Cursor cursor = head(bytes, at, offset);
    for (uint64_t row = 0; row < rows; ++row)
      for (uint64_t column = 0; column < kWidth; ++column) {
        const uint64_t child = cursor.number(8);
        const uint64_t size = row_bytes(row);
        if (child != kHdf5Undefined && row < kDirectRows) direct(child, offset, size);
        // The rows of a block of blocks cover exactly its bytes.
        if (child != kHdf5Undefined && row >= kDirectRows)
          indirect(
              child, offset, static_cast<uint64_t>(std::bit_width(size / (kWidth * kFirstBlock))));
        offset += size;
      }
  }

  Hdf5Bytes& file_;
  uint64_t at_;
  uint64_t held_ = 0;
  std::map<uint64_t, std::string> blocks_;  // by offset in the heap
};

class Tree {
 public:
  Tree(Hdf5Bytes& file, const Heap& heap, const std::function<void(std::string_view)>& link)
      : file_(file), heap_(heap), link_(link) {
    most_[0] = all_[0] = kLeafRecords;
    pointer_[0] = 0;
    for (size_t level = 1; level <= kMostDepth; ++level) {
      const uint64_t below = level > 1 ? width_of(all_[level - 1]) : 0;
      pointer_[level] = 8 + width_of(kLeafRecords) + below;
      most_[level] =
          (kNodeBytes - kNodeOverhead - pointer_[level]) / (kRecordBytes + pointer_[level]);
      all_[level] = (most_[level] + 1) * all_[level - 1] + most_[level];
    }
  }

  void walk(uint64_t at) {
    file_.claim(at);
    const std::string bytes = file_.sealed(at, 34, "BTHD");
    Hdf5Cursor header(file_, bytes, fmt::format("B-tree at byte {}", at));
    header.take(4);
    header.expect(1, 0, "version");
    header.expect(1, kLinkNames, "type");
    header.expect(4, kNodeBytes, "bytes of a node");
    header.expect(2, kRecordBytes, "bytes of a record");
    const uint64_t depth = header.number(2);
    header.expect(1, 100, "split");
    header.expect(1, 40, "merge");
    const uint64_t root = header.number(8);
    const uint64_t records = header.number(2);
    const uint64_t all = header.number(8);
    if (depth > kMostDepth) header.reject("it is too deep");
    if (root != kHdf5Undefined) node(root, depth, records);
    if (walked_ != all) header.reject("it has another number of records than it says");
  }

 private:
  void node(uint64_t at, uint64_t level, uint64_t records) {
    const bool leaf = level == 0;
    if (records == 0 || records > most_[level])
      file_.reject("B-tree node at byte {}: {} records", at, records);
    file_.claim(at);
    const uint64_t pointers = leaf ? 0 : (records + 1) * pointer_[level];
    const std::string bytes =
        file_.sealed(at, 6 + records * kRecordBytes + pointers, leaf ? "BTLF" : "BTIN");
    Hdf5Cursor cursor(file_, bytes, fmt::format("B-tree node at byte {}", at));
    cursor.take(4);
    cursor.expect(1, 0, "version");
    cursor.expect(1, kLinkNames, "type");
    walked_ += records;
    for (uint64_t i = 0; i < records; ++i) {
      cursor.take(4);
      link_(heap_.object(cursor.take(7)));
    }
    for (uint64_t i = 0; !leaf && i <= records; ++i) {
      const uint64_t child = cursor.number(8);
      const uint64_t children = cursor.number(width_of(kLeafRecords));
      cursor.take(pointer_[level] - 8 - width_of(kLeafRecords));
      node(child, level - 1, children);
    }
  }

  Hdf5Bytes& file_;
  const Heap& heap_;
  const std::function<void(std::string_view)>& link_;
  std::array<uint64_t, kMostDepth + 1> most_ = {};  // records of a node, by level from the leaves
  std::array<uint64_t, kMostDepth + 1> all_ = {};   // and of all below it
  std::array<uint64_t, kMostDepth + 1> pointer_ = {};  // bytes of a pointer to a child
  uint64_t walked_ = 0;
};

}  // namespace

void walk_dense_links(Hdf5Bytes& file,
                      uint64_t heap,
                      uint64_t tree,
                      const std::function<void(std::string_view)>& link) {
  const Heap objects(file, heap);
  Tree(file, objects, link).walk(tree);
}

}  // namespace glm
