// Every operation twice: the backend under test on the real tensors, the reference on copies, and a
// comparison with a derived tolerance (tolerance.h). Throws Error(kNumerical) naming the first
// operation and element that deviates, or an operation that makes infinities or NaN out of finite
// inputs. Slow, and allocates: for finding faults, not for running.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string>

#include "kernels/ops.h"
#include "kernels/tolerance.h"

namespace glm {

class CheckedOps final : public Ops {
 public:
  CheckedOps(std::unique_ptr<Ops> fast, std::unique_ptr<Ops> reference)
      : fast_(std::move(fast)), reference_(std::move(reference)) {}
  std::string name() const override { return fast_->name() + " checked"; }

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
  void do_fill_random(const Weight& w,
                      int64_t first,
                      int64_t count,
                      const RandomRows& from) override;

  std::unique_ptr<Ops> fast_;
  std::unique_ptr<Ops> reference_;
};

}  // namespace glm
