// Inputs and backends for tests of operations: random data by key, matrices that own their planes,
// caches with shuffled pages, one backend per instruction set of this host.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/simd_levels.h"
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

// One CPU backend per (instruction set, thread count), the reference apart.
class Backends {
 public:
  explicit Backends(std::vector<int> thread_counts = {1, 3}) {
    for (const std::string& level : simd_levels()) {
      for (const int threads : thread_counts) {
        all_.push_back(make_cpu_ops(*device_, threads, test_limits(), level));
        names_.push_back(level + " x " + std::to_string(threads));
      }
    }
    reference_ = make_ops(OpsKind::kRef, *device_, 1, test_limits());
  }
  Ops& reference() { return *reference_; }
  size_t size() const { return all_.size(); }
  Ops& ops(size_t i) { return *all_[i]; }
  const std::string& name(size_t i) const { return names_[i]; }
  // The fastest level on one thread.
  Ops& fastest() { return *all_[all_.size() - (all_.size() / simd_levels().size())]; }

 private:
  std::unique_ptr<Device> device_ = make_cpu_device();
  std::vector<std::unique_ptr<Ops>> all_;
  std::vector<std::string> names_;
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
// them the same to the bit.
template <class Run>
void expect_all_agree(
    Backends& backends, int64_t rows, int64_t cols, const Tolerances& bounds, Run run) {
  Floats expected(rows, cols);
  run(backends.reference(), expected.view());
  std::vector<float> first;
  for (size_t i = 0; i < backends.size(); ++i) {
    SCOPED_TRACE(backends.name(i));
    Floats out(rows, cols);
    run(backends.ops(i), out.view());
    expect_within(out.view(), expected.view(), bounds);
    if (i == 0) first = out.data;
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
