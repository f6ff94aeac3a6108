// Attention over the paged cache. A unit is a block of rows of one sequence with the query heads
// that share one key-value head; the cache is walked in splits of 256 absolute positions, each
// computed alone and merged in ascending order. Whether one thread walks all splits of a unit or
// threads share them out does not change a bit. SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/kv_page.h"

namespace glm {

// What all units of a call have in common.
struct CpuOps::AttentionPlan {
  const KvLayer& cache;
  const HeadLayout& heads;
  const BatchRows& rows;
  const float* qkv;
  float* out;
  KvPageLayout page;
  int64_t stride;        // floats of a sum of values
  int heads_per_unit;    // of one group
  int chunks_per_group;  // units that share a group's heads
  int rows_per_unit;
  int n_splits;  // of the longest sequence

  const SequenceSpan* spans() const { return rows.spans.as<SequenceSpan>(); }
  int64_t units_of(const SequenceSpan& span) const {
    return int64_t{(span.n_rows + rows_per_unit - 1) / rows_per_unit} * heads.n_kv_heads *
           chunks_per_group;
  }
  int64_t n_units() const {
    int64_t sum = 0;
    for (int s = 0; s < rows.n_spans; ++s) sum += units_of(spans()[s]);
    return sum;
  }
};

// Queries of a unit: (row, head) pairs with the number of positions each sees.
struct CpuOps::AttentionUnit {
  int n = 0;
  int kv_head = 0;
  int longest = 0;
  const int32_t* pages = nullptr;
  int64_t rows[kMaxQueries];
  int heads[kMaxQueries];
  int visible[kMaxQueries];

