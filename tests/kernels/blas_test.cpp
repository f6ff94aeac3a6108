// Products of many rows with f16 and bf16 matrices by cuBLAS, on the emulated GPU over a library
// that stands in for it and refuses calls that the real one would. SPDX-License-Identifier: MIT
#include <cmath>
#include <cstdlib>

#include "kernels/cuda/cuda_ops.h"
#include "tests/kernels/op_support.h"
#include "tests/support/emulated_device.h"

namespace glm::testing {
namespace {

constexpr int64_t kMostRows = 1100;

OpsLimits limits_of(int64_t cols) {
  OpsLimits limits{kMostRows, cols, 256, 4, 16};
  limits.fast = true;
  limits.half_weights = true;
  return limits;
}

// An emulated GPU with its operations, and tensors on it.
class Gpu {
 public:
  explicit Gpu(int64_t cols)
      : ops_(std::make_unique<cuda_emulated::CudaOps>(
            device_, limits_of(cols), device_.stream(), "cuda")) {}
  Ops& ops() { return *ops_; }
  Device& device() { return device_; }

  Tensor upload(Tensor host) {
    const Tensor out = device_.allocate(DType::kU8, {host.bytes()});
    device_.copy(out, host_tensor(host.data, DType::kU8, {host.bytes()}));
    device_.wait();
    Tensor same = host;
    same.data = out.data;
    return same;
  }
  Weight upload(const Weight& w) {
    Weight out = w;
    const auto bytes = w.n_matrices * w.value_stride();
    out.values =
        upload(host_tensor(const_cast<void*>(w.values), DType::kU8, {std::max<int64_t>(bytes, 1)}))
            .data;
    return out;
  }
  Floats download(Tensor device_tensor) {
    Floats out(device_tensor.rows(), device_tensor.cols());
    device_.copy(out.view(), device_tensor);
    device_.wait();
    return out;
  }
  Tensor floats(int64_t rows, int64_t cols) { return device_.allocate(DType::kF32, {rows, cols}); }

 private:
  testing_support::EmulatedDevice device_;
  std::unique_ptr<Ops> ops_;
};

class BlasProducts : public ::testing::Test {
 protected:
  BlasProducts() {
    setenv("GLM_CUBLAS_LIBRARY", GLM_FAKE_CUBLAS_LIBRARY, 1);
    unsetenv("GLM_FAKE_CUBLAS");
  }
  ~BlasProducts() override { unsetenv("GLM_FAKE_CUBLAS"); }

  Ops& reference() { return *reference_; }

 private:
  std::unique_ptr<Device> cpu_ = make_cpu_device();
  std::unique_ptr<Ops> reference_ = make_ops(OpsKind::kRef, *cpu_, 1, test_limits());
};

TEST_F(BlasProducts, AgreeWithTheReference) {
  struct Shape {
    int64_t inputs, rows, cols;
  };
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    // Odd sizes; more rows than go at a time.
    for (const Shape& s : {Shape{17, 48, 352}, Shape{33, 7, 37}, Shape{kMostRows, 6, 64}}) {
      SCOPED_TRACE(fmt::format("{} {} rows {} x {}", dtype_name(dtype), s.inputs, s.rows, s.cols));
      Gpu gpu(s.cols);
      EXPECT_EQ(gpu.ops().name(), "cuda, cuBLAS 99.1.2");
      EXPECT_EQ(gpu.ops().note(), "");
      const Matrix matrix(dtype, Packing::kRows, 1, s.rows, s.cols, 41);
      Floats x(s.inputs, s.cols, 42), bias(1, s.rows, 43), expected(s.inputs, s.rows);
      const Weight w = gpu.upload(matrix.weight());
      const Tensor input = gpu.upload(x.view());
      const Tensor out = gpu.floats(s.inputs, s.rows);
      for (const bool biased : {false, true}) {
        const Tensor b = biased ? bias.vector() : Tensor{};
        gpu.ops().linear(out, input, w, biased ? gpu.upload(b) : Tensor{});
        reference().linear(expected.view(), x.view(), matrix.weight(), b);
        Floats actual = gpu.download(out);
        expect_within(actual.view(),
                      expected.view(),
                      linear_tolerance(x.view(), matrix.weight(), 0, b, true));
      }
    }
  }
}

TEST_F(BlasProducts, GateAndUpAgreeWithTheReference) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    Gpu gpu(96);
    // Wider than its input: what is kept of gate and up goes by fewer rows at a time.
    const int64_t width = 500;
    const Matrix matrix(dtype, Packing::kRows, 1, 2 * width, 96, 44);
    Floats x(kMostRows / 10, 96, 45), expected(x.rows, width);
    const Tensor out = gpu.floats(x.rows, width);
    gpu.ops().gate_up(out, gpu.upload(x.view()), gpu.upload(matrix.weight()));
    reference().gate_up(expected.view(), x.view(), matrix.weight());
    Floats actual = gpu.download(out);
    expect_within(
        actual.view(), expected.view(), gate_up_tolerance(x.view(), matrix.weight(), 0, true));
  }
}

