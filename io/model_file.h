// The HDF5 model file (docs/file_format.md): written once by the converter, opened and judged by
// one rank, read by byte ranges on all ranks. Only io/ sees the HDF5 library; readers of weights
// use plain pread. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/dtype.h"
#include "io/raw_file.h"

namespace glm {

// Text that travels with the weights, byte for byte; an absent one is empty.
struct ModelTexts {
  std::string config;             // config.json
  std::string generation_config;  // generation_config.json
  std::string tokenizer;          // tokenizer.json
  std::string tokenizer_config;   // tokenizer_config.json
  std::string chat_template;  // chat_template.jinja, or the chat_template of tokenizer_config.json
};

// One row of /index.
struct TensorEntry {
  std::string name;
  DType dtype = DType::kF32;
  Packing packing = Packing::kRows;
  std::vector<int64_t> dims;  // [n] | [rows, cols] | [n_experts, rows, cols]
  int64_t values_offset = 0;  // absolute, in bytes
  int64_t values_bytes = 0;
  int64_t scales_offset = 0;  // quantised only
  int64_t scales_bytes = 0;
  int64_t first_block =
      0;  // index into ModelIndex::checksums of the value plane; the scale plane's blocks follow
};

// All that is known of a model file without its weights. Broadcast to all ranks as bytes.
struct ModelIndex {
  // Bytes of the file.
  struct Extent {
    int64_t offset = 0;
    int64_t bytes = 0;
  };

  std::string path;
  int64_t file_bytes = 0;
  std::vector<Extent> manifest;  // superblock, /index and /checksums
  std::string digest;            // manifest_digest() of the file that was judged
  std::string architecture;      // family name: "glm4_moe", ...
  std::string converter_version;
  std::string source_fingerprint;
  ModelTexts texts;
  int64_t block_bytes = int64_t{1} << 20;
  std::vector<TensorEntry> entries;  // sorted by name
  std::vector<uint32_t> checksums;   // crc32c of each block of each plane

  const TensorEntry* find(std::string_view name) const;
  std::string serialized() const;
  // Throws Error(kRuntime) when the bytes are not what serialized() wrote.
  static ModelIndex deserialized(std::string_view bytes);
};

// Opens, checks and closes the file: superblock, format version, complete flag, index checksum,
// layout limits (no links, filters, external or virtual storage; extents inside the file and
// disjoint), sizes that follow from dims and dtype. Throws Error(kUsage) when the path does not
// exist, Error(kModelFile) with path, dataset and reason otherwise.
ModelIndex read_model_index(const std::filesystem::path& path);

// Of the size of `file` and of the bytes that the manifest names in it: a file with other weights,
// or with the same ones at other places, gives another digest. Throws what RawFile::read throws.
std::string manifest_digest(const ModelIndex& index, const RawFile& file);

// Byte ranges of the planes of one file, verified block by block against the checksums. One per
// thread that reads.
class WeightReader {
 public:
  // `index` must outlive the reader. Throws Error(kModelFile) when the file cannot be opened or is
  // not the one the index describes (size, manifest).
  WeightReader(const ModelIndex& index, bool verify);
  WeightReader(const WeightReader&) = delete;
  WeightReader& operator=(const WeightReader&) = delete;

  enum class Plane { kValues, kScales };
  struct Range {
    int64_t offset;  // within the plane
    int64_t bytes;
    void* destination;
  };
  // Ranges ascending and disjoint. Reads each block once per call; throws Error(kModelFile) naming
  // dataset and block on a wrong checksum or a short read.
  void read(const TensorEntry& entry, Plane plane, std::span<const Range> ranges);

  // All bytes taken from the file so far, also those of blocks read only to be verified.
  int64_t bytes_read() const { return bytes_read_; }

 private:
  struct PlaneView;
  void read_plain(const PlaneView& plane, std::span<const Range> ranges);
  void read_verified(const PlaneView& plane, std::span<const Range> ranges);
  void ask_ahead(int64_t position);

  const ModelIndex& index_;
  bool verify_;
  RawFile file_;
  int64_t bytes_read_ = 0;
  int64_t asked_ = 0;        // of the file, for the plane that is being read
  int64_t asked_end_ = 0;    // where its ranges end
  std::vector<char> block_;  // a block of which only parts are wanted
};

// How a conversion that was killed is taken up again.
struct WriteJob {
  bool resume = false;
  // Whatever decides the numbers and is not in the other arguments (sizes and times of the source).
  std::string stamp;
};

// Writes OUT.h5.partial and, when it is whole, OUT.h5.sha256 for `sha256sum -c`, then renames. The
// destructor without finish() removes what was written; a kill leaves it for a writer with the same
// arguments and `resume`.
class ModelWriter {
 public:
  struct TensorShape {
    std::string name;
    DType dtype;
    Packing packing;
    std::vector<int64_t> dims;
  };
  // All tensors are announced first, so that offsets are known and the index is complete. Throws
  // Error(kUsage) when the output path is not writable, Error(kResources) when the disk is full.
  ModelWriter(const std::filesystem::path& path,
              const std::string& architecture,
              const ModelTexts& texts,
              const std::string& source_fingerprint,
              const std::vector<TensorShape>& tensors,
              const WriteJob& job = {});
  ~ModelWriter();
  ModelWriter(const ModelWriter&) = delete;
  ModelWriter& operator=(const ModelWriter&) = delete;

  // Something of the same job was there.
  bool resumed() const;
  // Bytes of a plane from its start that were written before; they are read and compared with their
  // checksums. Otherwise 0.
  int64_t intact_bytes(const std::string& name, WeightReader::Plane plane);
  // The first write of this plane will be at `offset`, which is at most its intact_bytes().
  void skip(const std::string& name, WeightReader::Plane plane, int64_t offset);

  // Bytes of a plane at `offset` within it. Checksums are updated; each plane must be written once,
  // in ascending order. One thread at a time.
  void write(const std::string& name,
             WeightReader::Plane plane,
             int64_t offset,
             const void* data,
             int64_t bytes);
  // Writes index and complete flag, hashes the file, fsyncs, renames. `hashed` is called with the
  // bytes that have been hashed and those of the file.
  void finish(const std::function<void(int64_t done, int64_t total)>& hashed = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace glm
