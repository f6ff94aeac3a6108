// Writing files by POSIX calls. SPDX-License-Identifier: MIT
#include "io/output_file.h"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/raw_file.h"

namespace glm {
namespace {

constexpr int64_t kMaxCall = int64_t{1} << 30;     // Linux moves at most 2 GiB - 4 KiB per call
constexpr int64_t kLargePiece = int64_t{1} << 18;  // small ones wait for their neighbours

}  // namespace

void OutputFile::open(const std::string& path, int flags) {
  close();
  path_ = path;
  fd_ = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0666);
}

void OutputFile::create(const std::string& path) {
  open(path, O_CREAT | O_TRUNC);
  if (fd_ < 0)
    fail(errno == ENOSPC || errno == EDQUOT ? ExitCode::kResources : ExitCode::kUsage,
         "{}: cannot write here: {}",
         escaped(path_),
         errno_text(errno));
}

bool OutputFile::open_existing(const std::string& path) {
  open(path, O_NONBLOCK);
  struct stat info = {};
  if (fd_ >= 0 && (::fstat(fd_, &info) != 0 || !S_ISREG(info.st_mode))) close();
  return fd_ >= 0;
}

void OutputFile::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void OutputFile::reserve(int64_t bytes) const {
  if (::fallocate(fd_, 0, 0, bytes) != 0 && (errno == ENOSPC || errno == EDQUOT))
    fail(ExitCode::kResources,
         "{}: {} bytes are needed: {}",
         escaped(path_),
         bytes,
         errno_text(errno));
}

void OutputFile::write(int64_t offset, const void* data, int64_t bytes) const {
  for (int64_t done = 0; done < bytes;) {
    const ssize_t put = ::pwrite(fd_,
                                 static_cast<const char*>(data) + done,
                                 static_cast<size_t>(std::min(bytes - done, kMaxCall)),
                                 offset + done);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) failed("cannot write", put < 0 ? errno : ENOSPC);
    done += put;
  }
  // Only a hint: what fails here shows again in sync().
  if (bytes >= kLargePiece)
    static_cast<void>(::sync_file_range(fd_, offset, bytes, SYNC_FILE_RANGE_WRITE));
}

void OutputFile::read(int64_t offset, void* out, int64_t bytes) const {
  for (int64_t done = 0; done < bytes;) {
    const ssize_t got = ::pread(fd_,
                                static_cast<char*>(out) + done,
                                static_cast<size_t>(std::min(bytes - done, kMaxCall)),
                                offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) failed("cannot read back", got < 0 ? errno : EIO);
    done += got;
  }
}

void OutputFile::sync() const {
  if (::fsync(fd_) != 0) failed("cannot write to disk", errno);
}

int64_t OutputFile::size() const {
  struct stat info = {};
  if (::fstat(fd_, &info) != 0) failed("cannot stat", errno);
  return static_cast<int64_t>(info.st_size);
}

void OutputFile::failed(const char* what, int error) const {
  fail(ExitCode::kResources, "{}: {}: {}", escaped(path_), what, errno_text(error));
}

void sync_folder(const std::filesystem::path& folder) {
  const int fd = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;  // a folder may be writable but not readable
  ::fsync(fd);         // some file systems cannot, and the file is whole all the same
  ::close(fd);
}

void rename_file(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0)
    fail(ExitCode::kResources, "{}: cannot rename: {}", escaped(from.string()), errno_text(errno));
}

}  // namespace glm