TEST_F(BlasProducts, FewRowsKeepTheirBits) {
  Gpu gpu(64);
  testing_support::EmulatedDevice device;
  OpsLimits limits = limits_of(64);
  limits.fast = false;
  cuda_emulated::CudaOps plain(device, limits, device.stream(), "cuda");
  EXPECT_EQ(plain.name(), "cuda");
  const Matrix matrix(DType::kF16, Packing::kRows, 1, 9, 64, 46);
  for (const int64_t n : {16, 17}) {
    Floats x(n, 64, 47);
    const Tensor out = gpu.floats(n, 9);
    gpu.ops().linear(out, gpu.upload(x.view()), gpu.upload(matrix.weight()));
    const Floats fast = gpu.download(out);
    const Tensor other = device.allocate(DType::kF32, {n, 9});
    const Tensor input = device.allocate(DType::kF32, {n, 64});
    const Tensor values = device.allocate(DType::kU8, {matrix.weight().value_stride()});
    device.copy(input, x.view());
    device.copy(values,
                host_tensor(const_cast<void*>(matrix.weight().values),
                            DType::kU8,
                            {matrix.weight().value_stride()}));
    Weight w = matrix.weight();
    w.values = values.data;
    plain.linear(other, input, w);
    Floats slow(n, 9);
    device.copy(slow.view(), other);
    device.wait();
    EXPECT_EQ(same_bits(fast.data, slow.data), n == 16) << n;
  }
}

// f16 ends at 65504 and loses bits below 2^-14; rows are brought to its middle first.
TEST_F(BlasProducts, RowsMayBeLargeOrSmall) {
  const Matrix matrix(DType::kF16, Packing::kRows, 1, 5, 64, 48);
  for (const float scale : {1e8f, 1e-8f, 0.0f, 1e-29f}) {
    SCOPED_TRACE(scale);
    Gpu gpu(64);
    Floats x(20, 64, 49), expected(20, 5);
    for (float& value : x.data) value *= scale;
    const Tensor out = gpu.floats(20, 5);
    gpu.ops().linear(out, gpu.upload(x.view()), gpu.upload(matrix.weight()));
    reference().linear(expected.view(), x.view(), matrix.weight());
    Floats actual = gpu.download(out);
    const auto bounds = linear_tolerance(x.view(), matrix.weight(), 0, {}, true);
    expect_within(actual.view(), expected.view(), bounds);
  }
}

TEST_F(BlasProducts, WhatIsNotFiniteShowsInItsRow) {
  const Matrix matrix(DType::kF16, Packing::kRows, 1, 3, 64, 50);
  for (const float bad : {HUGE_VALF, std::nanf("")}) {
    Gpu gpu(64);
    Floats x(18, 64, 51);
    x.data[7 * 64 + 5] = bad;
    const Tensor out = gpu.floats(18, 3);
    gpu.ops().linear(out, gpu.upload(x.view()), gpu.upload(matrix.weight()));
    const Floats actual = gpu.download(out);
    for (size_t i = 0; i < actual.data.size(); ++i)
      EXPECT_EQ(std::isfinite(actual.data[i]), i / 3 != 7) << i;
  }
}

