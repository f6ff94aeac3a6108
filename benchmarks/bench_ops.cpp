// Times the operations over the cases of kernels/cases.h, on the CPU or on a GPU: decode (few rows)
// from weights colder than the caches, prefill (many rows), attention over long caches.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstdio>
#include <exception>
#include <memory>
#include <numeric>
#include <vector>

#include "benchmarks/harness.h"
#include "core/base/check.h"
#include "core/base/rng.h"
#include "kernels/cases.h"
#include "kernels/cost.h"
#include "kernels/ops.h"
#include "kernels/quantize.h"

namespace glm::bench {
namespace {

struct Bench {
  const Options& options;
  const Report& report;
};

constexpr OpsLimits kLimits = {256, 12288, 4096, 96, 128, true, true};

// Where one case runs; its memory goes with it.
struct Place {
  explicit Place(const Options& options)
      : device(make_device(options)),
        ops(make_ops(OpsKind::kAuto, *device, options.threads, kLimits)) {}
  std::unique_ptr<Device> device;
  std::unique_ptr<Ops> ops;
};

Tensor random_tensor(Device& device, int64_t rows, int64_t cols) {
  std::vector<float> values(static_cast<size_t>(rows * cols));
  fill_uniform(values.data(), rows * cols, 7, 0);
  for (float& value : values) value = 2 * value - 1;
  return upload(device, host_tensor(values.data(), DType::kF32, {rows, cols}));
}

Tensor numbers(Device& device, std::vector<int32_t> values, int64_t rows) {
  const auto n = static_cast<int64_t>(values.size());
  return upload(device, host_tensor(values.data(), DType::kI32, {rows, n / rows}));
}

Weight random_weight(const Place& place, DType dtype, int64_t n, int64_t rows, int64_t cols) {
  Weight w;
  w.dtype = dtype;
  w.packing = is_quantized(dtype) && rows % kTileRows == 0 ? Packing::kTile16 : Packing::kRows;
  w.n_matrices = n;
  w.rows = rows;
  w.cols = cols;
  w.values = place.device->allocate(DType::kU8, {n * w.value_stride()}).data;
  w.scales = place.device->allocate(DType::kU8, {n * w.scale_stride()}).data;
  RandomRows from;
  from.key = 11;
  from.low = -0.02f;
  from.width = 0.04f;
  from.rows = rows;
  from.cols = cols;
  place.ops->fill_random(w, 0, rows, from);
  return w;
}

// Matrix number `i` of a stack.
Weight matrix_of(const Weight& stack, int64_t i) {
  Weight w = stack;
  w.n_matrices = 1;
  w.values = static_cast<const uint8_t*>(stack.values) + i * stack.value_stride();
  w.scales = static_cast<const uint8_t*>(stack.scales) + i * stack.scale_stride();
  return w;
}

void bench_products(const Bench& bench) {
  for (const ProductCase& shape : product_cases()) {
    if (!shape.benchmark) continue;
    for (const DType dtype : {DType::kQ40, DType::kQ80, DType::kBF16}) {
      for (const int64_t rows : {1, 4, 64}) {
        const std::string name = fmt::format("linear {} {} {}x{} rows {}",
                                             shape.name,
                                             dtype_name(dtype),
                                             shape.rows,
                                             shape.cols,
                                             rows);
        if (!bench.report.wants(name) || (rows > 4 && shape.rows > 20000)) continue;
        const Place place(bench.options);
        const Weight one{dtype, Packing::kRows, 1, shape.rows, shape.cols, nullptr, nullptr};
        const int64_t copies = rows > 4 ? 1 : cold_copies(*place.device, one.bytes(), 64);
        const Weight stack = random_weight(place, dtype, copies, shape.rows, shape.cols);
        const Tensor x = random_tensor(*place.device, rows, shape.cols);
        const Tensor out = place.device->allocate(DType::kF32, {rows, shape.rows});
        const Timing timing = measure(bench.options, *place.device, [&](int64_t i) {
          place.ops->linear(out, x, matrix_of(stack, i % copies));
        });
        bench.report.add(name, timing, linear_work(rows, one));
      }
    }
  }
}

// Round robin over the experts: row t takes experts t * top_k, t * top_k + 1, ...
ExpertGroups make_groups(const Place& place, const ExpertCase& shape, int64_t rows) {
  Device& device = *place.device;
  const int64_t k = shape.top_k;
  ExpertGroups groups;
  groups.n_experts = shape.n_experts;
  groups.capacity = rows * k;
  groups.offsets = device.allocate(DType::kI32, {shape.n_experts + int64_t{1}});
  groups.rows = device.allocate(DType::kI32, {rows * k});
  groups.order = device.allocate(DType::kI32, {rows, k});
  groups.weights = device.allocate(DType::kF32, {rows, k});
  std::vector<int32_t> chosen(static_cast<size_t>(rows * k));
  for (size_t i = 0; i < chosen.size(); ++i)
    chosen[i] = static_cast<int32_t>(i % static_cast<size_t>(shape.n_experts));
  const Tensor experts = numbers(device, chosen, rows);
  const Tensor weights = device.allocate(DType::kF32, {rows, k});
  place.ops->group_rows(groups, experts, weights, 0);
  return groups;
}

void bench_experts(const Bench& bench) {
  for (const ExpertCase& shape : expert_cases()) {
    if (!shape.benchmark) continue;
    for (const int64_t rows : {1, 32}) {
      const std::string name = fmt::format("experts {} q40 rows {}", shape.name, rows);
      if (!bench.report.wants(name)) continue;
      const Place place(bench.options);
      Device& device = *place.device;
      const Weight up =
          random_weight(place, DType::kQ40, shape.n_experts, 2 * shape.width, shape.hidden);
      const Weight down =
          random_weight(place, DType::kQ40, shape.n_experts, shape.hidden, shape.width);
      const ExpertGroups groups = make_groups(place, shape, rows);
      const Tensor x = random_tensor(device, rows, shape.hidden);
      const Tensor h = device.allocate(DType::kF32, {groups.capacity, shape.width});
      const Tensor y = device.allocate(DType::kF32, {groups.capacity, shape.hidden});
      const int64_t active = std::min<int64_t>(shape.n_experts, groups.capacity);
      const auto gate_up = [&](int64_t) { place.ops->expert_gate_up(h, x, groups, up); };
      const auto go_down = [&](int64_t) { place.ops->expert_down(y, h, groups, down); };
      bench.report.add(name + " gate_up",
                       measure(bench.options, device, gate_up),
                       expert_work(groups.capacity, active, up));
      bench.report.add(name + " down",
                       measure(bench.options, device, go_down, 2),
                       expert_work(groups.capacity, active, down));
    }
  }
}

void bench_attention(const Bench& bench) {
  for (const AttentionCase& shape : attention_cases()) {
    if (!shape.benchmark) continue;
    const HeadLayout heads = shape.layout();
    for (const KvDType dtype : {KvDType::kF16, KvDType::kQ8}) {
      for (const int n_rows : {1, 64, 2048}) {
        constexpr int kContext = 4096;
        const std::string name = fmt::format("attention {} {} context {} rows {}",
                                             shape.name,
                                             kv_dtype_name(dtype),
                                             kContext,
                                             n_rows);
        if (!bench.report.wants(name)) continue;
        const Place place(bench.options);
        Device& device = *place.device;
        if (n_rows > 64 && device.is_host()) continue;  // seconds each, and no other code
        constexpr int kPages = kContext / kKvBlockTokens;
        const int64_t bytes = kPages * KvLayer::page_bytes(dtype, shape.n_kv_heads, shape.head_dim);
        const Tensor keys = device.allocate(DType::kU8, {bytes});
        const Tensor values = device.allocate(DType::kU8, {bytes});
        const KvLayer cache{
            dtype, shape.n_kv_heads, shape.head_dim, kPages, keys.data, values.data};
        BatchRows rows;
        rows.n_rows = n_rows;
        rows.n_spans = 1;
        rows.max_context = kContext;
        SequenceSpan span = {0, n_rows, kContext - n_rows, 0};
        rows.spans = host_tensor(&span, DType::kI32, {1, 4});
        const AttentionLoad load = attention_load(rows);
        rows.spans = upload(device, rows.spans);
        std::vector<int32_t> pages(kPages);
        std::iota(pages.begin(), pages.end(), 0);
        rows.block_table = numbers(device, pages, kPages);
        const Tensor qkv = random_tensor(device, n_rows, heads.row_width());
        const Tensor out =
            device.allocate(DType::kF32, {n_rows, int64_t{heads.n_heads} * heads.head_dim});
        const Timing timing = measure(bench.options, device, [&](int64_t) {
          place.ops->attention(out, qkv, cache, rows, heads);
        });
        bench.report.add(name, timing, attention_work(load.positions, load.pairs, cache, heads));
      }
    }
  }
}

int run(int argc, char** argv) {
  const Options options = parse_options(argc, argv);
  const auto device = make_device(options);
  const Report report(options, "bench_ops", *device);
  const Bench bench{options, report};
  bench_products(bench);
  bench_experts(bench);
  bench_attention(bench);
  report.finish();
  return 0;
}

}  // namespace
}  // namespace glm::bench

int main(int argc, char** argv) {
  try {
    return glm::bench::run(argc, argv);
  } catch (const glm::Error& error) {
    fmt::print(stderr, "bench_ops: error: {}\n", error.what());
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_ops: error: {}\n", error.what());
    return 1;
  }
}
