// The CPU backend: threads over an instruction set's inner loops (simd.h). Work is cut into units
// whose results depend on neither threads nor neighbours, so that a row's bits are the same alone
// or in a batch. Scratch is taken once, at construction.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string_view>

#include "kernels/cpu/simd.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/ops.h"

namespace glm {

// `simd`: a level of simd_levels(), or empty for the fastest.
std::unique_ptr<Ops> make_cpu_ops(Device& device,
                                  int threads,
                                  const OpsLimits& limits,
                                  std::string_view simd);
int64_t cpu_ops_scratch_bytes(int threads, const OpsLimits& limits);

// Bytes of each part of the scratch.
struct CpuScratchPlan {
  CpuScratchPlan(int threads, const OpsLimits& limits);
  int64_t inputs;       // quantised input rows
  int64_t tile;         // per thread: two rows of tiles repacked from Packing::kRows
  int64_t attention;    // per thread: scores, sums of a split, running sums
  int64_t partials;     // results of splits that threads share out
  int64_t experts;      // list of experts that have rows
  int64_t n_partials;   // in number
  int64_t head_stride;  // floats of one sum of values
  int64_t total(int threads) const {
    return inputs + partials + experts + threads * (tile + attention);
  }
};

class CpuOps final : public Ops {
 public:
  CpuOps(Device& device, int threads, const OpsLimits& limits, const KernelTable& table);
  std::string name() const override { return std::string("cpu ") + table_.name; }

 private:
  // Rows of x as the inner loops take them: f32, or quantised in scratch.
  struct InputRows {
    const float* f32 = nullptr;
    const QuantBlock* quantized = nullptr;
    int64_t cols = 0;
  };
  // Assignments [first, first + count) of one matrix; row i of the output comes from row
  // index[i] (or i) of the input.
  struct ProductJob {
    const Weight* w = nullptr;
    int64_t matrix = 0;
    InputRows in;
    const int32_t* index = nullptr;
    int64_t first = 0;
    int64_t count = 0;
    const float* bias = nullptr;
    float* out = nullptr;
    bool gated = false;
    int64_t width() const { return gated ? w->rows / 2 : w->rows; }
  };
  struct TileView;
  struct AttentionUnit;
  struct AttentionPlan;
  struct AttentionMemory;

  // rows.cpp
  void do_embed(Tensor out, Tensor ids, const Weight& table, int64_t first_row) override;
  void do_gather_rows(Tensor out, Tensor x, Tensor index) override;
  void do_add(Tensor x, Tensor y) override;
  void do_concat_columns(Tensor out, Tensor in, const std::vector<int64_t>& widths) override;
  void do_pad_columns(Tensor out, Tensor in, int64_t first) override;
  void do_fill_random(const Weight& w,
                      int64_t first,
                      int64_t count,
                      const RandomRows& from) override;
  void do_rms_norm(Tensor out, Tensor x, Tensor weight, float eps) override;
  void do_head_norm(
      Tensor qkv, int first_head, int n_heads, int head_dim, Tensor weight, float eps) override;
  void do_rope_table(Tensor out, Tensor positions, Tensor inv_freq) override;
  void do_rope(Tensor qkv, Tensor table, const HeadLayout& heads, RopePairing pairing) override;
  // kv_store.cpp
  void do_store_kv(const KvLayer& cache,
                   Tensor qkv,
                   Tensor slots,
                   const HeadLayout& heads) override;
  // attention.cpp
  void do_attention(Tensor out,
                    Tensor qkv,
                    const KvLayer& cache,
                    const BatchRows& rows,
                    const HeadLayout& heads) override;
  void run_split(const AttentionPlan& plan,
                 const AttentionUnit& unit,
                 int split,
                 const AttentionMemory& memory) const;
  void attend_unit(const AttentionPlan& plan, int64_t index, int thread) const;
  void attend_in_parts(const AttentionPlan& plan);
  AttentionMemory attention_memory(int thread) const;
  // products.cpp
  void do_linear(Tensor out, Tensor x, const Weight& w, Tensor bias) override;
  void do_gate_up(Tensor out, Tensor x, const Weight& w) override;
  void do_expert_gate_up(Tensor out,
                         Tensor x,
                         const ExpertGroups& groups,
                         const Weight& w) override;
  void do_expert_down(Tensor out, Tensor h, const ExpertGroups& groups, const Weight& w) override;
  InputRows prepare_inputs(Tensor x, int64_t n_rows, DType dtype);
  TileView view_tile(
      const Weight& w, int64_t matrix, int64_t first_row, int n_rows, uint8_t* repacked) const;
  void multiply(
      const ProductJob& job, const TileView& tile, int64_t first, int n, float* out) const;
  void run_tile(const ProductJob& job, int64_t tile, int thread);
  void run_job(const ProductJob& job);
  void run_experts(ProductJob job, const ExpertGroups& groups);
  // moe.cpp
  void do_route(Tensor experts,
                Tensor weights,
                Tensor logits,
                Tensor bias,
                const RouterConfig& config) override;
  void do_group_rows(ExpertGroups& groups,
                     Tensor experts,
                     Tensor weights,
                     int first_expert) override;
  void do_combine(Tensor out, Tensor rows, const ExpertGroups& groups) override;

  // Rows per piece so that a piece is worth waking a thread for.
  int64_t row_grain(int64_t cols) const;

  const KernelTable& table_;
  CpuScratchPlan plan_;
  ThreadPool pool_;
  Tensor scratch_;
  QuantBlock* inputs_;
  float* partials_;
  int32_t* experts_;
  uint8_t* per_thread_;
};

}  // namespace glm
