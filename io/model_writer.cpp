// The model file is laid out by the HDF5 library before any weight is written; values then go to
// their offsets by pwrite while the library is closed, and it comes back once, to mark the file
// complete. SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/check.h"
#include "io/crc32c.h"
#include "io/hdf5_file.h"
#include "io/model_file.h"
#include "io/model_layout.h"

namespace glm {
namespace {

namespace fs = std::filesystem;

constexpr ExitCode kDisk = ExitCode::kResources;
constexpr hsize_t kAlignment = 65536;
constexpr hsize_t kAlignmentThreshold = 4096;

// Write descriptor of a path.
class Output {
 public:
  Output() = default;
  ~Output() { close(); }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  // Creates or empties the file. Throws Error(kUsage) when the path does not allow it.
  void create(const std::string& path) {
    path_ = path;
    fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd_ < 0)
      fail(errno == ENOSPC || errno == EDQUOT ? kDisk : ExitCode::kUsage,
           "{}: cannot write here: {}",
           escaped(path_),
           errno_text(errno));
  }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  // Claims the space of the whole file, so that a full disk shows at once. File systems that
  // cannot are left alone.
  void reserve(int64_t bytes) const {
    if (::fallocate(fd_, 0, 0, bytes) != 0 && (errno == ENOSPC || errno == EDQUOT))
      fail(kDisk, "{}: {} bytes are needed: {}", escaped(path_), bytes, errno_text(errno));
  }
  void write(int64_t offset, const void* data, int64_t bytes) const {
    constexpr int64_t kMaxCall = int64_t{1} << 30;
    for (int64_t done = 0; done < bytes;) {
      const ssize_t put = ::pwrite(fd_,
                                   static_cast<const char*>(data) + done,
                                   static_cast<size_t>(std::min(bytes - done, kMaxCall)),
                                   offset + done);
      if (put < 0 && errno == EINTR) continue;
      if (put <= 0) failed("cannot write", put < 0 ? errno : ENOSPC);
      done += put;
    }
  }
  void sync() const {
    if (::fsync(fd_) != 0) failed("cannot write to disk", errno);
  }
  int64_t size() const {
    struct stat info = {};
    if (::fstat(fd_, &info) != 0) failed("cannot stat", errno);
    return static_cast<int64_t>(info.st_size);
  }

 private:
  [[noreturn]] void failed(const char* what, int error) const {
    fail(kDisk, "{}: {}: {}", escaped(path_), what, errno_text(error));
  }
  std::string path_;
  int fd_ = -1;
};

void sync_folder(const fs::path& folder) {
  const int fd = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;  // a folder may be writable but not readable
  ::fsync(fd);         // some file systems cannot, and the file is whole all the same
  ::close(fd);
}

// A plane while it is being written.
struct Progress {
  int64_t offset = 0;  // of the plane in the file
  int64_t bytes = 0;
  int64_t written = 0;
  size_t first_block = 0;
  uint32_t crc = 0;  // of the block that is not full yet
};

// Numbers the blocks of all planes in the order of the index.
int64_t number_blocks(ModelIndex& index, std::map<std::string, Progress, std::less<>>& planes) {
  int64_t blocks = 0;
  std::ranges::sort(index.entries, {}, &TensorEntry::name);
  for (TensorEntry& entry : index.entries) {
    entry.first_block = blocks;
    planes.find(entry.name)->second.first_block = static_cast<size_t>(blocks);
    blocks += block_count(entry.values_bytes, index.block_bytes);
    if (entry.scales_bytes == 0) continue;
    planes.find(entry.name + std::string(kScalesSuffix))->second.first_block =
        static_cast<size_t>(blocks);
    blocks += block_count(entry.scales_bytes, index.block_bytes);
  }
  return blocks;
}

}  // namespace

struct ModelWriter::Impl {
  Impl(const fs::path& out, const std::vector<TensorShape>& tensors);
  ~Impl();

  void lay_out(const std::vector<TensorShape>& tensors);
  void fill_texts();
  void complete();

  Hdf5Handle group(const Hdf5Calls& calls, hid_t parent, const char* name) const;
  Hdf5Handle dataset(const Hdf5Calls& calls,
                     hid_t parent,
                     const std::string& name,
                     Element element,
                     std::span<const int64_t> dims) const;
  int64_t byte_dataset(const Hdf5Calls& calls, hid_t parent, const char* name, int64_t bytes) const;
  void weight_datasets(const Hdf5Calls& calls, hid_t root, const TensorShape& tensor);

  fs::path path;
  std::string partial;
  Output output;
  ModelIndex index;
  std::string text;  // of /index
  std::map<std::string, Progress, std::less<>> planes;
  std::vector<int64_t> text_offsets;  // as text_places()
  int64_t index_offset = 0;
  int64_t checksums_offset = 0;
  bool created = false;
  bool finished = false;
};

ModelWriter::Impl::Impl(const fs::path& out, const std::vector<TensorShape>& tensors)
    : path(out), partial(out.string() + ".partial") {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::exists(status) && !fs::is_regular_file(status))
    fail(ExitCode::kUsage, "{}: exists and is not a file", escaped(path.string()));
  GLM_CHECK(!tensors.empty(), "a model file without tensors");
  index.path = partial;
}

