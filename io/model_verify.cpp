// Every block by several threads, while one more hashes the file. SPDX-License-Identifier: MIT
#include "io/model_verify.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/base/check.h"
#include "io/json.h"
#include "io/model_file.h"
#include "io/sha256.h"

namespace glm {
namespace {

constexpr int64_t kPiece = int64_t{4} << 20;

// A run of blocks of one plane: what one thread checks at a time.
struct Work {
  const TensorEntry* entry;
  WeightReader::Plane plane;
  int64_t offset;
  int64_t bytes;
};

std::vector<Work> work_of(const ModelIndex& index) {
  std::vector<Work> work;
  const int64_t step = std::max<int64_t>(1, kPiece / index.block_bytes) * index.block_bytes;
  for (const TensorEntry& entry : index.entries)
    for (const bool values : {true, false}) {
      const int64_t bytes = values ? entry.values_bytes : entry.scales_bytes;
      for (int64_t at = 0; at < bytes; at += step)
        work.push_back({&entry,
                        values ? WeightReader::Plane::kValues : WeightReader::Plane::kScales,
                        at,
                        std::min(step, bytes - at)});
    }
  return work;
}

// The digest that a manifest begins with; empty where it is none.
std::string digest_in(std::string_view manifest) {
  if (manifest.starts_with('\\')) manifest.remove_prefix(1);
  const std::string digest(manifest.substr(0, 64));
  const bool hex = digest.find_first_not_of("0123456789abcdef") == std::string::npos;
  return digest.size() == 64 && hex && manifest.substr(64).starts_with("  ") ? digest : "";
}

class Verifier {
 public:
  Verifier(const ModelIndex& index, bool hash) : index_(index), work_(work_of(index)), hash_(hash) {
    for (const Work& work : work_) weight_bytes_ += work.bytes;
  }

  // Returns the digest, empty without `hash`.
  std::string run(int threads, const std::function<void(int64_t, int64_t)>& progress) {
    std::string digest;
    {
      std::vector<std::jthread> team;
      for (int i = 0; i < threads; ++i)
        team.emplace_back([this] { guarded([this] { check_blocks(); }); });
      if (hash_) team.emplace_back([&] { guarded([&] { digest = hash_file(); }); });
      running_ = static_cast<int>(team.size());
      report(progress);
    }
    if (error_) std::rethrow_exception(error_);
    return digest;
  }

  int64_t weight_bytes() const { return weight_bytes_; }

 private:
  // Waits for the others, and says how far they are, at the end as well. What `progress` throws
  // ends them.
  void report(const std::function<void(int64_t, int64_t)>& progress) {
    const int64_t total = weight_bytes_ + (hash_ ? index_.file_bytes : 0);
    guarded([&] {
      for (bool over = false; !over;) {
        over = ended_ >= running_;
        if (progress) progress(done_, total);
        if (!over) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
    });
  }

  template <class Body>
  void guarded(const Body& body) {
    try {
      body();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
      stop_ = true;
    }
    ++ended_;
  }

  void check_blocks() {
    WeightReader reader(index_, true);
    std::vector<char> buffer(static_cast<size_t>(std::max(kPiece, index_.block_bytes)));
    for (size_t i = next_++; i < work_.size() && !stop_; i = next_++) {
      const Work& work = work_[i];
      const WeightReader::Range range = {work.offset, work.bytes, buffer.data()};
      reader.read(*work.entry, work.plane, {&range, 1});
      done_ += work.bytes;
    }
  }

  std::string hash_file() {
    const RawFile file(index_.path, ExitCode::kModelFile);
    std::vector<char> buffer(static_cast<size_t>(kPiece));
    Sha256 hash;
    for (int64_t at = 0; at < index_.file_bytes && !stop_; at += kPiece) {
      const int64_t n = std::min(kPiece, index_.file_bytes - at);
      file.read(at, buffer.data(), n);
      hash.update(buffer.data(), static_cast<size_t>(n));
      done_ += n;
    }
    return hash.hex();
  }

  const ModelIndex& index_;
  std::vector<Work> work_;
  bool hash_;
  int64_t weight_bytes_ = 0;
  int running_ = 0;
  std::atomic<int> ended_{0};
  std::atomic<size_t> next_{0};
  std::atomic<int64_t> done_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::exception_ptr error_;
};

}  // namespace

VerifyReport verify_model_file(const std::filesystem::path& path,
                               int threads,
                               const std::function<void(int64_t, int64_t)>& progress) {
  const ModelIndex index = read_model_index(path);
  const std::filesystem::path beside = manifest_path(path);
  std::error_code error;
  std::string recorded;
  VerifyReport report;
  report.manifest = std::filesystem::exists(std::filesystem::symlink_status(beside, error));
  if (report.manifest) {
    recorded = digest_in(read_file(beside, 65536, ExitCode::kModelFile));
    if (recorded.empty())
      fail(ExitCode::kModelFile,
           "{}: not a manifest of sha256sum; remove it or write it again with sha256sum",
           escaped(beside.string()));
  }
  Verifier verifier(index, report.manifest);
  const std::string digest = verifier.run(threads, progress);
  if (digest != recorded)
    fail(ExitCode::kModelFile,
         "{}: its sha256 is {} where {} records {}; the weights agree with their own checksums, so "
         "the file was replaced or changed between them",
         escaped(path.string()),
         digest,
         escaped(beside.filename().string()),
         recorded);
  report.tensors = static_cast<int64_t>(index.entries.size());
  report.blocks = static_cast<int64_t>(index.checksums.size());
  report.weight_bytes = verifier.weight_bytes();
  report.file_bytes = index.file_bytes;
  return report;
}

}  // namespace glm
