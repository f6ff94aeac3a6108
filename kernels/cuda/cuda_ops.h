// The CUDA backend: chooses shapes of launches from what the host knows (numbers of rows, never
// what is in them) and enqueues kernels on the device's stream. Nothing waits or allocates after
// construction, so a step can be recorded as a graph. What the CPU refuses by looking at data (a
// cache slot or a row outside) is skipped or shown as NaN here. SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/blas.h"
#include "kernels/cuda/launchers.h"
#include "kernels/ops.h"

namespace glm {
namespace GLM_CUDA_SPACE {

// Limits of the scratch, in bytes of each part.
struct CudaScratchPlan {
  explicit CudaScratchPlan(const OpsLimits& limits);
  int64_t inputs;     // quantised input rows: values
  int64_t scales;     // and scales
  int64_t items;      // work on experts, and its length
  int64_t partials;   // results of splits of the cache
  int64_t max_items;  // in number
  // For products by cuBLAS, and its own workspace: 0 where it is not wanted.
  int64_t workspace = 0;
  int64_t parts = 0;        // inputs of f16 or bf16: high or low
  int64_t part_scales = 0;  // of their rows
  int64_t sums = 0;         // of gate and up
  int64_t max_piece = 0;    // rows of a product
  int64_t blas() const { return workspace + 2 * parts + part_scales + sums; }
  int64_t total() const { return inputs + scales + items + partials + blas(); }
};

class CudaOps final : public Ops {
 public:
  CudaOps(Device& device, const OpsLimits& limits, Stream stream, std::string name);
  std::string name() const override { return name_; }
  std::string note() const override { return note_; }

 private:
  void do_embed(Tensor out, Tensor ids, const Weight& table, int64_t first_row) override;
  void do_rms_norm(Tensor out, Tensor x, Tensor weight, float eps) override;
  void do_head_norm(
      Tensor qkv, int first_head, int n_heads, int head_dim, Tensor weight, float eps) override;
  void do_rope_table(Tensor out, Tensor positions, Tensor inv_freq) override;
  void do_rope(Tensor qkv, Tensor table, const HeadLayout& heads, RopePairing pairing) override;
  void do_store_kv(const KvLayer& cache,
                   Tensor qkv,
                   Tensor slots,
                   const HeadLayout& heads) override;
  void do_attention(Tensor out,
                    Tensor qkv,
                    const KvLayer& cache,
                    const BatchRows& rows,
                    const HeadLayout& heads) override;
  void do_linear(Tensor out, Tensor x, const Weight& w, Tensor bias) override;
  void do_gate_up(Tensor out, Tensor x, const Weight& w) override;
  void do_route(Tensor experts,
                Tensor weights,
                Tensor logits,
                Tensor bias,
                const RouterConfig& config) override;
  void do_group_rows(ExpertGroups& groups,
                     Tensor experts,
                     Tensor weights,
                     int first_expert) override;
  void do_expert_gate_up(Tensor out,
                         Tensor x,
                         const ExpertGroups& groups,
                         const Weight& w) override;
  void do_expert_down(Tensor out, Tensor h, const ExpertGroups& groups, const Weight& w) override;
  void do_combine(Tensor out, Tensor rows, const ExpertGroups& groups) override;
  void do_gather_rows(Tensor out, Tensor x, Tensor index) override;
  void do_add(Tensor x, Tensor y) override;
  void do_concat_columns(Tensor out, Tensor in, const std::vector<int64_t>& widths) override;
  void do_pad_columns(Tensor out, Tensor in, int64_t first) override;
  void do_add_rms_norm(Tensor out, Tensor x, Tensor y, Tensor weight, float eps) override;
  void do_place_heads(const KvLayer& cache,
                      Tensor qkv,
                      Tensor slots,
                      const HeadLayout& heads,
                      const HeadTurn& turn) override;
  void do_combine_add(Tensor out, Tensor rows, const ExpertGroups& groups, Tensor addend) override;
  void do_copy_rows(
      RowCopies& out, Tensor experts, Tensor weights, Tensor borders, int slices) override;
  void do_split_routing(Tensor experts, Tensor weights, Tensor routing) override;
  void do_fill_random(const Weight& w,
                      int64_t first,
                      int64_t count,
                      const RandomRows& from) override;

  // A product to run: rows of x with the matrices of w; groups where experts share them out.
  struct Product {
    Tensor out;
    Tensor x;
    const Weight& w;
    bool gated = false;
    Tensor bias = {};
    const ExpertGroups* groups = nullptr;
    bool by_row = false;  // inputs are rows of a step, not assignments
  };
  void run(const Product& product);
  bool takes_blas(const Product& product) const;
  void run_blas(const Product& product);
  void run_combine(Tensor out, Tensor rows, const ExpertGroups& groups, const float* addend);
  static StoreArgs store_args(const KvLayer& cache,
                              Tensor qkv,
                              Tensor slots,
                              const HeadLayout& heads);

  CudaScratchPlan plan_;
  Stream stream_;
  std::string name_;
  std::string note_;
  bool fast_;
  Tensor scratch_;
  uint8_t* inputs_;
  QuantScale* scales_;
  WorkItem* items_;
  int32_t* n_items_;
  float* partials_;
  // cuBLAS and what it works with; absent without it.
  std::unique_ptr<Blas> blas_;
  Tensor blas_scratch_;
};

}  // namespace GLM_CUDA_SPACE

// Operations for a GPU of make_cuda_device. Without CUDA in the build an Error(kUsage).
std::unique_ptr<Ops> make_cuda_ops(Device& device, const OpsLimits& limits);
// Bytes that make_cuda_ops takes.
int64_t cuda_ops_scratch_bytes(const OpsLimits& limits);

}  // namespace glm
