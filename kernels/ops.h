// The operations: all the math a forward pass consists of, on one device. Public functions check
// shapes, record a trace span with bytes and operations (kernels/cost.h) and then call the
// backend's private do_*; nothing allocates, nothing synchronises. Activations are f32, [rows,
// columns]; T is the number of rows of a step and may be 0 everywhere. Weights may be f32, bf16,
// f16, q80 or q40; with q80/q40 the activations are quantised to int8 blocks of 32 inside the
// operation. What a dot product is, to the bit, is defined in docs/numerics.md.
// Read next: kernels/ref/ (the plain definition of each), kernels/cpu/ (the fast one).
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/base/device.h"
#include "core/base/trace.h"
#include "kernels/random_rows.h"
#include "kernels/types.h"

namespace glm {

class Ops {
 public:
  virtual ~Ops() = default;

  // out[t] = table[ids[t] - first_row] for ids within [first_row, first_row + table.rows), zeros
  // for others (a vocabulary shard). out [T, h], ids [T] i32, table [rows, h] of any dtype.
  void embed(Tensor out, Tensor ids, const Weight& table, int64_t first_row);

  // out[t] = x[t] * rsqrt(mean(x[t]^2) + eps) * weight. out, x [T, n] (may be the same), weight [n]
  // f32.
  void rms_norm(Tensor out, Tensor x, Tensor weight, float eps);
  // The same over each of n_heads heads, in place: qkv [T, width], heads begin at column first_head
  // * head_dim, weight [head_dim].
  void head_norm(Tensor qkv, int first_head, int n_heads, int head_dim, Tensor weight, float eps);

  // x += y, out = rms_norm(x). out another than x and y.
  void add_rms_norm(Tensor out, Tensor x, Tensor y, Tensor weight, float eps);

  // out[t] = cos and sin of positions[t] * inv_freq[i], once per step. out [T, 2, r/2], inv_freq
  // [r/2] f32.
  void rope_table(Tensor out, Tensor positions, Tensor inv_freq);
  // Turns the first r elements of every query and key head of qkv in place. table [T, 2, r/2].
  void rope(Tensor qkv, Tensor table, const HeadLayout& heads, RopePairing pairing);
  // Writes the key and value heads of qkv to the cache slots [T] i32.
  void store_kv(const KvLayer& cache, Tensor qkv, Tensor slots, const HeadLayout& heads);
  // head_norm of queries and keys where there are weights for it, rope and store_kv.
  void place_heads(const KvLayer& cache,
                   Tensor qkv,
                   Tensor slots,
                   const HeadLayout& heads,
                   const HeadTurn& turn);
  // Causal attention of each row over its sequence's cache (which holds the rows of this step
  // already); scores are scaled by head_dim^-0.5. out [T, n_heads * head_dim].
  void attention(
      Tensor out, Tensor qkv, const KvLayer& cache, const BatchRows& rows, const HeadLayout& heads);

  // out = x W^T (+ bias). out [T, w.rows], x [T, w.cols], bias [w.rows] f32 or absent.
  void linear(Tensor out, Tensor x, const Weight& w, Tensor bias = {});
  // out = silu(x Wg^T) * (x Wu^T). w holds gate and up, w.rows = 2 M: with Packing::kRows gate rows
  // come first, with kTile16 16 gate rows and 16 up rows alternate. out [T, M].
  void gate_up(Tensor out, Tensor x, const Weight& w);

  // Router scores to experts: experts [T, top_k] i32 ascending per row, weights [T, top_k] f32 in
  // the same order. logits [T, n_experts] f32, bias [n_experts] f32 (correction bias: chooses only)
  // or absent. Ties go to the lower index.
  void route(
      Tensor experts, Tensor weights, Tensor logits, Tensor bias, const RouterConfig& config);
  // Groups rows by local expert: entries of `experts` [T, top_k] within [first_expert, first_expert
  // + n_experts) are local, all others (and -1) are skipped. Fills groups; its tensors are the
  // caller's.
  void group_rows(ExpertGroups& groups, Tensor experts, Tensor weights, int first_expert);
  // As gate_up for every assignment with its expert's matrix: out [capacity, M], x [T, h];
  // w.n_matrices local experts.
  void expert_gate_up(Tensor out, Tensor x, const ExpertGroups& groups, const Weight& w);
  // out[i] = h[i] W_e^T for every assignment. out [capacity, w.rows], h [capacity, w.cols].
  void expert_down(Tensor out, Tensor h, const ExpertGroups& groups, const Weight& w);
  // out[t] = sum over the assignments of row t, ascending in expert index, of weight *
  // rows[assignment]; zeros for a row without any; then + addend[t] where there is one. out, addend
  // [T, n], rows [capacity, n].
  void combine(Tensor out, Tensor rows, const ExpertGroups& groups, Tensor addend = {});

  // Who of all ranks needs which row. experts, weights [T, top_k] as routed; shares of `slices`
  // ranks each, share s holds experts [borders[s], borders[s + 1]): borders [shares + 1] i32. The
  // tensors of `out` are the caller's; out.places has room for every rank a row can need.
  void copy_rows(RowCopies& out, Tensor experts, Tensor weights, Tensor borders, int slices);
  // The two halves of RowCopies::routing: experts, weights [n, top_k] from routing [n, 2 top_k].
  void split_routing(Tensor experts, Tensor weights, Tensor routing);

