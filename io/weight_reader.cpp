// Byte ranges of weight planes by pread, verified block by block. SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstring>

#include "core/base/check.h"
#include "io/crc32c.h"
#include "io/model_file.h"
#include "io/model_layout.h"

namespace glm {
namespace {

// How far the disk works ahead of what is checked and copied, and what it is asked for at once: the
// system takes up less than 2 MiB of a request.
constexpr int64_t kAheadBytes = int64_t{16} << 20;
constexpr int64_t kAskBytes = int64_t{1} << 20;

}  // namespace

// One plane of a tensor: where its bytes lie and which checksums are its own.
struct WeightReader::PlaneView {
  std::string name;
  int64_t offset;
  int64_t bytes;
  int64_t first_block;
};

WeightReader::WeightReader(const ModelIndex& index, bool verify)
    : index_(index), verify_(verify), file_(index.path, ExitCode::kModelFile) {
  if (file_.size() != index.file_bytes)
    fail(ExitCode::kModelFile,
         "{}: {} bytes where its index describes a file of {}; it was replaced or truncated",
         escaped(index.path),
         file_.size(),
         index.file_bytes);
  if (manifest_digest(index, file_) != index.digest)
    fail(ExitCode::kModelFile,
         "{}: not the file that its index describes; it was replaced",
         escaped(index.path));
}

void WeightReader::read(const TensorEntry& entry, Plane plane, std::span<const Range> ranges) {
  const bool values = plane == Plane::kValues;
  const PlaneView view = {
      values ? entry.name : entry.name + std::string(kScalesSuffix),
      values ? entry.values_offset : entry.scales_offset,
      values ? entry.values_bytes : entry.scales_bytes,
      entry.first_block + (values ? 0 : block_count(entry.values_bytes, index_.block_bytes))};
  GLM_CHECK(
      view.first_block >= 0 && view.first_block + block_count(view.bytes, index_.block_bytes) <=
                                   static_cast<int64_t>(index_.checksums.size()),
      "{} is no tensor of this index",
      view.name);
  int64_t end = 0;
  int64_t wanted = 0;
  for (const Range& range : ranges) {
    GLM_CHECK(range.bytes >= 0 && range.offset >= end && range.offset <= view.bytes - range.bytes,
              "{}: range {} + {} after {} of {}",
              view.name,
              range.offset,
              range.bytes,
              end,
              view.bytes);
    end = range.offset + range.bytes;
    wanted += range.bytes;
  }
  if (wanted == 0) return;
  // Without the checks a part of the columns is not worth reading all of them.
  const bool dense = verify_ || 2 * wanted > end - ranges[0].offset;
  asked_ = view.offset + ranges[0].offset;
  asked_end_ = dense ? view.offset + end : 0;
  if (verify_) return read_verified(view, ranges);
  read_plain(view, ranges);
}

void WeightReader::ask_ahead(int64_t position) {
  const int64_t until = std::min(position + kAheadBytes, asked_end_);
  for (; asked_ < until; asked_ += kAskBytes) file_.will_need(asked_, kAskBytes);
}

void WeightReader::read_plain(const PlaneView& plane, std::span<const Range> ranges) {
  for (const Range& range : ranges) {
    for (int64_t done = 0; done < range.bytes; done += kAskBytes) {
      const int64_t bytes = std::min(kAskBytes, range.bytes - done);
      const int64_t position = plane.offset + range.offset + done;
      ask_ahead(position);
      file_.read(position, static_cast<char*>(range.destination) + done, bytes);
      bytes_read_ += bytes;
    }
  }
}

// Walks the blocks that the ranges touch. `next` is the first range that is not read to its end.
void WeightReader::read_verified(const PlaneView& plane, std::span<const Range> ranges) {
  const int64_t block_bytes = index_.block_bytes;
  size_t next = 0;
  int64_t block = 0;
  while (true) {
    while (next < ranges.size() && ranges[next].offset + ranges[next].bytes <= block * block_bytes)
      ++next;
    while (next < ranges.size() && ranges[next].bytes == 0) ++next;
    if (next == ranges.size()) return;
    block = std::max(block, ranges[next].offset / block_bytes);
    const int64_t begin = block * block_bytes;
    const int64_t bytes = std::min(block_bytes, plane.bytes - begin);
    const Range& first = ranges[next];
    const bool whole = first.offset <= begin && first.offset + first.bytes >= begin + bytes;
    if (!whole) block_.resize(static_cast<size_t>(block_bytes));
    char* const at =
        whole ? static_cast<char*>(first.destination) + (begin - first.offset) : block_.data();
    ask_ahead(plane.offset + begin);
    file_.read(plane.offset + begin, at, bytes);
    bytes_read_ += bytes;
    const uint32_t expected = index_.checksums[static_cast<size_t>(plane.first_block + block)];
    if (const uint32_t found = crc32c(0, at, static_cast<size_t>(bytes)); found != expected)
      fail(ExitCode::kModelFile,
           "{}: dataset {}: block {} (bytes {} to {} of the file) is damaged: checksum {:08x} "
           "where {:08x} is recorded; copy or convert the model again",
           escaped(index_.path),
           plane.name,
           block,
           plane.offset + begin,
           plane.offset + begin + bytes - 1,
           found,
           expected);
    for (size_t i = next; !whole && i < ranges.size() && ranges[i].offset < begin + bytes; ++i) {
      const int64_t from = std::max(ranges[i].offset, begin);
      const int64_t to = std::min(ranges[i].offset + ranges[i].bytes, begin + bytes);
      if (to > from)
        std::memcpy(static_cast<char*>(ranges[i].destination) + (from - ranges[i].offset),
                    at + (from - begin),
                    static_cast<size_t>(to - from));
    }
    ++block;
  }
}

}  // namespace glm
