// Operations on a GPU behind tensors of the host, for the op suite: every call copies its inputs
// and outputs to the device, runs the operation and copies the outputs back.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace glm::testing {

class MirroredOps final : public Ops {
 public:
  MirroredOps(Device& device, std::unique_ptr<Ops> ops);
  std::string name() const override { return ops_->name(); }
  std::string note() const override { return ops_->note(); }

 private:
  struct Copy {
    Tensor host;
    Tensor device;
  };
  // Views for one call. Outputs are uploaded, too: an operation may leave parts of them alone.
  Tensor in(Tensor host);
  Tensor out(Tensor host);
  Weight in(const Weight& w);
  BatchRows in(const BatchRows& rows);
  KvLayer inout(const KvLayer& cache);
  ExpertGroups in(const ExpertGroups& groups);
  void* bytes(const void* data, int64_t size);
  void finish();

  void do_embed(Tensor o, Tensor ids, const Weight& table, int64_t first_row) override;
  void do_rms_norm(Tensor o, Tensor x, Tensor weight, float eps) override;
  void do_head_norm(
      Tensor qkv, int first_head, int n_heads, int head_dim, Tensor weight, float eps) override;
  void do_rope_table(Tensor o, Tensor positions, Tensor inv_freq) override;
  void do_rope(Tensor qkv, Tensor table, const HeadLayout& heads, RopePairing pairing) override;
  void do_store_kv(const KvLayer& cache,
                   Tensor qkv,
                   Tensor slots,
                   const HeadLayout& heads) override;
  void do_attention(Tensor o,
                    Tensor qkv,
                    const KvLayer& cache,
                    const BatchRows& rows,
                    const HeadLayout& heads) override;
  void do_linear(Tensor o, Tensor x, const Weight& w, Tensor bias) override;
  void do_gate_up(Tensor o, Tensor x, const Weight& w) override;
  void do_route(Tensor experts,
                Tensor weights,
                Tensor logits,
                Tensor bias,
                const RouterConfig& config) override;
  void do_group_rows(ExpertGroups& groups,
                     Tensor experts,
                     Tensor weights,
                     int first_expert) override;
  void do_expert_gate_up(Tensor o, Tensor x, const ExpertGroups& groups, const Weight& w) override;
  void do_expert_down(Tensor o, Tensor h, const ExpertGroups& groups, const Weight& w) override;
  void do_combine(Tensor o, Tensor rows, const ExpertGroups& groups) override;
  void do_gather_rows(Tensor o, Tensor x, Tensor index) override;
  void do_add(Tensor x, Tensor y) override;
  void do_concat_columns(Tensor o, Tensor x, const std::vector<int64_t>& widths) override;
  void do_pad_columns(Tensor o, Tensor x, int64_t first) override;
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

  Device& device_;
  std::unique_ptr<Ops> ops_;
  Tensor memory_;
  int64_t used_ = 0;
  std::vector<Copy> outputs_;
};

}  // namespace glm::testing
