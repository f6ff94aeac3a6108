// SPDX-License-Identifier: MIT
#include "tests/fuzz/fuzz.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include <sys/mman.h>
#include <unistd.h>

namespace glm::fuzz {

void require(bool holds, std::string_view promise) {
  if (holds) return;
  fmt::print(stderr, "broken promise: {}\n", promise);
  std::abort();
}

void judge(const Error& error, std::initializer_list<ExitCode> codes) {
  const std::string_view text = error.what();
  require(std::find(codes.begin(), codes.end(), error.code()) != codes.end(),
          fmt::format("an exit code of this parser, not that of: {}", text));
  require(!text.empty() && text.size() < 4096, "an error of moderate length");
  require(
      std::none_of(text.begin(), text.end(), [](char c) { return (c >= 0 && c < 32) || c == 127; }),
      "an error without control bytes");
}

std::vector<std::string_view> parts(const uint8_t* data, size_t size, size_t count) {
  constexpr std::string_view kBorder = "\n@@@@\n";
  std::string_view left(reinterpret_cast<const char*>(data), size);
  std::vector<std::string_view> out(count);
  for (size_t i = 0; i + 1 < count; ++i) {
    const size_t border = left.find(kBorder);
    out[i] = left.substr(0, border);
    left = border == left.npos ? std::string_view() : left.substr(border + kBorder.size());
  }
  if (count > 0) out.back() = left;
  return out;
}

MemoryFile::MemoryFile() : file_(::memfd_create("fuzz", MFD_CLOEXEC)) {
  require(file_ >= 0, "files in memory");
  path_ = fmt::format("/proc/self/fd/{}", file_);
}

MemoryFile::~MemoryFile() { ::close(file_); }

void MemoryFile::set(std::string_view bytes) const {
  require(::ftruncate(file_, 0) == 0, "files in memory shrink");
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t put =
        ::pwrite(file_, bytes.data() + at, bytes.size() - at, static_cast<off_t>(at));
    require(put > 0, "files in memory grow");
    at += static_cast<size_t>(put);
  }
}

}  // namespace glm::fuzz
