// The file of --dump-logits: /logits [n, vocabulary] f32 and /tokens [n] i32, row i being what the
// model predicts after token i. Appears under its name only when complete. SPDX-License-Identifier:
// MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

namespace glm {

class LogitsWriter {
 public:
  // Throws Error(kUsage) when the path is not writable.
  LogitsWriter(const std::filesystem::path& path, int64_t vocab);
  ~LogitsWriter();  // removes what is unfinished
  LogitsWriter(const LogitsWriter&) = delete;
  LogitsWriter& operator=(const LogitsWriter&) = delete;

  // Throws Error(kResources) when the disk is full.
  void append(int32_t token, std::span<const float> logits);
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace glm