ModelWriter::Impl::~Impl() {
  output.close();
  if (created && !finished) ::unlink(partial.c_str());
}

Hdf5Handle ModelWriter::Impl::group(const Hdf5Calls& calls, hid_t parent, const char* name) const {
  const Hdf5Handle plan = calls.handle(H5Pcreate(H5P_GROUP_CREATE), H5Pclose, name);
  calls.check(H5Pset_obj_track_times(plan, false), name);
  return calls.handle(H5Gcreate2(parent, name, H5P_DEFAULT, plan, H5P_DEFAULT), H5Gclose, name);
}

Hdf5Handle ModelWriter::Impl::dataset(const Hdf5Calls& calls,
                                      hid_t parent,
                                      const std::string& name,
                                      Element element,
                                      std::span<const int64_t> dims) const {
  const std::vector<hsize_t> sizes(dims.begin(), dims.end());
  const Hdf5Handle plan = calls.handle(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, name);
  calls.check(H5Pset_layout(plan, H5D_CONTIGUOUS), name);
  calls.check(H5Pset_alloc_time(plan, H5D_ALLOC_TIME_EARLY), name);
  calls.check(H5Pset_fill_time(plan, H5D_FILL_TIME_NEVER), name);
  calls.check(H5Pset_obj_track_times(plan, false), name);
  const Hdf5Handle space = calls.handle(
      H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr), H5Sclose, name);
  const Hdf5Handle type = hdf5_type(calls, element);
  return calls.handle(H5Dcreate2(parent, name.c_str(), type, space, H5P_DEFAULT, plan, H5P_DEFAULT),
                      H5Dclose,
                      name);
}

// Returns the offset of its bytes in the file.
int64_t ModelWriter::Impl::byte_dataset(const Hdf5Calls& calls,
                                        hid_t parent,
                                        const char* name,
                                        int64_t bytes) const {
  const Hdf5Handle object = dataset(calls, parent, name, Element::kU8, std::array{bytes});
  return static_cast<int64_t>(H5Dget_offset(object));
}

void ModelWriter::Impl::weight_datasets(const Hdf5Calls& calls,
                                        hid_t root,
                                        const TensorShape& tensor) {
  TensorEntry entry;
  entry.name = tensor.name;
  entry.dtype = tensor.dtype;
  entry.packing = tensor.packing;
  entry.dims = tensor.dims;
  for (const PlaneLayout& plane : plane_layouts(
           tensor.name, tensor.dtype, tensor.packing, tensor.dims, partial, ExitCode::kRuntime)) {
    GLM_CHECK(!planes.contains(plane.name), "{} is announced twice", plane.name);
    const Hdf5Handle object = dataset(calls, root, plane.name, plane.element, plane.dims);
    write_text_attribute(calls, object, "dtype", dtype_name(tensor.dtype));
    write_text_attribute(calls, object, "packing", packing_name(tensor.packing));
    write_sizes_attribute(calls, object, "dims", tensor.dims);
    const bool values = plane.name == tensor.name;
    int64_t& offset = values ? entry.values_offset : entry.scales_offset;
    offset = static_cast<int64_t>(H5Dget_offset(object));
    (values ? entry.values_bytes : entry.scales_bytes) = plane.bytes;
    planes[plane.name] = {offset, plane.bytes, 0, 0, 0};
  }
  index.entries.push_back(std::move(entry));
}

void ModelWriter::Impl::lay_out(const std::vector<TensorShape>& tensors) {
  output.create(partial);
  created = true;
  const Hdf5Calls calls(partial, kDisk);
  const Hdf5Handle access = hdf5_access(calls);
  calls.check(H5Pset_alignment(access, kAlignmentThreshold, kAlignment), "alignment");
  const Hdf5Handle plan = calls.handle(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "file");
  calls.check(H5Pset_obj_track_times(plan, false), "file");
  Hdf5Handle file =
      calls.handle(H5Fcreate(partial.c_str(), H5F_ACC_TRUNC, plan, access), H5Fclose, "create");
  {
    const Hdf5Handle root = calls.handle(H5Gopen2(file, "/", H5P_DEFAULT), H5Gclose, "/");
    write_text_attribute(calls, root, kFormatAttribute, kModelFormat);
    write_text_attribute(
        calls, root, kSchemaAttribute, fmt::format("{}.{}", kSchemaMajor, kSchemaMinor));
    write_text_attribute(calls, root, kArchitectureAttribute, index.architecture);
    write_text_attribute(calls, root, kConverterAttribute, index.converter_version);
    write_text_attribute(calls, root, kSourceAttribute, index.source_fingerprint);
    create_u32_attribute(calls, root, kChecksumAttribute, 0);
    create_u32_attribute(calls, root, kCompleteAttribute, 0);
    std::map<std::string, Hdf5Handle> groups;
    for (const TextPlace& place : text_places()) {
      const std::string& content = index.texts.*place.member;
      text_offsets.push_back(0);
      if (content.empty()) continue;
      if (!groups.contains(place.group)) groups[place.group] = group(calls, root, place.group);
      text_offsets.back() = byte_dataset(
          calls, groups[place.group], place.name, static_cast<int64_t>(content.size()));
    }
    const Hdf5Handle weights = group(calls, root, kWeightsGroup);
    for (const TensorShape& tensor : tensors) weight_datasets(calls, weights, tensor);
    const int64_t blocks = number_blocks(index, planes);
    index.checksums.assign(static_cast<size_t>(blocks), 0);
    text = index_text(index);
    index_offset = byte_dataset(calls, root, kIndexDataset, static_cast<int64_t>(text.size()));
    const Hdf5Handle checksums =
        dataset(calls, root, kChecksumsDataset, Element::kU32, std::array{blocks});
    checksums_offset = static_cast<int64_t>(H5Dget_offset(checksums));
  }
  calls.check(H5Fflush(file, H5F_SCOPE_GLOBAL), "write");
  calls.check(file.close(), "close");
  index.file_bytes = output.size();
  output.reserve(index.file_bytes);
}

