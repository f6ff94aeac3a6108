// The reference: every operation as plain loops on one thread, sums in double, rounded to f32 where
// the definition rounds (docs/numerics.md). It is the documentation of what an operation computes,
// runs whole small models, and every other backend is compared with it.
// SPDX-License-Identifier: MIT
#pragma once

#include "kernels/ops.h"

namespace glm {

class RefOps : public Ops {
 public:
  std::string name() const override { return "ref"; }

 private:
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
  // norm_rope.cpp
  void do_rms_norm(Tensor out, Tensor x, Tensor weight, float eps) override;
  void do_head_norm(
      Tensor qkv, int first_head, int n_heads, int head_dim, Tensor weight, float eps) override;
  void do_rope_table(Tensor out, Tensor positions, Tensor inv_freq) override;
  void do_rope(Tensor qkv, Tensor table, const HeadLayout& heads, RopePairing pairing) override;
  // attention.cpp
  void do_store_kv(const KvLayer& cache,
                   Tensor qkv,
                   Tensor slots,
                   const HeadLayout& heads) override;
  void do_attention(Tensor out,
                    Tensor qkv,
                    const KvLayer& cache,
                    const BatchRows& rows,
                    const HeadLayout& heads) override;
  // linear.cpp
  void do_linear(Tensor out, Tensor x, const Weight& w, Tensor bias) override;
  void do_gate_up(Tensor out, Tensor x, const Weight& w) override;
  void do_expert_gate_up(Tensor out,
                         Tensor x,
                         const ExpertGroups& groups,
                         const Weight& w) override;
  void do_expert_down(Tensor out, Tensor h, const ExpertGroups& groups, const Weight& w) override;
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
};

}  // namespace glm
