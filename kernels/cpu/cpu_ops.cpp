// Construction and scratch of the CPU backend. SPDX-License-Identifier: MIT
#include "kernels/cpu/cpu_ops.h"

#include <algorithm>

#include "kernels/cpu/simd_levels.h"

namespace glm {
namespace {

int64_t padded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

CpuScratchPlan::CpuScratchPlan(int threads, const OpsLimits& limits) {
  const int64_t blocks = (limits.max_cols + kQuantBlock - 1) / kQuantBlock;
  const auto block_bytes = static_cast<int64_t>(sizeof(QuantBlock));
  inputs = padded(limits.max_rows * blocks * block_bytes);
  tile = padded(2 * blocks * kTileRows * (kQuantBlock + 2));
  head_stride = (int64_t{limits.max_head_dim} + 15) / 16 * 16;
  attention = padded(4 * kMaxQueries * (kSplitPositions + 2 * head_stride + 2));
  const int64_t splits = (limits.max_context + kSplitPositions - 1) / kSplitPositions;
  n_partials = threads == 1 ? 0 : 2 * limits.max_heads * splits;
  partials = padded(4 * n_partials * (2 + head_stride));
  experts = padded(4 * limits.max_rows);
}

int64_t cpu_ops_scratch_bytes(int threads, const OpsLimits& limits) {
  return CpuScratchPlan(threads, limits).total(threads);
}

std::unique_ptr<Ops> make_cpu_ops(Device& device,
                                  int threads,
                                  const OpsLimits& limits,
                                  std::string_view simd) {
  return std::make_unique<CpuOps>(device, threads, limits, choose_kernels(simd));
}

CpuOps::CpuOps(Device& device, int threads, const OpsLimits& limits, const KernelTable& table)
    : table_(table), plan_(threads, limits), pool_(threads) {
  scratch_ = device.allocate(DType::kU8, {plan_.total(threads)});
  auto* next = scratch_.as<uint8_t>();
  inputs_ = reinterpret_cast<QuantBlock*>(next);
  next += plan_.inputs;
  partials_ = reinterpret_cast<float*>(next);
  next += plan_.partials;
  experts_ = reinterpret_cast<int32_t*>(next);
  next += plan_.experts;
  per_thread_ = next;
}

int64_t CpuOps::row_grain(int64_t cols) const {
  constexpr int64_t kPiece = 32768;  // f32 values: about 5 us
  return std::max<int64_t>(1, kPiece / std::max<int64_t>(1, cols));
}

}  // namespace glm
