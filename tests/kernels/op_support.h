// Inputs and backends for tests of operations: random data by key, matrices that own their planes,
// caches with shuffled pages, and the backends that a program of the op suite tests.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "kernels/ops.h"
#include "kernels/quantize.h"
#include "kernels/tolerance.h"

namespace glm::testing {

// In [-1, 1).
inline std::vector<float> random_values(int64_t n, uint64_t key) {
  std::vector<float> out(static_cast<size_t>(n));
  fill_uniform(out.data(), n, key, 0);
  for (float& x : out) x = 2 * x - 1;
  return out;
}

// Owning tensor.
struct Floats {
  std::vector<float> data;
  int64_t rows;
  int64_t cols;

  Floats(int64_t n_rows, int64_t n_cols)
      : data(static_cast<size_t>(n_rows * n_cols)), rows(n_rows), cols(n_cols) {}
  Floats(int64_t n_rows, int64_t n_cols, uint64_t key)
      : data(random_values(n_rows * n_cols, key)), rows(n_rows), cols(n_cols) {}
  Tensor view() { return host_tensor(data.data(), DType::kF32, {rows, cols}); }
  Tensor vector() { return host_tensor(data.data(), DType::kF32, {rows * cols}); }
};

struct Ints {
  std::vector<int32_t> data;
  int64_t cols;
  Ints(std::vector<int32_t> values, int64_t n_cols) : data(std::move(values)), cols(n_cols) {}
  Tensor view() {
    return host_tensor(data.data(), DType::kI32, {static_cast<int64_t>(data.size()) / cols, cols});
  }
  Tensor vector() {
    return host_tensor(data.data(), DType::kI32, {static_cast<int64_t>(data.size())});
  }
};

// A stack of matrices encoded from f32 values.
class Matrix {
 public:
  Matrix(DType dtype,
         Packing packing,
         int64_t n_matrices,
         int64_t rows,
         int64_t cols,
         const std::vector<float>& values) {
    weight_ = {dtype, packing, n_matrices, rows, cols, nullptr, nullptr};
    values_.resize(static_cast<size_t>(n_matrices * weight_.value_stride()) + 1);
    scales_.resize(static_cast<size_t>(n_matrices * weight_.scale_stride()) + 1);
    for (int64_t m = 0; m < n_matrices; ++m)
      encode_rows(values.data() + m * rows * cols,
                  rows,
                  cols,
                  dtype,
                  packing,
                  values_.data() + m * weight_.value_stride(),
                  scales_.data() + m * weight_.scale_stride());
    weight_.values = values_.data();
    weight_.scales = scales_.data();
  }
  Matrix(DType dtype, Packing packing, int64_t n_matrices, int64_t rows, int64_t cols, uint64_t key)
      : Matrix(
            dtype, packing, n_matrices, rows, cols, random_values(n_matrices * rows * cols, key)) {}
  Matrix(Matrix&&) = default;  // vectors keep their memory
  const Weight& weight() const { return weight_; }