// In a recorded step, too: nothing of the first call's is used in later ones but memory.
TEST_F(BlasProducts, StepsCanBeRecorded) {
  Gpu gpu(32);
  const Matrix matrix(DType::kBF16, Packing::kRows, 1, 8, 32, 52);
  const Weight w = gpu.upload(matrix.weight());
  const Tensor x = gpu.floats(24, 32), out = gpu.floats(24, 8);
  for (const uint64_t key : {1, 2, 3, 4}) {
    Floats input(24, 32, key), expected(24, 8);
    gpu.device().copy(x, input.view());
    gpu.device().replay(7, [&] { gpu.ops().linear(out, x, w); });
    Floats actual = gpu.download(out);
    reference().linear(expected.view(), input.view(), matrix.weight());
    expect_within(actual.view(),
                  expected.view(),
                  linear_tolerance(input.view(), matrix.weight(), 0, {}, true));
  }
}

TEST_F(BlasProducts, WithoutTheLibraryOwnKernelsDo) {
  const Matrix matrix(DType::kBF16, Packing::kRows, 1, 8, 32, 53);
  Floats x(24, 32, 54), expected(24, 8);
  reference().linear(expected.view(), x.view(), matrix.weight());
  const auto expect_own = [&](const std::string& why) {
    Gpu gpu(32);
    EXPECT_EQ(gpu.ops().name(), "cuda");
    EXPECT_NE(gpu.ops().note().find("without cuBLAS"), std::string::npos) << gpu.ops().note();
    EXPECT_NE(gpu.ops().note().find(why), std::string::npos) << gpu.ops().note();
    const Tensor out = gpu.floats(24, 8);
    gpu.ops().linear(out, gpu.upload(x.view()), gpu.upload(matrix.weight()));
    Floats actual = gpu.download(out);
    expect_within(
        actual.view(), expected.view(), linear_tolerance(x.view(), matrix.weight(), 0, {}));
  };
  setenv("GLM_FAKE_CUBLAS", "create", 1);
  expect_own("as the test told it");
  setenv("GLM_CUBLAS_LIBRARY", "off", 1);
  expect_own("GLM_CUBLAS_LIBRARY=off");
  setenv("GLM_CUBLAS_LIBRARY", "/nowhere/libcublas.so", 1);
  expect_own("/nowhere/libcublas.so");
  setenv("GLM_CUBLAS_LIBRARY", "libm.so.6", 1);
  expect_own("lacks functions");
}

TEST_F(BlasProducts, ARefusedProductIsAnError) {
  Gpu gpu(32);
  const Matrix matrix(DType::kBF16, Packing::kRows, 1, 8, 32, 55);
  Floats x(24, 32, 56);
  setenv("GLM_FAKE_CUBLAS", "gemm", 1);
  try {
    gpu.ops().linear(gpu.floats(24, 8), gpu.upload(x.view()), gpu.upload(matrix.weight()));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kRuntime);
    EXPECT_NE(std::string(error.what()).find("24 rows with a matrix of 8 x 32: as the test"),
              std::string::npos)
        << error.what();
  }
}

TEST_F(BlasProducts, TakeThePlannedMemory) {
  for (const bool half : {false, true}) {
    testing_support::EmulatedDevice device;
    OpsLimits limits = limits_of(128);
    limits.half_weights = half;
    const cuda_emulated::CudaOps ops(device, limits, device.stream(), "cuda");
    EXPECT_EQ(device.allocated_bytes(), cuda_emulated::CudaScratchPlan(limits).total());
    EXPECT_EQ(cuda_emulated::CudaScratchPlan(limits).blas() > kBlasWorkspace, half);
  }
}

}  // namespace
}  // namespace glm::testing
