// Operations on a GPU, each timed by itself: repeated so often between two waits that waiting
// counts for little. What an operation does in place it does as often, so results are of no use,
// while times are: they depend on shapes. SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace glm::bench {

using SpanTotals = std::map<std::string, SpanTotal, std::less<>>;

class TimedOps final : public Ops {
 public:
  TimedOps(Device& device, Ops& ops) : device_(device), ops_(ops) { set_trace(&work_); }
  std::string name() const override { return ops_.name() + " timed"; }

  void clear();
  // What was done since: seconds of a single run, and its work.
  SpanTotals totals() const;

 private:
  void time(const char* span, const std::function<void()>& run);
  // For the cost of what only the device knows.
  std::vector<int32_t> read(Tensor numbers);
  void expert_work_of(const char* span, const ExpertGroups& groups, const Weight& w);

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
  void do_add_rms_norm(Tensor out, Tensor x, Tensor y, Tensor weight, float eps) override;
  void do_place_heads(const KvLayer& cache,
                      Tensor qkv,
                      Tensor slots,
                      const HeadLayout& heads,
                      const HeadTurn& turn) override;
  void do_combine_add(Tensor out, Tensor rows, const ExpertGroups& groups, Tensor addend) override;

  Device& device_;
  Ops& ops_;
  Trace work_;   // of the public face: what each operation has to move and do
  Trace times_;  // of single runs, and the work that the public face cannot know
};

// A device on which nothing is recorded: what times operations one by one cannot be.
class PlainDevice final : public Device {
 public:
  explicit PlainDevice(Device& device) : device_(device) {}
  std::string name() const override { return device_.name(); }
  std::string id() const override { return device_.id(); }
  bool is_host() const override { return device_.is_host(); }
  Memory memory() override { return device_.memory(); }
  Tensor allocate(DType dtype, std::initializer_list<int64_t> dims) override {
    return device_.allocate(dtype, dims);
  }
  Tensor allocate_host(DType dtype, std::initializer_list<int64_t> dims) override {
    return device_.allocate_host(dtype, dims);
  }
  int64_t allocated_bytes() const override { return device_.allocated_bytes(); }
  void copy(Tensor dst, Tensor src) override { device_.copy(dst, src); }
  void wait() override { device_.wait(); }
  void replay(uint64_t, const std::function<void()>& record) override { record(); }
  void* stream() const override { return device_.stream(); }

 private:
  Device& device_;
};

}  // namespace glm::bench
