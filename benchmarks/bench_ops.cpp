// Times the operations over the cases of kernels/cases.h: decode (few rows) from weights colder
// than the caches, prefill (many rows), attention over long caches.
// SPDX-License-Identifier: MIT
#include <cstdio>
#include <exception>
#include <memory>
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
  Device& device;
  Ops& ops;
};

constexpr int64_t kMaxRows = 256;

Tensor random_tensor(Device& device, int64_t rows, int64_t cols) {
  const Tensor t = device.allocate(DType::kF32, {rows, cols});
  fill_uniform(t.f32(), t.elements(), 7, 0);
  for (int64_t i = 0; i < t.elements(); ++i) t.f32()[i] = 2 * t.f32()[i] - 1;
  return t;
}

// Random bytes with scales of one size: as fast to read as any matrix, and quick to make.
Weight random_weight(Device& device, DType dtype, int64_t n, int64_t rows, int64_t cols) {
  Weight w;
  w.dtype = dtype;
  w.packing = is_quantized(dtype) && rows % kTileRows == 0 ? Packing::kTile16 : Packing::kRows;
  w.n_matrices = n;
  w.rows = rows;
  w.cols = cols;
  const Tensor values = device.allocate(DType::kU8, {n * w.value_stride()});
  const Tensor scales = device.allocate(DType::kU8, {n * w.scale_stride()});
  auto* words = values.as<uint32_t>();
  // Bits of small numbers for plain types, anything for quantised ones.
  const uint32_t mask = dtype == DType::kF32 ? 0x3F7FFFFFu : 0x3C003C00u | 0x03FF03FFu;
  for (int64_t i = 0; i < values.bytes() / 4; ++i) {
    const auto noise = static_cast<uint32_t>(i * 2654435761u);
    words[i] = is_quantized(dtype) ? noise : (noise & mask) | 0x30003000u;
  }
  for (int64_t i = 0; i < scales.bytes() / 2; ++i) scales.as<uint16_t>()[i] = 0x2000;
  w.values = values.data;
  w.scales = scales.data;
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
        const auto device = make_cpu_device();
        const Weight one{dtype, Packing::kRows, 1, shape.rows, shape.cols, nullptr, nullptr};
        const int64_t copies = rows > 4 ? 1 : cold_copies(one.bytes(), 64);
        const Weight stack = random_weight(*device, dtype, copies, shape.rows, shape.cols);
        const Tensor x = random_tensor(*device, rows, shape.cols);
        const Tensor out = device->allocate(DType::kF32, {rows, shape.rows});
        const Timing timing = measure(bench.options, [&](int64_t i) {
          bench.ops.linear(out, x, matrix_of(stack, i % copies));
        });
        bench.report.add(name, timing, linear_work(rows, one));
      }
    }
  }
}

// Round robin over the experts: row t takes experts t * top_k, t * top_k + 1, ...
ExpertGroups make_groups(const Bench& bench,
                         Device& device,
                         const ExpertCase& shape,
                         int64_t rows) {
  const int64_t k = shape.top_k;
  ExpertGroups groups;
  groups.n_experts = shape.n_experts;
  groups.capacity = rows * k;
  groups.offsets = device.allocate(DType::kI32, {shape.n_experts + int64_t{1}});
  groups.rows = device.allocate(DType::kI32, {rows * k});
  groups.order = device.allocate(DType::kI32, {rows, k});
  groups.weights = device.allocate(DType::kF32, {rows, k});
  const Tensor experts = device.allocate(DType::kI32, {rows, k});
  const Tensor weights = device.allocate(DType::kF32, {rows, k});
  for (int64_t i = 0; i < rows * k; ++i)
    experts.i32()[i] = static_cast<int32_t>(i % shape.n_experts);
  bench.ops.group_rows(groups, experts, weights, 0);
  return groups;
}

void bench_experts(const Bench& bench) {
  for (const ExpertCase& shape : expert_cases()) {
    if (!shape.benchmark) continue;
    for (const int64_t rows : {1, 32}) {
      const std::string name = fmt::format("experts {} q40 rows {}", shape.name, rows);
      if (!bench.report.wants(name)) continue;
      const auto device = make_cpu_device();
      const Weight up =
          random_weight(*device, DType::kQ40, shape.n_experts, 2 * shape.width, shape.hidden);
      const Weight down =
          random_weight(*device, DType::kQ40, shape.n_experts, shape.hidden, shape.width);
      const ExpertGroups groups = make_groups(bench, *device, shape, rows);
      const Tensor x = random_tensor(*device, rows, shape.hidden);
      const Tensor h = device->allocate(DType::kF32, {groups.capacity, shape.width});
      const Tensor y = device->allocate(DType::kF32, {groups.capacity, shape.hidden});
      const ExpertLoad load = expert_load(groups);
      Timing timing =
          measure(bench.options, [&](int64_t) { bench.ops.expert_gate_up(h, x, groups, up); });
      bench.report.add(name + " gate_up", timing, expert_work(load.assignments, load.active, up));
      timing = measure(bench.options, [&](int64_t) { bench.ops.expert_down(y, h, groups, down); });
      bench.report.add(name + " down", timing, expert_work(load.assignments, load.active, down));
    }
  }
}

void bench_attention(const Bench& bench) {
  for (const AttentionCase& shape : attention_cases()) {
    if (!shape.benchmark) continue;
    const HeadLayout heads = shape.layout();
    for (const KvDType dtype : {KvDType::kF16, KvDType::kQ8}) {
      for (const int n_rows : {1, 64}) {
        constexpr int kContext = 4096;
        const std::string name = fmt::format("attention {} {} context {} rows {}",
                                             shape.name,
                                             kv_dtype_name(dtype),
                                             kContext,
                                             n_rows);
        if (!bench.report.wants(name)) continue;
        const auto device = make_cpu_device();
        constexpr int kPages = kContext / kKvBlockTokens;
        const int64_t bytes = kPages * KvLayer::page_bytes(dtype, shape.n_kv_heads, shape.head_dim);
        const Tensor keys = device->allocate(DType::kU8, {bytes});
        const Tensor values = device->allocate(DType::kU8, {bytes});
        const KvLayer cache{
            dtype, shape.n_kv_heads, shape.head_dim, kPages, keys.data, values.data};
        BatchRows rows;
        rows.n_rows = n_rows;
        rows.n_spans = 1;
        rows.max_context = kContext;
        rows.spans = device->allocate(DType::kI32, {1, 4});
        rows.spans.as<SequenceSpan>()[0] = {0, n_rows, kContext - n_rows, 0};
        rows.block_table = device->allocate(DType::kI32, {kPages});
        for (int i = 0; i < kPages; ++i) rows.block_table.i32()[i] = i;
        const Tensor qkv = random_tensor(*device, n_rows, heads.row_width());
        const Tensor out =
            device->allocate(DType::kF32, {n_rows, int64_t{heads.n_heads} * heads.head_dim});
        const Timing timing = measure(
            bench.options, [&](int64_t) { bench.ops.attention(out, qkv, cache, rows, heads); });
        const AttentionLoad load = attention_load(rows);
        bench.report.add(name, timing, attention_work(load.positions, load.pairs, cache, heads));
      }
    }
  }
}

int run(int argc, char** argv) {
  const Options options = parse_options(argc, argv);
  const Report report(options, "bench_ops");
  const auto device = make_cpu_device();
  const auto ops =
      make_ops(OpsKind::kAuto, *device, options.threads, {kMaxRows, 12288, 4096, 96, 128});
  const Bench bench{options, report, *device, *ops};
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