 private:
  Weight weight_;
  std::vector<uint8_t> values_;
  std::vector<uint8_t> scales_;
};

struct Format {
  DType dtype;
  Packing packing;
};

inline std::vector<Format> all_formats() {
  return {{DType::kF32, Packing::kRows},
          {DType::kF16, Packing::kRows},
          {DType::kBF16, Packing::kRows},
          {DType::kQ80, Packing::kRows},
          {DType::kQ80, Packing::kTile16},
          {DType::kQ40, Packing::kRows},
          {DType::kQ40, Packing::kTile16}};
}

inline std::string format_name(const Format& format) {
  return std::string(dtype_name(format.dtype)) + " " + std::string(packing_name(format.packing));
}

inline OpsLimits test_limits() { return {256, 12288, 2048, 96, 128}; }

// One implementation under test.
struct Backend {
  std::string name;
  std::unique_ptr<Ops> ops;
  bool refuses_data = true;  // throws for what only looking at tensors tells: slots, rows
  bool half_bits = true;     // products of f16 and bf16 have the bits of the others, too
};
struct BackendSet {
  std::vector<std::unique_ptr<Device>> devices;
  std::vector<Backend> all;
  size_t fastest = 0;
  bool thorough = true;  // else long tests take fewer steps
};
// Defined once in every program of the op suite: the CPU's instruction sets, the emulated CUDA
// kernels, or a GPU.
BackendSet make_backends(const std::vector<int>& thread_counts);

// The implementations under test, the reference apart.
class Backends {
 public:
  explicit Backends(const std::vector<int>& thread_counts = {1, 3})
      : set_(make_backends(thread_counts)) {
    reference_ = make_ops(OpsKind::kRef, *device_, 1, test_limits());
  }
  Ops& reference() { return *reference_; }
  size_t size() const { return set_.all.size(); }
  Ops& ops(size_t i) { return *set_.all[i].ops; }
  const std::string& name(size_t i) const { return set_.all[i].name; }
  Ops& fastest() { return ops(set_.fastest); }
  bool refuses_data(size_t i) const { return set_.all[i].refuses_data; }
  bool thorough() const { return set_.thorough; }
  // Whether products with weights of `dtype` have the bits of the first backend.
  bool same_product_bits(size_t i, DType dtype) const {
    const bool half = dtype == DType::kF16 || dtype == DType::kBF16;
    return !half || set_.all[i].half_bits == set_.all[0].half_bits;
  }

 private:
  std::unique_ptr<Device> device_ = make_cpu_device();
  BackendSet set_;
  std::unique_ptr<Ops> reference_;
};

// `check` on the reference and on every implementation.
template <class Check>
void on_all(Backends& backends, Check check) {
  check(backends.reference());
  for (size_t i = 0; i < backends.size(); ++i) {
    SCOPED_TRACE(backends.name(i));
    check(backends.ops(i));
  }
}

inline void expect_within(Tensor actual, Tensor expected, const Tolerances& bounds) {
  const Deviation deviation = compare(actual, expected, bounds);
  EXPECT_FALSE(deviation.found) << "element " << deviation.index << " of " << actual.shape_text()
                                << " is " << deviation.actual << ", expected " << deviation.expected
                                << ": " << deviation.share << " times the tolerance";
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * 4) == 0);
}

// Runs `run(ops, out)` on every backend: each result within `bounds` of the reference, and all of
// them the same to the bit. `weights`: of the product, where there is one.
template <class Run>
void expect_all_agree(Backends& backends,
                      int64_t rows,
                      int64_t cols,
                      const Tolerances& bounds,
                      Run run,
                      DType weights = DType::kF32) {
  Floats expected(rows, cols);
  run(backends.reference(), expected.view());
  std::vector<float> first;
  for (size_t i = 0; i < backends.size(); ++i) {
    SCOPED_TRACE(backends.name(i));
    Floats out(rows, cols);
    run(backends.ops(i), out.view());
    expect_within(out.view(), expected.view(), bounds);
    if (i == 0) first = out.data;
    if (!backends.same_product_bits(i, weights)) continue;
    EXPECT_TRUE(same_bits(out.data, first)) << "bits differ from " << backends.name(0);
  }
}

// A cache whose pages stand in another order than the positions.
struct Cache {
  KvLayer layer;
  std::vector<uint8_t> keys;
  std::vector<uint8_t> values;
  Ints table;  // page of every 16 positions

  Cache(KvDType dtype, int n_kv_heads, int head_dim, int positions) : table({}, 1) {
    const int pages = (positions + kKvBlockTokens - 1) / kKvBlockTokens;
    const int64_t bytes = KvLayer::page_bytes(dtype, n_kv_heads, head_dim);
    keys.assign(static_cast<size_t>(pages * bytes), 0xFF);  // NaN where nothing was written
    values = keys;
    layer = {dtype, n_kv_heads, head_dim, pages, keys.data(), values.data()};
    for (int i = 0; i < pages; ++i) table.data.push_back(pages - 1 - i);
  }
  int32_t slot(int position) const {
    return table.data[static_cast<size_t>(position / kKvBlockTokens)] * kKvBlockTokens +
           position % kKvBlockTokens;
  }
};

}  // namespace glm::testing
