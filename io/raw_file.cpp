// Plain POSIX reads of regular files. SPDX-License-Identifier: MIT
#include "io/raw_file.h"

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace glm {

std::string errno_text(int error) { return std::generic_category().message(error); }

RawFile::RawFile(const std::filesystem::path& path, ExitCode code)
    : path_(path.string()), code_(code) {
  // O_NONBLOCK: opening a FIFO without a writer must not wait.
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) fail(code_, "{}: cannot open: {}", escaped(path_), errno_text(errno));
  struct stat info = {};
  const int error = ::fstat(fd_, &info) == 0 ? 0 : errno;
  if (error == 0 && S_ISREG(info.st_mode)) {
    size_ = static_cast<int64_t>(info.st_size);
    changed_ = int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
    return;
  }
  ::close(fd_);
  fd_ = -1;
  if (error != 0) fail(code_, "{}: cannot stat: {}", escaped(path_), errno_text(error));
  fail(code_, "{}: not a regular file", escaped(path_));
}

RawFile::~RawFile() {
  if (fd_ >= 0) ::close(fd_);
}

RawFile::RawFile(RawFile&& other) noexcept
    : path_(std::move(other.path_)),
      code_(other.code_),
      fd_(std::exchange(other.fd_, -1)),
      size_(other.size_),
      changed_(other.changed_) {}

int64_t RawFile::read_some(int64_t offset, void* out, int64_t bytes) const {
  constexpr int64_t kMaxCall = int64_t{1} << 30;  // Linux moves at most 2 GiB - 4 KiB per call
  int64_t done = 0;
  while (done < bytes) {
    const auto wanted = static_cast<size_t>(std::min(bytes - done, kMaxCall));
    const ssize_t got = ::pread(fd_, static_cast<char*>(out) + done, wanted, offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      fail(
          code_, "{}: read error at byte {}: {}", escaped(path_), offset + done, errno_text(errno));
    if (got == 0) break;
    done += got;
  }
  return done;
}

void RawFile::read(int64_t offset, void* out, int64_t bytes) const {
  const int64_t got = read_some(offset, out, bytes);
  if (got != bytes)
    fail(code_,
         "{}: ends at byte {} where {} more bytes are expected; the file is truncated",
         escaped(path_),
         offset + got,
         bytes - got);
}

void RawFile::will_need(int64_t offset, int64_t bytes) const {
  static_cast<void>(::posix_fadvise(fd_, offset, bytes, POSIX_FADV_WILLNEED));
}

}  // namespace glm
