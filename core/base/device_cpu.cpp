// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include <sys/mman.h>

#include "core/base/device.h"

namespace glm {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;
constexpr int64_t kPage = 4096;

// Anonymous mappings: zeroed, touched first by whoever writes first (NUMA), huge pages where they
// help.
class CpuDevice final : public Device {
 public:
  CpuDevice() = default;
  CpuDevice(const CpuDevice&) = delete;
  CpuDevice& operator=(const CpuDevice&) = delete;
  ~CpuDevice() override {
    for (const Mapping& mapping : mappings_) munmap(mapping.base, mapping.bytes);
  }

  std::string name() const override { return "cpu"; }
  bool is_host() const override { return true; }
  int64_t allocated_bytes() const override { return allocated_bytes_; }

  Tensor allocate(DType dtype, std::initializer_list<int64_t> dims) override {
    Tensor tensor = host_tensor(nullptr, dtype, dims);
    tensor.device = this;
    const int64_t bytes = tensor.bytes();
    GLM_CHECK(bytes >= 0, "allocation of {}", tensor.shape_text());
    if (bytes == 0) return tensor;
    const bool huge = bytes >= 4 * kHugePage;
    const int64_t mapped = huge ? bytes + kHugePage : bytes;
    void* base = mmap(nullptr,
                      static_cast<size_t>(mapped),
                      PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                      -1,
                      0);
    if (base == MAP_FAILED)
      fail(ExitCode::kResources,
           "cannot allocate {:.3f} GB of memory: {}; use more ranks, a smaller --context or a "
           "smaller dtype",
           static_cast<double>(bytes) * 1e-9,
           std::strerror(errno));
    allocated_bytes_ += bytes;
    tensor.data = base;
    if (huge) {
      const auto address = reinterpret_cast<uintptr_t>(base);
      const auto page = static_cast<uintptr_t>(kHugePage);
      tensor.data = reinterpret_cast<void*>((address + page - 1) / page * page);
      // The rest of the last page takes small ones, so that no more is resident than was asked for.
      madvise(tensor.data, static_cast<size_t>(bytes / kHugePage * kHugePage), MADV_HUGEPAGE);
    }
    mappings_.push_back({base, static_cast<size_t>(mapped), tensor.data, bytes});
    return tensor;
  }

  void commit() override {
    for (Mapping& mapping : mappings_) {
      if (!mapping.committed) make_resident(mapping);
      mapping.committed = true;
    }
  }

  Tensor allocate_host(DType dtype, std::initializer_list<int64_t> dims) override {
    return allocate(dtype, dims);
  }

  void copy(Tensor dst, Tensor src) override {
    GLM_CHECK(dst.bytes() == src.bytes(), "copy {} to {}", src.shape_text(), dst.shape_text());
    if (dst.bytes() != 0) std::memcpy(dst.data, src.data, static_cast<size_t>(dst.bytes()));
  }
  void wait() override {}
  void replay(uint64_t, const std::function<void()>& record) override { record(); }

 private:
  struct Mapping {
    void* base;
    size_t bytes;
    void* data;  // the part that was asked for
    int64_t data_bytes;
    bool committed = false;
  };

  static void make_resident(const Mapping& mapping) {
    auto* const data = static_cast<uint8_t*>(mapping.data);
    const int64_t bytes = mapping.data_bytes;
#ifdef MADV_POPULATE_WRITE
    const int64_t whole = (bytes + kPage - 1) / kPage * kPage;
    if (madvise(data, static_cast<size_t>(whole), MADV_POPULATE_WRITE) == 0) return;
    if (errno == ENOMEM)
      fail(ExitCode::kResources,
           "no memory left to back {:.3f} GB of this rank; use more ranks, a smaller --context or "
           "a smaller dtype",
           static_cast<double>(bytes) * 1e-9);
#endif
    // Linux before 5.14.
    for (int64_t at = 0; at < bytes; at += kPage) {
      volatile uint8_t* byte = data + at;
      *byte = *byte;
    }
  }

  std::vector<Mapping> mappings_;
  int64_t allocated_bytes_ = 0;
};

}  // namespace

std::unique_ptr<Device> make_cpu_device() { return std::make_unique<CpuDevice>(); }

}  // namespace glm
