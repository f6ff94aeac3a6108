// The model file is laid out by the HDF5 library before any weight is written; values then go to
// their offsets by pwrite while the library is closed, and it comes back once, to mark the file
// complete. A killed writer leaves OUT.h5.partial, whose checksums say how far it came, and
// OUT.h5.partial.job, which says of what conversion it is. SPDX-License-Identifier: MIT
#include <algorithm>
#include <future>
#include <map>
#include <utility>

#include <unistd.h>

#include "core/base/check.h"
#include "io/crc32c.h"
#include "io/json.h"
#include "io/model_file.h"
#include "io/model_layout.h"
#include "io/model_skeleton.h"
#include "io/output_file.h"
#include "io/sha256.h"

namespace glm {
namespace {

namespace fs = std::filesystem;

// A plane while it is being written.
struct Progress {
  int64_t offset = 0;  // of the plane in the file
  int64_t bytes = 0;
  int64_t written = 0;
  size_t first_block = 0;
  uint32_t crc = 0;  // of the block that is not full yet
};

}  // namespace

struct ModelWriter::Impl {
  Impl(const fs::path& out, const std::vector<TensorShape>& tensors);
  ~Impl();

  void start(const std::vector<TensorShape>& tensors, const WriteJob& job);
  bool take_up(const std::vector<TensorShape>& tensors, const std::string& stamp);
  std::string job_text(const std::string& stamp) const;
  void heal(const std::string& layout) const;
  void fill_texts() const;
  Progress& progress_of(const std::string& name, WeightReader::Plane plane);
  uint32_t block_checksum(const Progress& plane, int64_t begin, int64_t end);
  void write_checksums(size_t first, size_t count) const;
  std::string digest(const std::function<void(int64_t, int64_t)>& hashed) const;
  void write_manifest(const std::string& digest) const;

