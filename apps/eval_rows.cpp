// SPDX-License-Identifier: MIT
#include "apps/eval_rows.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include <fcntl.h>
#include <unistd.h>

#include "core/base/check.h"

namespace glm {

RowFile::RowFile(int64_t n_rows, int64_t cols) : cols_(cols) {
  std::error_code error;
  const std::string folder = std::filesystem::temp_directory_path(error).string();
  std::string name = (error ? std::string("/tmp") : folder) + "/glm_eval.XXXXXX";
  file_ = ::mkostemp(name.data(), O_CLOEXEC);
  if (file_ < 0)
    fail(ExitCode::kUsage,
         "{}: {}; TMPDIR names another folder",
         escaped(name),
         std::strerror(errno));
  ::unlink(name.c_str());
  const int64_t bytes = checked_mul(
      checked_mul(n_rows, cols, "logits", ExitCode::kResources), 4, "logits", ExitCode::kResources);
  if (const int full = ::posix_fallocate(file_, 0, static_cast<off_t>(bytes)); full != 0) {
    ::close(file_);
    fail(ExitCode::kResources,
         "{:.3f} GB for the first model's logits in {}: {}; name another folder with TMPDIR or "
         "lower "
         "--limit",
         static_cast<double>(bytes) * 1e-9,
         escaped(folder),
         std::strerror(full));
  }
}

RowFile::~RowFile() { ::close(file_); }

void RowFile::write(int64_t row, std::span<const float> values) {
  GLM_CHECK(static_cast<int64_t>(values.size()) == cols_, "a row of {}", values.size());
  const auto* at = reinterpret_cast<const char*>(values.data());
  auto left = values.size_bytes();
  auto offset = static_cast<off_t>(row * cols_ * 4);
  while (left > 0) {
    const ssize_t n = ::pwrite(file_, at, left, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail(ExitCode::kResources, "the first model's logits: {}", std::strerror(errno));
    at += n;
    offset += n;
    left -= static_cast<size_t>(n);
  }
}

void RowFile::read(int64_t row, std::span<float> values) const {
  GLM_CHECK(static_cast<int64_t>(values.size()) == cols_, "a row of {}", values.size());
  auto* at = reinterpret_cast<char*>(values.data());
  auto left = values.size_bytes();
  auto offset = static_cast<off_t>(row * cols_ * 4);
  while (left > 0) {
    const ssize_t n = ::pread(file_, at, left, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail(ExitCode::kRuntime, "the first model's logits: {}", std::strerror(errno));
    at += n;
    offset += n;
    left -= static_cast<size_t>(n);
  }
}

}  // namespace glm
