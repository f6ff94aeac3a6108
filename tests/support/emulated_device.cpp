// SPDX-License-Identifier: MIT
#include "tests/support/emulated_device.h"

#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include <sys/mman.h>

namespace glm::testing_support {
namespace {

constexpr size_t kPage = 4096;
constexpr auto kPoll = std::chrono::microseconds(20);

}  // namespace

EmulatedDevice::~EmulatedDevice() {
  pause();
  for (const Mapping& mapping : mappings_) munmap(mapping.base, mapping.bytes);
}

// A mapping of its own for each allocation, its end at the end of a page but for alignment: what
// runs past it is caught.
Tensor EmulatedDevice::allocate(DType dtype, std::initializer_list<int64_t> dims) {
  GLM_CHECK(recording_ == nullptr, "allocation while recording");
  pause();
  Tensor tensor = host_tensor(nullptr, dtype, dims);
  tensor.device = this;
  const int64_t bytes = tensor.bytes();
  GLM_CHECK(bytes >= 0, "allocation of {}", tensor.shape_text());
  if (bytes == 0) return tensor;
  if (bytes > memory_bytes_ - allocated_bytes_)
    fail(ExitCode::kResources, "cannot allocate {} bytes on {}", bytes, name());
  const size_t pages = (static_cast<size_t>(bytes) + kPage - 1) / kPage;
  void* base = mmap(nullptr, (pages + 1) * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  GLM_CHECK(base != MAP_FAILED, "mmap of {} bytes", bytes);
  mappings_.push_back({base, pages * kPage});
  const size_t shift = (pages * kPage - static_cast<size_t>(bytes)) & ~size_t{255};
  tensor.data = static_cast<char*>(base) + shift;
  allocated_bytes_ += bytes;
  return tensor;
}

void EmulatedDevice::copy(Tensor dst, Tensor src) {
  GLM_CHECK(dst.bytes() == src.bytes(), "copy {} to {}", src.shape_text(), dst.shape_text());
  if (dst.bytes() == 0) return;
  enqueue([=] { std::memcpy(dst.data, src.data, static_cast<size_t>(dst.bytes())); });
}

void EmulatedDevice::enqueue(std::function<void()> work) {
  pause();
  (recording_ != nullptr ? *recording_ : pending_).push_back(std::move(work));
}

// As the CUDA device waits.
void EmulatedDevice::wait() {
  using Clock = std::chrono::steady_clock;
  GLM_CHECK(recording_ == nullptr, "wait while recording");
  pause();
  if (helper_error_) std::rethrow_exception(std::exchange(helper_error_, nullptr));
  waiting_ = true;
  const auto start = Clock::now();
  try {
    for (double watched = 0; !advance();) {
      const double waited = std::chrono::duration<double>(Clock::now() - start).count();
      if (waited > timeout_seconds_)
        fail(ExitCode::kCommunication,
             "{}: work not done after {:.3g} s{}; raise --timeout if the GPU is only slow",
             name(),
             timeout_seconds_,
             late_text());
      if (waited > watched + kWatchSeconds) {
        watched = waited;
        tell_waiting();
      }
      std::this_thread::sleep_for(kPoll);
    }
  } catch (...) {
    waiting_ = false;
    throw;
  }
  waiting_ = false;
  tell_done();
}

void EmulatedDevice::flush() {
  if (recording_ != nullptr || waiting_ || helper_.joinable() || pending_.empty()) return;
  helper_ = std::thread([this] {
    try {
      while (!stop_ && !advance()) std::this_thread::sleep_for(kPoll);
    } catch (...) {
      helper_error_ = std::current_exception();
    }
  });
}

void EmulatedDevice::pause() {
  if (!helper_.joinable()) return;
  stop_ = true;
  helper_.join();
  stop_ = false;
}

// Runs work up to what has to wait for another rank; true when nothing is left.
bool EmulatedDevice::advance() {
  if (pending_.empty()) return true;
  protect(PROT_READ | PROT_WRITE);
  try {
    while (!pending_.empty() && !stop_) {
      pending_.front()();
      pending_.pop_front();
    }
  } catch (const emulator::NotYet&) {
  } catch (...) {
    pending_.clear();
    protect(PROT_NONE);
    throw;
  }
  protect(PROT_NONE);
  return pending_.empty();
}

void EmulatedDevice::replay(uint64_t key, const std::function<void()>& record) {
  GLM_CHECK(recording_ == nullptr, "replay while recording");
  pause();
  const auto [found, first] = graphs_.try_emplace(key);
  if (first) return record();
  Work& graph = found->second;
  if (graph.empty()) {
    recording_ = &graph;
    try {
      record();
    } catch (...) {
      recording_ = nullptr;
      graph.clear();
      throw;
    }
    recording_ = nullptr;
  }
  ++n_replayed_;
  pending_.insert(pending_.end(), graph.begin(), graph.end());
}

void EmulatedDevice::protect(int protection) {
  for (const Mapping& mapping : mappings_)
    GLM_CHECK(mprotect(mapping.base, mapping.bytes, protection) == 0, "mprotect");
}

}  // namespace glm::testing_support