  fs::path path;
  std::string partial;
  std::string job_path;
  std::string layout_path;    // a second skeleton, while the first is being healed
  std::string manifest_part;  // the manifest until it is whole
  OutputFile output;
  ModelIndex index;
  Skeleton skeleton;
  std::map<std::string, Progress, std::less<>> planes;
  std::vector<uint32_t> recorded;  // checksums that a killed writer left
  std::vector<char> buffer;        // a block that is read back
  bool created = false;
  bool finished = false;
};

ModelWriter::Impl::Impl(const fs::path& out, const std::vector<TensorShape>& tensors)
    : path(out),
      partial(out.string() + ".partial"),
      job_path(partial + ".job"),
      layout_path(partial + ".layout"),
      manifest_part(manifest_path(out).string() + ".partial") {
  for (const fs::path& name : {path, manifest_path(path)}) {
    std::error_code error;
    const fs::file_status status = fs::status(name, error);
    if (fs::exists(status) && !fs::is_regular_file(status))
      fail(ExitCode::kUsage, "{}: exists and is not a file", escaped(name.string()));
  }
  GLM_CHECK(!tensors.empty(), "a model file without tensors");
  index.path = partial;
}

ModelWriter::Impl::~Impl() {
  output.close();
  if (!created || finished) return;
  for (const std::string* name : {&partial, &job_path, &layout_path, &manifest_part})
    ::unlink(name->c_str());
}

void ModelWriter::Impl::start(const std::vector<TensorShape>& tensors, const WriteJob& job) {
  if (!job.resume || !take_up(tensors, job.stamp)) {
    ::unlink(job_path.c_str());  // what it describes ends here
    output.create(partial);
    created = true;
    skeleton = write_skeleton(partial, tensors, index);
    output.reserve(index.file_bytes);
    fill_texts();
    const std::string text = job_text(job.stamp);
    OutputFile file;
    file.create(job_path);
    file.write(0, text.data(), static_cast<int64_t>(text.size()));
  }
  for (const Skeleton::Plane& plane : skeleton.planes)
    planes[plane.name] = {
        plane.offset, plane.bytes, 0, static_cast<size_t>(plane.first_block), uint32_t{0}};
}

// Opens what a killed writer of the same conversion left; false when there is nothing of the kind.
bool ModelWriter::Impl::take_up(const std::vector<TensorShape>& tensors, const std::string& stamp) {
  std::error_code error;
  if (!fs::is_regular_file(job_path, error) || !output.open_existing(partial)) return false;
  created = true;
  OutputFile().create(layout_path);
  skeleton = write_skeleton(layout_path, tensors, index);
  constexpr int64_t kMaxJobBytes = int64_t{1} << 20;
  const bool same = read_file(job_path, kMaxJobBytes, ExitCode::kResources) == job_text(stamp) &&
                    output.size() == index.file_bytes;
  if (same) {
    recorded.resize(index.checksums.size());
    output.read(skeleton.checksums_offset,
                recorded.data(),
                static_cast<int64_t>(recorded.size() * sizeof(uint32_t)));
    heal(layout_path);
    fill_texts();
  }
  ::unlink(layout_path.c_str());
  return same;
}

// What decides the bytes of the file, as far as it can be known without reading the weights.
std::string ModelWriter::Impl::job_text(const std::string& stamp) const {
  Sha256 hash;
  const auto add = [&hash](const std::string& text) {
    const uint64_t length = text.size();
    hash.update(&length, sizeof length);
    hash.update(text.data(), text.size());
  };
  for (const std::string* text :
       {&index.architecture, &index.converter_version, &index.source_fingerprint})
    add(*text);
  for (const TextPlace& place : text_places()) add(index.texts.*place.member);
  add(skeleton.index_text);
  add(stamp);
  return fmt::format("{} {}\n", index.converter_version, hash.hex());
}

// A writer that is killed while HDF5 has the file open leaves its metadata in any state. They are
// all that lies between the planes, texts and checksums apart, which are written anew.
void ModelWriter::Impl::heal(const std::string& layout) const {
  const RawFile source(layout, ExitCode::kResources);
  std::vector<char> bytes;
  const auto copy = [&](int64_t begin, int64_t end) {
    constexpr int64_t kPiece = int64_t{1} << 20;
    for (; begin < end; begin += kPiece) {
      bytes.resize(static_cast<size_t>(std::min(kPiece, end - begin)));
      source.read(begin, bytes.data(), static_cast<int64_t>(bytes.size()));
      output.write(begin, bytes.data(), static_cast<int64_t>(bytes.size()));
    }
  };
  std::map<int64_t, int64_t> kept;  // begin to end
  for (const Skeleton::Plane& plane : skeleton.planes)
    kept[plane.offset] = plane.offset + plane.bytes;
  kept[skeleton.checksums_offset] =
      skeleton.checksums_offset + static_cast<int64_t>(recorded.size() * sizeof(uint32_t));
  int64_t at = 0;
  for (const auto& [begin, end] : kept) {
    copy(at, begin);
    at = end;
  }
  copy(at, index.file_bytes);
}

void ModelWriter::Impl::fill_texts() const {
  for (size_t i = 0; i < skeleton.text_offsets.size(); ++i) {
    const std::string& content = index.texts.*text_places()[i].member;
    output.write(skeleton.text_offsets[i], content.data(), static_cast<int64_t>(content.size()));
  }
  output.write(skeleton.index_offset,
               skeleton.index_text.data(),
               static_cast<int64_t>(skeleton.index_text.size()));
}

Progress& ModelWriter::Impl::progress_of(const std::string& name, WeightReader::Plane plane) {
  const auto at =
      planes.find(plane == WeightReader::Plane::kValues ? name : name + std::string(kScalesSuffix));
  GLM_CHECK(at != planes.end(), "{} was not announced", escaped(name));
  return at->second;
}

// Of bytes [begin, end) of a plane, read back.
uint32_t ModelWriter::Impl::block_checksum(const Progress& plane, int64_t begin, int64_t end) {
  buffer.resize(static_cast<size_t>(index.block_bytes));
  output.read(plane.offset + begin, buffer.data(), end - begin);
  return crc32c(0, buffer.data(), static_cast<size_t>(end - begin));
}

void ModelWriter::Impl::write_checksums(size_t first, size_t count) const {
  output.write(skeleton.checksums_offset + static_cast<int64_t>(first * sizeof(uint32_t)),
               index.checksums.data() + first,
               static_cast<int64_t>(count * sizeof(uint32_t)));
}

std::string ModelWriter::Impl::digest(const std::function<void(int64_t, int64_t)>& hashed) const {
  constexpr int64_t kPiece = int64_t{4} << 20;
  std::vector<char> bytes(static_cast<size_t>(kPiece));
  Sha256 hash;
  for (int64_t at = 0; at < index.file_bytes; at += kPiece) {
    const int64_t n = std::min(kPiece, index.file_bytes - at);
    output.read(at, bytes.data(), n);
    hash.update(bytes.data(), static_cast<size_t>(n));
    if (hashed) hashed(at + n, index.file_bytes);
  }
  return hash.hex();
}

void ModelWriter::Impl::write_manifest(const std::string& digest) const {
  const std::string line = manifest_line(digest, path.filename().string());
  OutputFile file;
  file.create(manifest_part);
  file.write(0, line.data(), static_cast<int64_t>(line.size()));
  file.sync();
}

ModelWriter::ModelWriter(const fs::path& path,
                         const std::string& architecture,
                         const ModelTexts& texts,
                         const std::string& source_fingerprint,
                         const std::vector<TensorShape>& tensors,
                         const WriteJob& job)
    : impl_(std::make_unique<Impl>(path, tensors)) {
  impl_->index.architecture = architecture;
  impl_->index.converter_version = "glm_convert " GLM_VERSION;
  impl_->index.source_fingerprint = source_fingerprint;
  impl_->index.texts = texts;
  impl_->index.block_bytes = kBlockBytes;
  impl_->start(tensors, job);
}

ModelWriter::~ModelWriter() = default;

bool ModelWriter::resumed() const { return !impl_->recorded.empty(); }

int64_t ModelWriter::intact_bytes(const std::string& name, WeightReader::Plane plane) {
  if (!resumed()) return 0;
  const Progress& progress = impl_->progress_of(name, plane);
  const int64_t block_bytes = impl_->index.block_bytes;
  size_t block = progress.first_block;
  for (int64_t begin = 0; begin < progress.bytes; begin += block_bytes, ++block) {
    const int64_t end = std::min(begin + block_bytes, progress.bytes);
    // A block that was not written has the checksum 0.
    if (impl_->recorded[block] == 0 ||
        impl_->block_checksum(progress, begin, end) != impl_->recorded[block])
      return begin;
  }
  return progress.bytes;
}

void ModelWriter::skip(const std::string& name, WeightReader::Plane plane, int64_t offset) {
  Progress& progress = impl_->progress_of(name, plane);
  GLM_CHECK(progress.written == 0 && offset >= 0 && offset <= progress.bytes && resumed(),
            "{}: {} of {} bytes are skipped",
            escaped(name),
            offset,
            progress.bytes);
  const int64_t block_bytes = impl_->index.block_bytes;
  const auto whole = static_cast<size_t>(offset == progress.bytes ? block_count(offset, block_bytes)
                                                                  : offset / block_bytes);
  for (size_t block = progress.first_block; block < progress.first_block + whole; ++block)
    impl_->index.checksums[block] = impl_->recorded[block];
  progress.written = offset;
  const int64_t begin = offset / block_bytes * block_bytes;
  if (offset < progress.bytes && begin < offset)
    progress.crc = impl_->block_checksum(progress, begin, offset);
}

void ModelWriter::write(const std::string& name,
                        WeightReader::Plane plane,
                        int64_t offset,
                        const void* data,
                        int64_t bytes) {
  Progress& progress = impl_->progress_of(name, plane);
  GLM_CHECK(offset == progress.written && bytes >= 0 && bytes <= progress.bytes - offset,
            "{}: bytes {} + {} after {} of {}",
            escaped(name),
            offset,
            bytes,
            progress.written,
            progress.bytes);
  impl_->output.write(progress.offset + offset, data, bytes);
  const int64_t block_bytes = impl_->index.block_bytes;
  const size_t first = progress.first_block + static_cast<size_t>(offset / block_bytes);
  size_t ended = 0;
  const auto* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const int64_t n = std::min(bytes, block_bytes - progress.written % block_bytes);
    progress.crc = crc32c(progress.crc, from, static_cast<size_t>(n));
    const auto block = static_cast<size_t>(progress.written / block_bytes);
    from += n;
    bytes -= n;
    progress.written += n;
    if (progress.written % block_bytes != 0 && progress.written != progress.bytes) continue;
    impl_->index.checksums[progress.first_block + block] = std::exchange(progress.crc, 0);
    ++ended;
  }
  impl_->write_checksums(first, ended);
}

void ModelWriter::finish(const std::function<void(int64_t, int64_t)>& hashed) {
  for (const auto& [name, progress] : impl_->planes)
    GLM_CHECK(progress.written == progress.bytes,
              "{}: {} of {} bytes were written",
              name,
              progress.written,
              progress.bytes);
  impl_->write_checksums(0, impl_->index.checksums.size());
  seal_model_file(impl_->partial, impl_->index, impl_->skeleton.index_text);
  // What a reader will say is known before the file takes its name.
  static_cast<void>(read_model_index(impl_->partial));
  std::future<void> synced = std::async(std::launch::async, [this] { impl_->output.sync(); });
  impl_->write_manifest(impl_->digest(hashed));
  synced.get();
  // In this order a kill leaves nothing that --resume cannot finish.
  rename_file(impl_->manifest_part, manifest_path(impl_->path));
  rename_file(impl_->partial, impl_->path);
  impl_->finished = true;
  ::unlink(impl_->job_path.c_str());
  sync_folder(impl_->path.parent_path());
}

}  // namespace glm