  // out[i] = x[index[i]]. index [out rows] i32, each within x's rows. f32 or i32.
  void gather_rows(Tensor out, Tensor x, Tensor index);
  // x += y.
  void add(Tensor x, Tensor y);
  // Joins column slices that were gathered rank after rank: in holds, for each of n slices, [T,
  // widths[i]] one after the other; out [T, sum of widths]. widths is a host array.
  void concat_columns(Tensor out, Tensor in, const std::vector<int64_t>& widths);
  // out[t] = zeros but for columns [first, first + in.cols()), which are in[t]. out [T, w], in [T,
  // n], first + n <= w.
  void pad_columns(Tensor out, Tensor in, int64_t first);

  // Rows [first, first + count) of every matrix of w become random numbers, quantised as
  // encode_rows() does, the same bits on every device. Start-up only: w's memory is the caller's.
  void fill_random(const Weight& w, int64_t first, int64_t count, const RandomRows& from);

  void set_trace(Trace* trace) { trace_ = trace; }
  virtual std::string name() const = 0;  // "ref", "cpu avx2", ... for --version and summaries
  // What users should be told once, e.g. that a library was not found; "" for nothing.
  virtual std::string note() const { return {}; }

 protected:
  Trace* trace_ = nullptr;

 private:
  friend class CheckedOps;
  virtual void do_embed(Tensor out, Tensor ids, const Weight& table, int64_t first_row) = 0;
  virtual void do_rms_norm(Tensor out, Tensor x, Tensor weight, float eps) = 0;
  virtual void do_head_norm(
      Tensor qkv, int first_head, int n_heads, int head_dim, Tensor weight, float eps) = 0;
  virtual void do_rope_table(Tensor out, Tensor positions, Tensor inv_freq) = 0;
  virtual void do_rope(Tensor qkv, Tensor table, const HeadLayout& heads, RopePairing pairing) = 0;
  virtual void do_store_kv(const KvLayer& cache,
                           Tensor qkv,
                           Tensor slots,
                           const HeadLayout& heads) = 0;
  virtual void do_attention(Tensor out,
                            Tensor qkv,
                            const KvLayer& cache,
                            const BatchRows& rows,
                            const HeadLayout& heads) = 0;
  virtual void do_linear(Tensor out, Tensor x, const Weight& w, Tensor bias) = 0;
  virtual void do_gate_up(Tensor out, Tensor x, const Weight& w) = 0;
  virtual void do_route(
      Tensor experts, Tensor weights, Tensor logits, Tensor bias, const RouterConfig& config) = 0;
  virtual void do_group_rows(ExpertGroups& groups,
                             Tensor experts,
                             Tensor weights,
                             int first_expert) = 0;
  virtual void do_expert_gate_up(Tensor out,
                                 Tensor x,
                                 const ExpertGroups& groups,
                                 const Weight& w) = 0;
  virtual void do_expert_down(Tensor out,
                              Tensor h,
                              const ExpertGroups& groups,
                              const Weight& w) = 0;
  virtual void do_combine(Tensor out, Tensor rows, const ExpertGroups& groups) = 0;
  virtual void do_gather_rows(Tensor out, Tensor x, Tensor index) = 0;
  virtual void do_add(Tensor x, Tensor y) = 0;
  virtual void do_concat_columns(Tensor out, Tensor in, const std::vector<int64_t>& widths) = 0;
  virtual void do_pad_columns(Tensor out, Tensor in, int64_t first) = 0;
  virtual void do_fill_random(const Weight& w,
                              int64_t first,
                              int64_t count,
                              const RandomRows& from) = 0;
  // Of integers, by default on the host.
  virtual void do_copy_rows(
      RowCopies& out, Tensor experts, Tensor weights, Tensor borders, int slices);
  virtual void do_split_routing(Tensor experts, Tensor weights, Tensor routing);
  // Several operations in one launch, for backends where launches cost. The bits are the same.
  virtual void do_add_rms_norm(Tensor out, Tensor x, Tensor y, Tensor weight, float eps);
  virtual void do_place_heads(const KvLayer& cache,
                              Tensor qkv,
                              Tensor slots,
                              const HeadLayout& heads,
                              const HeadTurn& turn);
  virtual void do_combine_add(Tensor out, Tensor rows, const ExpertGroups& groups, Tensor addend);
};

// Limits of a step, from which a backend takes its scratch once, at start.
struct OpsLimits {
  int64_t max_rows = 0;     // rows of a step, or of an expert buffer (rows * top_k) if larger
  int64_t max_cols = 0;     // widest input of a matrix
  int64_t max_context = 0;  // positions of one sequence
  int max_heads = 0;
  int max_head_dim = 0;
  // Results may leave the definition's bits, within a tolerance, where that is quicker
  // (docs/numerics.md). The CPU never does.
  bool fast = false;
  bool half_weights = false;  // some matrices are f16 or bf16
};

enum class OpsKind : uint8_t { kAuto, kRef, kChecked };

// `threads` of this rank, calling thread included. kAuto: the fastest set for the device (GLM_SIMD
// forces a level on the CPU); kRef: plain scalar loops in double; kChecked: runs both and throws
// Error(kNumerical) naming the first operation that deviates beyond its derived tolerance.
std::unique_ptr<Ops> make_ops(OpsKind kind, Device& device, int threads, const OpsLimits& limits);

// Bytes of scratch that make_ops(kind, ...) will take with these limits, for the memory plan.
int64_t ops_scratch_bytes(OpsKind kind, int threads, const OpsLimits& limits);

}  // namespace glm