void ModelWriter::Impl::fill_texts() {
  for (size_t i = 0; i < text_offsets.size(); ++i) {
    const std::string& content = index.texts.*text_places()[i].member;
    output.write(text_offsets[i], content.data(), static_cast<int64_t>(content.size()));
  }
  output.write(index_offset, text.data(), static_cast<int64_t>(text.size()));
}

void ModelWriter::Impl::complete() {
  output.write(checksums_offset,
               index.checksums.data(),
               static_cast<int64_t>(index.checksums.size() * sizeof(uint32_t)));
  output.sync();
  const Hdf5Calls calls(partial, kDisk);
  const Hdf5Handle access = hdf5_access(calls);
  Hdf5Handle file =
      calls.handle(H5Fopen(partial.c_str(), H5F_ACC_RDWR, access), H5Fclose, "open again");
  {
    const Hdf5Handle root = calls.handle(H5Gopen2(file, "/", H5P_DEFAULT), H5Gclose, "/");
    overwrite_u32_attribute(calls, root, kChecksumAttribute, index_checksum(index, text));
    calls.check(H5Fflush(file, H5F_SCOPE_GLOBAL), "write");
    overwrite_u32_attribute(calls, root, kCompleteAttribute, 1);
  }
  calls.check(H5Fflush(file, H5F_SCOPE_GLOBAL), "write");
  calls.check(file.close(), "close");
  output.sync();
}

ModelWriter::ModelWriter(const fs::path& path,
                         const std::string& architecture,
                         const ModelTexts& texts,
                         const std::string& source_fingerprint,
                         const std::vector<TensorShape>& tensors)
    : impl_(std::make_unique<Impl>(path, tensors)) {
  impl_->index.architecture = architecture;
  impl_->index.converter_version = "glm_convert " GLM_VERSION;
  impl_->index.source_fingerprint = source_fingerprint;
  impl_->index.texts = texts;
  impl_->index.block_bytes = kBlockBytes;
  impl_->lay_out(tensors);
  impl_->fill_texts();
}

ModelWriter::~ModelWriter() = default;

void ModelWriter::write(const std::string& name,
                        WeightReader::Plane plane,
                        int64_t offset,
                        const void* data,
                        int64_t bytes) {
  const auto at = impl_->planes.find(
      plane == WeightReader::Plane::kValues ? name : name + std::string(kScalesSuffix));
  GLM_CHECK(at != impl_->planes.end(), "{} was not announced", escaped(name));
  Progress& progress = at->second;
  GLM_CHECK(offset == progress.written && bytes >= 0 && bytes <= progress.bytes - offset,
            "{}: bytes {} + {} after {} of {}",
            at->first,
            offset,
            bytes,
            progress.written,
            progress.bytes);
  impl_->output.write(progress.offset + offset, data, bytes);
  const int64_t block_bytes = impl_->index.block_bytes;
  const auto* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const int64_t n = std::min(bytes, block_bytes - progress.written % block_bytes);
    progress.crc = crc32c(progress.crc, from, static_cast<size_t>(n));
    const auto block = static_cast<size_t>(progress.written / block_bytes);
    from += n;
    bytes -= n;
    progress.written += n;
    if (progress.written % block_bytes == 0 || progress.written == progress.bytes)
      impl_->index.checksums[progress.first_block + block] = std::exchange(progress.crc, 0);
  }
}

void ModelWriter::finish() {
  for (const auto& [name, progress] : impl_->planes)
    GLM_CHECK(progress.written == progress.bytes,
              "{}: {} of {} bytes were written",
              name,
              progress.written,
              progress.bytes);
  impl_->complete();
  // What a reader will say is known before the file takes its name.
  static_cast<void>(read_model_index(impl_->partial));
  if (::rename(impl_->partial.c_str(), impl_->path.c_str()) != 0)
    fail(kDisk, "{}: cannot rename: {}", escaped(impl_->partial), errno_text(errno));
  impl_->finished = true;
  sync_folder(impl_->path.parent_path());
}

}  // namespace glm
