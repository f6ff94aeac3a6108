// SPDX-License-Identifier: MIT
#include "core/model/weight_planes.h"

#include <algorithm>
#include <atomic>
#include <future>

namespace glm {
namespace {

using Plane = WeightReader::Plane;

// One plane of a stored tensor as lines of whole columns: a row, or a row of tiles.
class PlaneLayout {
 public:
  PlaneLayout(const TensorSpec& spec, StoredType type, Plane plane)
      : type_(type),
        plane_(plane),
        line_rows_(type.packing == Packing::kTile16 ? kTileRows : 1),
        rows_(spec.dims.size() == 1 ? spec.dims[0] : spec.rows()),
        cols_(spec.dims.size() == 1 ? 1 : spec.cols()) {}

  // Bytes of `cols` columns of one line.
  int64_t line_bytes(int64_t cols) const {
    return plane_ == Plane::kValues ? value_bytes(type_.dtype, line_rows_, cols)
                                    : scale_bytes(type_.dtype, line_rows_, cols);
  }

  // The byte ranges of a slab, in the order of the local plane at `destination` (or null).
  std::vector<WeightReader::Range> ranges(const Slab& slab, char* destination) const {
    std::vector<WeightReader::Range> out;
    const int64_t length = line_bytes(slab.cols.size());
    if (length == 0) return out;
    const bool whole = slab.cols.size() == cols_;
    for (int64_t m = slab.matrices.begin; m < slab.matrices.end; ++m) {
      for (const Range& rows : slab.rows) {
        GLM_CHECK(rows.begin % line_rows_ == 0 && rows.end % line_rows_ == 0,
                  "slab rows [{}, {}) do not fall on tiles",
                  rows.begin,
                  rows.end);
        const int64_t first = (m * rows_ + rows.begin) / line_rows_;
        const int64_t lines = rows.size() / line_rows_;
        const int64_t start = first * line_bytes(cols_) + line_bytes(slab.cols.begin);
        const int64_t runs = whole ? (lines > 0 ? 1 : 0) : lines;
        for (int64_t i = 0; i < runs; ++i) {
          const int64_t bytes = whole ? lines * length : length;
          out.push_back({start + i * line_bytes(cols_), bytes, destination});
          if (destination != nullptr) destination += bytes;
        }
      }
    }
    return out;
  }

 private:
  StoredType type_;
  Plane plane_;
  int64_t line_rows_;
  int64_t rows_;
  int64_t cols_;
};

std::vector<WeightReader::Range> ranges_of(const PlaneRead& read, char* destination) {
  return PlaneLayout(*read.spec, read.type, read.plane).ranges(*read.slab, destination);
}

}  // namespace

PlaneReader::PlaneReader(const ModelIndex& index, bool verify, const LoadWork& work)
    : index_(index), between_(work.between) {
  for (int i = 0; i < work.threads; ++i)
    readers_.push_back(std::make_unique<WeightReader>(index, verify));
}

void PlaneReader::share_out(size_t count, const std::function<void(WeightReader&, size_t)>& work) {
  std::atomic<size_t> next{0};
  const auto run = [&](WeightReader& reader) {
    try {
      for (size_t i = next++; i < count; i = next++) {
        if (between_) between_();
        work(reader, i);
      }
    } catch (...) {
      next = count;  // the others need not go on
      throw;
    }
  };
  std::vector<std::future<void>> others;
  for (size_t i = 1; i < std::min(readers_.size(), count); ++i)
    others.push_back(std::async(std::launch::async, [&, i] { run(*readers_[i]); }));
  run(*readers_[0]);
  for (std::future<void>& other : others) other.get();
}

void PlaneReader::read(const std::vector<PlaneRead>& reads, Device& device) {
  device.is_host() ? to_host(reads) : to_device(reads, device);
}

void PlaneReader::read_piece(WeightReader& reader,
                             const PlaneRead& read,
                             const std::vector<Range>& ranges) {
  reader.read(*index_.find(read.spec->name), read.plane, ranges);
}

// The ranges of a plane are many: they are made when it is read.
void PlaneReader::to_host(const std::vector<PlaneRead>& reads) {
  share_out(reads.size(), [&](WeightReader& reader, size_t i) {
    read_piece(reader, reads[i], ranges_of(reads[i], reads[i].target.as<char>()));
  });
}

// Two stages in turns: one is read while the device copies the other.
void PlaneReader::to_device(const std::vector<PlaneRead>& reads, Device& device) {
  const Tensor stages = device.allocate_host(DType::kU8, {2 * kStageBytes});
  int64_t stage = 0, used = 0;
  std::vector<Piece> pieces;
  const auto flush = [&] {
    share_out(pieces.size(), [&](WeightReader& reader, size_t i) {
      read_piece(reader, *pieces[i].read, pieces[i].ranges);
    });
    device.wait();  // for the other stage
    for (const Piece& piece : pieces)
      device.copy(piece.target,
                  host_tensor(piece.ranges[0].destination, DType::kU8, {piece.target.bytes()}));
    pieces.clear();
    stage = 1 - stage;
    used = 0;
  };
  for (const PlaneRead& read : reads) {
    int64_t done = 0;
    for (Piece& piece : pieces_of(read)) {
      if (used + piece.bytes > kStageBytes) flush();
      piece.target = read.target.slice(done, piece.bytes);
      done += piece.bytes;
      char* at = stages.as<char>() + stage * kStageBytes + used;
      used += piece.bytes;
      for (Range& range : piece.ranges) {
        range.destination = at;
        at += range.bytes;
      }
      pieces.push_back(std::move(piece));
    }
  }
  flush();
  device.wait();
}

// The ranges of a plane in portions for one thread each. A range that is cut ends with a block of
// the file, which is read once then.
std::vector<PlaneReader::Piece> PlaneReader::pieces_of(const PlaneRead& read) const {
  std::vector<Piece> pieces;
  Piece piece{&read};
  const auto cut = [&] {
    if (piece.bytes > 0) pieces.push_back(std::move(piece));
    piece = {&read};
  };
  for (Range range : ranges_of(read, nullptr)) {
    while (range.bytes > 0) {
      int64_t bytes = std::min(range.bytes, kPieceBytes - piece.bytes);
      const int64_t end = (range.offset + bytes) / index_.block_bytes * index_.block_bytes;
      const bool whole = bytes == range.bytes;
      if (!whole && end > range.offset) bytes = end - range.offset;
      piece.ranges.push_back({range.offset, bytes, nullptr});
      piece.bytes += bytes;
      range.offset += bytes;
      range.bytes -= bytes;
      if (!whole || piece.bytes == kPieceBytes) cut();
    }
  }
  cut();
  return pieces;
}

int64_t PlaneReader::bytes_read() const {
  int64_t bytes = 0;
  for (const auto& reader : readers_) bytes += reader->bytes_read();
  return bytes;
}

}  // namespace glm
