// SPDX-License-Identifier: MIT
#include "io/logits_file.h"

#include <array>

#include "io/hdf5_file.h"

namespace glm {

struct LogitsWriter::Impl {
  // A dataset that grows by one entry at a time along its first dimension.
  class GrowingDataset {
   public:
    GrowingDataset(const Hdf5Calls& calls, hid_t file, const char* name, hid_t type, hsize_t width)
        : calls_(calls), type_(type), rank_(width == 0 ? 1 : 2), width_(width) {
      const std::array<hsize_t, 2> start = {0, width};
      const std::array<hsize_t, 2> limit = {H5S_UNLIMITED, width};
      const std::array<hsize_t, 2> chunk = {width == 0 ? hsize_t{1024} : hsize_t{1}, width};
      const Hdf5Handle space =
          calls.handle(H5Screate_simple(rank_, start.data(), limit.data()), H5Sclose, name);
      const Hdf5Handle options = calls.handle(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, name);
      calls.check(H5Pset_chunk(options, rank_, chunk.data()), name);
      calls.check(H5Pset_obj_track_times(options, false), name);
      set_ = calls.handle(
          H5Dcreate2(file, name, type, space, H5P_DEFAULT, options, H5P_DEFAULT), H5Dclose, name);
    }

    void append(const void* data) {
      const std::array<hsize_t, 2> size = {count_ + 1, width_};
      calls_.check(H5Dset_extent(set_, size.data()), "extend");
      const Hdf5Handle space = calls_.handle(H5Dget_space(set_), H5Sclose, "space");
      const std::array<hsize_t, 2> first = {count_, 0};
      const std::array<hsize_t, 2> block = {1, width_};
      calls_.check(
          H5Sselect_hyperslab(space, H5S_SELECT_SET, first.data(), nullptr, block.data(), nullptr),
          "select");
      const Hdf5Handle memory =
          calls_.handle(H5Screate_simple(rank_, block.data(), nullptr), H5Sclose, "memory");
      calls_.check(H5Dwrite(set_, type_, memory, space, H5P_DEFAULT, data), "write");
      ++count_;
    }

    void close() { calls_.check(set_.close(), "close"); }

   private:
    const Hdf5Calls& calls_;
    hid_t type_;
    int rank_;
    hsize_t width_;
    hsize_t count_ = 0;
    Hdf5Handle set_;
  };

  // Without the time of day: equal logits make equal files.
  static Hdf5Handle create(const Hdf5Calls& calls, const std::filesystem::path& path) {
    const Hdf5Handle plan = calls.handle(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "file");
    calls.check(H5Pset_obj_track_times(plan, false), "file");
    return calls.handle(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, plan, hdf5_access(calls)),
                        H5Fclose,
                        "cannot be written");
  }

  Impl(const std::filesystem::path& target, int64_t vocab)
      : path(target),
        partial(target.string() + ".partial"),
        opening(target.string(), ExitCode::kUsage),
        writing(target.string(), ExitCode::kResources),
        file(create(opening, partial)),
        logits(writing, file, "logits", H5T_NATIVE_FLOAT, static_cast<hsize_t>(vocab)),
        tokens(writing, file, "tokens", H5T_NATIVE_INT32, 0) {}

  std::filesystem::path path;
  std::filesystem::path partial;
  Hdf5Calls opening;
  Hdf5Calls writing;
  Hdf5Handle file;
  GrowingDataset logits;
  GrowingDataset tokens;
  bool finished = false;
};

LogitsWriter::LogitsWriter(const std::filesystem::path& path, int64_t vocab)
    : impl_(std::make_unique<Impl>(path, vocab)) {}

LogitsWriter::~LogitsWriter() {
  if (impl_->finished) return;
  std::error_code ignored;
  std::filesystem::remove(impl_->partial, ignored);
}

void LogitsWriter::append(int32_t token, std::span<const float> logits) {
  impl_->logits.append(logits.data());
  impl_->tokens.append(&token);
}

void LogitsWriter::finish() {
  impl_->logits.close();
  impl_->tokens.close();
  impl_->writing.check(H5Fflush(impl_->file, H5F_SCOPE_LOCAL), "flush");
  impl_->writing.check(impl_->file.close(), "close");
  std::error_code error;
  std::filesystem::rename(impl_->partial, impl_->path, error);
  if (error) impl_->opening.reject("cannot be written: {}", error.message());
  impl_->finished = true;
}

}  // namespace glm