  AttentionUnit(const AttentionPlan& plan, int64_t unit) {
    const SequenceSpan* span = plan.spans();
    while (unit >= plan.units_of(*span)) unit -= plan.units_of(*span++);
    pages = plan.rows.block_table.i32() + span->first_block;
    const int chunk = static_cast<int>(unit % plan.chunks_per_group);
    unit /= plan.chunks_per_group;
    kv_head = static_cast<int>(unit % plan.heads.n_kv_heads);
    const int first_row = static_cast<int>(unit / plan.heads.n_kv_heads) * plan.rows_per_unit;
    const int ratio = plan.heads.ratio;
    const int group_begin = kv_head * ratio - plan.heads.first_head;
    const int first_head = std::max(0, group_begin + chunk * plan.heads_per_unit);
    const int last_head = std::min(
        {plan.heads.n_heads, group_begin + ratio, group_begin + (chunk + 1) * plan.heads_per_unit});
    const int last_row = std::min(span->n_rows, first_row + plan.rows_per_unit);
    for (int row = first_row; row < last_row; ++row) {
      for (int head = first_head; head < last_head; ++head) {
        rows[n] = span->first_row + row;
        heads[n] = head;
        visible[n] = span->position + row + 1;
        longest = std::max(longest, visible[n]);
        ++n;
      }
    }
  }
};

// Scratch of one thread, and the results of one split for the queries of a unit.
struct CpuOps::AttentionMemory {
  float* scores;   // [kMaxQueries][256]
  float* sums;     // [kMaxQueries][stride]
  float* running;  // [kMaxQueries][stride]
  float* largest;  // [kMaxQueries]
  float* totals;   // [kMaxQueries]
};

CpuOps::AttentionMemory CpuOps::attention_memory(int thread) const {
  auto* next =
      reinterpret_cast<float*>(per_thread_ + thread * (plan_.tile + plan_.attention) + plan_.tile);
  AttentionMemory memory{};
  memory.scores = next;
  memory.sums = memory.scores + kMaxQueries * kSplitPositions;
  memory.running = memory.sums + kMaxQueries * plan_.head_stride;
  memory.largest = memory.running + kMaxQueries * plan_.head_stride;
  memory.totals = memory.largest + kMaxQueries;
  return memory;
}

void CpuOps::run_split(const AttentionPlan& plan,
                       const AttentionUnit& unit,
                       int split,
                       const AttentionMemory& memory) const {
  const int begin = split * kSplitPositions;
  const float* queries[kMaxQueries];
  int32_t limits[kMaxQueries];
  for (int i = 0; i < unit.n; ++i) {
    queries[i] = plan.qkv + unit.rows[i] * plan.heads.row_width() +
                 int64_t{unit.heads[i]} * plan.heads.head_dim;
    limits[i] = std::clamp(unit.visible[i] - begin, 0, kSplitPositions);
  }
  const KvDType dtype = plan.cache.dtype;
  const int64_t size = dtype == KvDType::kF32 ? 4 : (dtype == KvDType::kF16 ? 2 : 1);
  SplitAttention a{};
  a.keys = static_cast<const uint8_t*>(plan.cache.keys);
  a.values = static_cast<const uint8_t*>(plan.cache.values);
  a.pages = unit.pages + begin / kKvBlockTokens;
  a.n_pages = (unit.longest - begin + kKvBlockTokens - 1) / kKvBlockTokens;
  a.page_bytes = plan.page.bytes();
  a.head_bytes = plan.page.key(unit.kv_head, 0, 0) * size;
  a.key_scale_bytes = plan.page.scales() + 4 * plan.page.key_scale(unit.kv_head, 0, 0);
  a.value_scale_bytes = plan.page.scales() + 4 * plan.page.value_scale(unit.kv_head, 0, 0);
  a.head_dim = plan.heads.head_dim;
  a.scale = 1.0f / std::sqrt(static_cast<float>(plan.heads.head_dim));
  a.n_queries = unit.n;
  a.queries = queries;
  a.limits = limits;
  a.scores = memory.scores;
  a.sums = memory.sums;
  a.stride = plan.stride;
  a.largest = memory.largest;
  a.totals = memory.totals;
  if (dtype == KvDType::kF32)
    table_.attend_f32(a);
  else
    (dtype == KvDType::kF16 ? table_.attend_f16 : table_.attend_q8)(a);
}

// All splits of one unit, merged as they come.
void CpuOps::attend_unit(const AttentionPlan& plan, int64_t index, int thread) const {
  const AttentionUnit unit(plan, index);
  const AttentionMemory memory = attention_memory(thread);
  float largest[kMaxQueries];
  float totals[kMaxQueries];
  std::fill(largest, largest + unit.n, -std::numeric_limits<float>::infinity());
  std::fill(totals, totals + unit.n, 0.0f);
  std::fill(memory.running, memory.running + unit.n * plan.stride, 0.0f);
  for (int split = 0; split * kSplitPositions < unit.longest; ++split) {
    run_split(plan, unit, split, memory);
    for (int i = 0; i < unit.n; ++i) {
      if (unit.visible[i] <= split * kSplitPositions) continue;
      table_.merge_split(&largest[i],
                         &totals[i],
                         memory.running + i * plan.stride,
                         memory.largest[i],
                         memory.totals[i],
                         memory.sums + i * plan.stride,
                         plan.stride);
    }
  }
  for (int i = 0; i < unit.n; ++i) {
    const int64_t at = unit.rows[i] * plan.heads.n_heads + unit.heads[i];
    table_.divide(memory.running + i * plan.stride,
                  totals[i],
                  plan.heads.head_dim,
                  plan.out + at * plan.heads.head_dim);
  }
}

// Threads share the splits of all units; partial results stand as [row][head][split] and are merged
// per (row, head) afterwards.
void CpuOps::attend_in_parts(const AttentionPlan& plan) {
  const int64_t n_splits = plan.n_splits;
  const int64_t size = 2 + plan.stride;
  const int64_t n_heads = plan.heads.n_heads;
  pool_.parallel_for(plan.n_units() * n_splits, 1, [&](int64_t begin, int64_t end, int thread) {
    const AttentionMemory memory = attention_memory(thread);
    for (int64_t item = begin; item < end; ++item) {
      const AttentionUnit unit(plan, item / n_splits);
      const int split = static_cast<int>(item % n_splits);
      if (split * kSplitPositions >= unit.longest) continue;
      run_split(plan, unit, split, memory);
      for (int i = 0; i < unit.n; ++i) {
        float* part =
            partials_ + ((unit.rows[i] * n_heads + unit.heads[i]) * n_splits + split) * size;
        part[0] = memory.largest[i];
        part[1] = memory.totals[i];
        std::copy_n(memory.sums + i * plan.stride, plan.stride, part + 2);
      }
    }
  });
  pool_.parallel_for(plan.n_units(), 1, [&](int64_t begin, int64_t end, int thread) {
    float* running = attention_memory(thread).running;
    for (int64_t index = begin; index < end; ++index) {
      const AttentionUnit unit(plan, index);
      for (int i = 0; i < unit.n; ++i) {
        const int64_t at = unit.rows[i] * n_heads + unit.heads[i];
        float largest = -std::numeric_limits<float>::infinity();
        float total = 0.0f;
        std::fill(running, running + plan.stride, 0.0f);
        for (int split = 0; split * kSplitPositions < unit.visible[i]; ++split) {
          const float* part = partials_ + (at * n_splits + split) * size;
          table_.merge_split(&largest, &total, running, part[0], part[1], part + 2, plan.stride);
        }
        table_.divide(running, total, plan.heads.head_dim, plan.out + at * plan.heads.head_dim);
      }
    }
  });
}

void CpuOps::do_attention(
    Tensor out, Tensor qkv, const KvLayer& cache, const BatchRows& rows, const HeadLayout& heads) {
  if (rows.n_rows == 0 || heads.n_heads == 0) return;
  const int64_t stride = (int64_t{heads.head_dim} + 15) / 16 * 16;
  GLM_CHECK(stride <= plan_.head_stride, "heads of {} exceed the limits", heads.head_dim);
  const int chunks = (heads.ratio + kMaxQueries - 1) / kMaxQueries;
  const int heads_per_unit = (heads.ratio + chunks - 1) / chunks;
  const int seen_heads = std::min(heads_per_unit, heads.n_heads);
  AttentionPlan plan{cache,
                     heads,
                     rows,
                     qkv.f32(),
                     out.f32(),
                     KvPageLayout(cache),
                     stride,
                     heads_per_unit,
                     chunks,
                     kMaxQueries / seen_heads,
                     0};
  int longest = 0;
  for (int s = 0; s < rows.n_spans; ++s)
    if (plan.spans()[s].n_rows > 0)
      longest = std::max(longest, plan.spans()[s].position + plan.spans()[s].n_rows);
  plan.n_splits = (longest + kSplitPositions - 1) / kSplitPositions;
  const int64_t n_units = plan.n_units();
  const bool fits =
      int64_t{rows.n_rows} * heads.n_heads * plan.n_splits * (2 + stride) * 4 <= plan_.partials;
  if (pool_.threads() > 1 && plan.n_splits > 1 && n_units < 8 * pool_.threads() && fits) {
    attend_in_parts(plan);
    return;
  }
  pool_.parallel_for(n_units, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t unit = begin; unit < end; ++unit) attend_unit(plan, unit, thread);
  });
}

}  // namespace glm
