// SPDX-License-Identifier: MIT
#include "io/run_record.h"

#include <algorithm>
#include <system_error>

#include "io/hdf5_file.h"

namespace glm {
namespace {

// Beyond so many values a table is compressed, in chunks of as many.
constexpr int64_t kChunkValues = int64_t{1} << 14;

std::string partial_name(const std::filesystem::path& path) { return path.string() + ".partial"; }

Hdf5Handle record_text_type(const Hdf5Calls& calls, size_t bytes) {
  Hdf5Handle type = calls.handle(H5Tcopy(H5T_C_S1), H5Tclose, "text type");
  calls.check(H5Tset_size(type, std::max<size_t>(bytes, 1)), "text type");
  calls.check(H5Tset_strpad(type, H5T_STR_NULLPAD), "text type");
  calls.check(H5Tset_cset(type, H5T_CSET_UTF8), "text type");
  return type;
}

}  // namespace

struct RunRecordFile::Impl {
  explicit Impl(const std::filesystem::path& target)
      : path(target),
        opening(target.string(), ExitCode::kUsage),
        writing(target.string(), ExitCode::kResources),
        file(opening.handle(
            H5Fcreate(
                partial_name(target).c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, hdf5_access(opening)),
            H5Fclose,
            "cannot be written")) {}

  void write(const std::string& name,
             hid_t type,
             const std::vector<int64_t>& dims,
             const void* data) const {
    std::vector<hsize_t> sizes(dims.begin(), dims.end());
    int64_t values = 1;
    for (const int64_t dim : dims) values *= dim;
    const Hdf5Handle space = writing.handle(
        dims.empty() ? H5Screate(H5S_SCALAR)
                     : H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr),
        H5Sclose,
        name);
    const Hdf5Handle links = writing.handle(H5Pcreate(H5P_LINK_CREATE), H5Pclose, name);
    writing.check(H5Pset_create_intermediate_group(links, 1), name);
    const Hdf5Handle options = writing.handle(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, name);
    if (values > kChunkValues && H5Zfilter_avail(H5Z_FILTER_DEFLATE) > 0) {
      const int64_t row = values / dims[0];
      sizes[0] = static_cast<hsize_t>(
          std::clamp<int64_t>(kChunkValues / std::max<int64_t>(row, 1), 1, dims[0]));
      writing.check(H5Pset_chunk(options, static_cast<int>(sizes.size()), sizes.data()), name);
      writing.check(H5Pset_shuffle(options), name);
      writing.check(H5Pset_deflate(options, 4), name);
    }
    Hdf5Handle set = writing.handle(
        H5Dcreate2(file, name.c_str(), type, space, links, options, H5P_DEFAULT), H5Dclose, name);
    if (values > 0) writing.check(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), name);
    writing.check(set.close(), name);
  }

  template <class T>
  void table(const std::string& name,
             hid_t type,
             std::span<const T> values,
             const std::vector<int64_t>& dims) const {
    int64_t wanted = 1;
    for (const int64_t dim : dims) wanted *= dim;
    GLM_CHECK(!dims.empty() && wanted == static_cast<int64_t>(values.size()),
              "{}: {} values for {} places",
              name,
              values.size(),
              wanted);
    write(name, type, dims, values.data());
  }

  std::filesystem::path path;
  Hdf5Calls opening;
  Hdf5Calls writing;
  Hdf5Handle file;
  bool finished = false;
};

RunRecordFile::RunRecordFile(const std::filesystem::path& path)
    : impl_(std::make_unique<Impl>(path)) {}

RunRecordFile::~RunRecordFile() {
  if (impl_->finished) return;
  std::error_code ignored;
  std::filesystem::remove(partial_name(impl_->path), ignored);
}

void RunRecordFile::text(const std::string& name, std::string_view value) {
  const Hdf5Handle type = record_text_type(impl_->writing, value.size());
  const std::string padded = value.empty() ? std::string(1, '\0') : std::string(value);
  impl_->write(name, type, {}, padded.data());
}

void RunRecordFile::texts(const std::string& name, const std::vector<std::string>& values) {
  size_t longest = 1;
  for (const std::string& value : values) longest = std::max(longest, value.size());
  std::string padded(longest * values.size(), '\0');
  for (size_t i = 0; i < values.size(); ++i)
    std::copy(values[i].begin(), values[i].end(), padded.begin() + static_cast<long>(i * longest));
  const Hdf5Handle type = record_text_type(impl_->writing, longest);
  impl_->write(name, type, {static_cast<int64_t>(values.size())}, padded.data());
}

void RunRecordFile::integers(const std::string& name,
                             std::span<const int64_t> values,
                             const std::vector<int64_t>& dims) {
  impl_->table(name, H5T_STD_I64LE, values, dims);
}

void RunRecordFile::numbers(const std::string& name,
                            std::span<const double> values,
                            const std::vector<int64_t>& dims) {
  impl_->table(name, H5T_IEEE_F64LE, values, dims);
}

void RunRecordFile::finish() {
  impl_->writing.check(H5Fflush(impl_->file, H5F_SCOPE_LOCAL), "flush");
  impl_->writing.check(impl_->file.close(), "close");
  std::error_code error;
  std::filesystem::rename(partial_name(impl_->path), impl_->path, error);
  if (error) impl_->opening.reject("cannot be written: {}", error.message());
  impl_->finished = true;
}

}  // namespace glm
