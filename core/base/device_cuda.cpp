// One GPU behind the Device interface: its memory, one stream, one graph per replay key. The CUDA
// runtime is linked statically and looks for the driver at run time. SPDX-License-Identifier: MIT
#include <array>
#include <chrono>
#include <cstring>
#include <map>
#include <vector>

#include <cuda_runtime_api.h>
#include <sched.h>

#include "core/base/device.h"

namespace glm {
namespace {

using Clock = std::chrono::steady_clock;

// Throws for any status but success. `call` is the source text.
void cuda_check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  fail(ExitCode::kRuntime,
       "CUDA: {} ({}) from {}",
       cudaGetErrorString(status),
       cudaGetErrorName(status),
       call);
}

#define CUDA_CHECK(call) cuda_check((call), #call)

double gigabytes(size_t bytes) { return static_cast<double>(bytes) * 1e-9; }

bool on_host(const Tensor& tensor) { return tensor.device == nullptr || tensor.device->is_host(); }

// "13.0" of 13000.
std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

class CudaDevice final : public Device {
 public:
  CudaDevice(int index, double timeout_seconds) : index_(index), timeout_seconds_(timeout_seconds) {
    cudaDeviceProp properties{};
    CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
    name_ = fmt::format("cuda:{} ({})", index, escaped(properties.name));
    id_ = cuda_device_id(index);
    CUDA_CHECK(cudaSetDevice(index));
    CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;
  ~CudaDevice() override {
    // Freeing blocks, without a deadline, until the GPU is idle. Where that may be never, memory is
    // left to the end of the process.
    if (late_ || poll() == cudaErrorNotReady) return;
    for (const auto& [key, graph] : graphs_)
      if (graph != nullptr) cudaGraphExecDestroy(graph);
    for (void* memory : memory_) cudaFree(memory);
    for (void* memory : host_memory_) cudaFreeHost(memory);
    cudaStreamDestroy(stream_);
  }

  std::string name() const override { return name_; }
  std::string id() const override { return id_; }
  bool is_host() const override { return false; }
  Memory memory() override {
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
    return {static_cast<int64_t>(free_bytes), static_cast<int64_t>(total_bytes)};
  }
  int64_t allocated_bytes() const override { return allocated_bytes_; }
  void* stream() const override { return stream_; }

  Tensor allocate(DType dtype, std::initializer_list<int64_t> dims) override {
    GLM_CHECK(!recording_, "allocation while recording");
    Tensor tensor = host_tensor(nullptr, dtype, dims);
    tensor.device = this;
    const int64_t bytes = tensor.bytes();
    GLM_CHECK(bytes >= 0, "allocation of {}", tensor.shape_text());
    if (bytes == 0) return tensor;
    const auto size = static_cast<size_t>(bytes);
    CUDA_CHECK(cudaSetDevice(index_));
    const cudaError_t status = cudaMalloc(&tensor.data, size);
    if (status == cudaErrorMemoryAllocation) fail_full(size);
    CUDA_CHECK(status);
    memory_.push_back(tensor.data);
    allocated_bytes_ += bytes;
    CUDA_CHECK(cudaMemsetAsync(tensor.data, 0, size, stream_));
    return tensor;
  }

  Tensor allocate_host(DType dtype, std::initializer_list<int64_t> dims) override {
    Tensor tensor = host_tensor(nullptr, dtype, dims);
    const auto size = static_cast<size_t>(tensor.bytes());
    if (size == 0) return tensor;
    CUDA_CHECK(cudaSetDevice(index_));
    CUDA_CHECK(cudaMallocHost(&tensor.data, size));
    host_memory_.push_back(tensor.data);
    std::memset(tensor.data, 0, size);
    return tensor;
  }

  void copy(Tensor dst, Tensor src) override {
    GLM_CHECK(dst.bytes() == src.bytes(), "copy {} to {}", src.shape_text(), dst.shape_text());
    if (dst.bytes() == 0) return;
    const bool to_host = on_host(dst);
    const bool from_host = on_host(src);
    // A copy to ordinary host memory holds the thread inside the driver until the stream is done;
    // wait() does so with the deadline.
    if (to_host && !recording_) wait();
    const cudaMemcpyKind kind = to_host && from_host ? cudaMemcpyHostToHost
                                : to_host            ? cudaMemcpyDeviceToHost
                                : from_host          ? cudaMemcpyHostToDevice
                                                     : cudaMemcpyDeviceToDevice;
    CUDA_CHECK(
        cudaMemcpyAsync(dst.data, src.data, static_cast<size_t>(dst.bytes()), kind, stream_));
  }

  void wait() override {
    GLM_CHECK(!recording_, "wait while recording");
    const cudaError_t status = poll();
    if (status == cudaErrorNotReady)
      fail(ExitCode::kCommunication,
           "{}: work not done after {:.3g} s{}; raise --timeout if the GPU is only slow",
           name_,
           timeout_seconds_,
           late_text());
    cuda_check(status, "work enqueued before cudaStreamQuery");
    tell_done();
  }

  void replay(uint64_t key, const std::function<void()>& record) override {
    // Kernels are loaded at their first launch, which a recording may not allow.
    const auto [found, first] = graphs_.try_emplace(key, nullptr);
    if (first) return record();
    if (found->second == nullptr) found->second = capture(record);
    CUDA_CHECK(cudaGraphLaunch(found->second, stream_));
  }

 private:
  // The stream's status once it is idle or failed; cudaErrorNotReady when the deadline is missed.
  cudaError_t poll() {
    const auto start = Clock::now();
    for (double watched = 0;;) {
      const cudaError_t status = cudaStreamQuery(stream_);
      if (status != cudaErrorNotReady) return status;
      const double waited = std::chrono::duration<double>(Clock::now() - start).count();
      late_ = waited > timeout_seconds_;
      if (late_) return status;
      if (waited > watched + kWatchSeconds) {
        watched = waited;
        late_ = true;  // if the watch throws, the work may never end
        tell_waiting();
        late_ = false;
      }
      sched_yield();
    }
  }

  // Recording enqueues nothing: what `record` calls becomes nodes of a graph.
  cudaGraphExec_t capture(const std::function<void()>& record) {
    GLM_CHECK(!recording_, "replay while recording");
    CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    recording_ = true;
    cudaGraph_t graph = nullptr;
    try {
      record();
    } catch (...) {
      recording_ = false;
      cudaStreamEndCapture(stream_, &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
      throw;
    }
    recording_ = false;
    CUDA_CHECK(cudaStreamEndCapture(stream_, &graph));
    cudaGraphExec_t executable = nullptr;
    const cudaError_t status = cudaGraphInstantiateWithFlags(&executable, graph, 0);
    cudaGraphDestroy(graph);
    cuda_check(status, "cudaGraphInstantiateWithFlags");
    return executable;
  }

  [[noreturn]] void fail_full(size_t bytes) {
    cudaGetLastError();  // not sticky: the device stays usable
    const Memory left = memory();
    fail(ExitCode::kResources,
         "cannot allocate {:.3f} GB on {}: {:.3f} of {:.3f} GB are free; use more ranks, a smaller "
         "--context or a smaller dtype",
         gigabytes(bytes),
         name_,
         gigabytes(static_cast<size_t>(left.free)),
         gigabytes(static_cast<size_t>(left.total)));
  }

  int index_;
  double timeout_seconds_;
  std::string name_;
  std::string id_;
  cudaStream_t stream_ = nullptr;
  std::vector<void*> memory_, host_memory_;
  int64_t allocated_bytes_ = 0;
  std::map<uint64_t, cudaGraphExec_t> graphs_;
  bool recording_ = false;
  bool late_ = false;
};

}  // namespace

std::unique_ptr<Device> make_cuda_device(int index, double timeout_seconds) {
  const int count = cuda_device_count();
  if (index < 0 || index >= count)
    fail(ExitCode::kResources,
         "no GPU {}: this process sees {}; check nvidia-smi and CUDA_VISIBLE_DEVICES",
         index,
         count);
  return std::make_unique<CudaDevice>(index, timeout_seconds);
}

int cuda_device_count() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver) {
    cudaGetLastError();
    return 0;
  }
  CUDA_CHECK(status);
  return count;
}

std::string cuda_device_id(int index) {
  std::array<char, 32> bus{};
  CUDA_CHECK(cudaDeviceGetPCIBusId(bus.data(), static_cast<int>(bus.size()), index));
  return escaped(bus.data());
}

std::string cuda_device_uuid(int index) {
  cudaDeviceProp properties{};
  CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
  std::string text = "GPU";
  for (size_t i = 0; i < sizeof(properties.uuid.bytes); ++i) {
    if (i == 0 || i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", static_cast<unsigned char>(properties.uuid.bytes[i]));
  }
  return text;
}

std::string cuda_version_text() {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  return fmt::format("{} ({})",
                     version_text(CUDART_VERSION),
                     driver == 0 ? "no driver" : "driver " + version_text(driver));
}

}  // namespace glm
