// SPDX-License-Identifier: MIT
#include "tests/kernels/mirrored_ops.h"

#include <utility>

namespace glm::testing {
namespace {

constexpr int64_t kBytes = int64_t{512} << 20;

}  // namespace

MirroredOps::MirroredOps(Device& device, std::unique_ptr<Ops> ops)
    : device_(device), ops_(std::move(ops)), memory_(device.allocate(DType::kU8, {kBytes})) {}

void* MirroredOps::bytes(const void* data, int64_t size) {
  GLM_CHECK(used_ + size + 256 <= kBytes, "{} bytes of tensors in one call", used_ + size);
  const Tensor to = memory_.slice(used_, size);
  device_.copy(to, host_tensor(const_cast<void*>(data), DType::kU8, {size}));
  used_ += (size + 255) / 256 * 256;
  return to.data;
}

Tensor MirroredOps::in(Tensor host) {
  if (host.absent()) return host;
  Tensor view = host;
  view.data = bytes(host.data, host.bytes());
  view.device = &device_;
  return view;
}

Tensor MirroredOps::out(Tensor host) {
  const Tensor view = in(host);
  outputs_.push_back({host, view});
  return view;
}

Weight MirroredOps::in(const Weight& w) {
  Weight view = w;
  view.values = bytes(w.values, w.n_matrices * w.value_stride());
  view.scales = bytes(w.scales, w.n_matrices * w.scale_stride());
  return view;
}

BatchRows MirroredOps::in(const BatchRows& rows) {
  BatchRows view = rows;
  view.spans = in(rows.spans);
  view.block_table = in(rows.block_table);
  return view;
}

KvLayer MirroredOps::inout(const KvLayer& cache) {
  const int64_t size =
      cache.n_blocks * KvLayer::page_bytes(cache.dtype, cache.n_kv_heads, cache.head_dim);
  KvLayer view = cache;
  view.keys = out(host_tensor(cache.keys, DType::kU8, {size})).data;
  view.values = out(host_tensor(cache.values, DType::kU8, {size})).data;
  return view;
}

ExpertGroups MirroredOps::in(const ExpertGroups& groups) {
  ExpertGroups view = groups;
  view.offsets = in(groups.offsets);
  view.rows = in(groups.rows);
  view.order = in(groups.order);
  view.weights = in(groups.weights);
  return view;
}

void MirroredOps::finish() {
  for (const Copy& copy : outputs_) device_.copy(copy.host, copy.device);
  device_.wait();
  outputs_.clear();
  used_ = 0;
}

void MirroredOps::do_embed(Tensor o, Tensor ids, const Weight& table, int64_t first_row) {
  ops_->embed(out(o), in(ids), in(table), first_row);
  finish();
}

void MirroredOps::do_rms_norm(Tensor o, Tensor x, Tensor weight, float eps) {
  const Tensor to = out(o);
  ops_->rms_norm(to, o.data == x.data ? to : in(x), in(weight), eps);
  finish();
}

void MirroredOps::do_head_norm(
    Tensor qkv, int first_head, int n_heads, int head_dim, Tensor weight, float eps) {
  ops_->head_norm(out(qkv), first_head, n_heads, head_dim, in(weight), eps);
  finish();
}

void MirroredOps::do_rope_table(Tensor o, Tensor positions, Tensor inv_freq) {
  ops_->rope_table(out(o), in(positions), in(inv_freq));
  finish();
}

void MirroredOps::do_rope(Tensor qkv, Tensor table, const HeadLayout& heads, RopePairing pairing) {
  ops_->rope(out(qkv), in(table), heads, pairing);
  finish();
}

void MirroredOps::do_store_kv(const KvLayer& cache,
                              Tensor qkv,
                              Tensor slots,
                              const HeadLayout& heads) {
  ops_->store_kv(inout(cache), in(qkv), in(slots), heads);
  finish();
}

void MirroredOps::do_attention(
    Tensor o, Tensor qkv, const KvLayer& cache, const BatchRows& rows, const HeadLayout& heads) {
  ops_->attention(out(o), in(qkv), inout(cache), in(rows), heads);
  finish();
}

void MirroredOps::do_linear(Tensor o, Tensor x, const Weight& w, Tensor bias) {
  ops_->linear(out(o), in(x), in(w), in(bias));
  finish();
}

void MirroredOps::do_gate_up(Tensor o, Tensor x, const Weight& w) {
  ops_->gate_up(out(o), in(x), in(w));
  finish();
}

void MirroredOps::do_route(
    Tensor experts, Tensor weights, Tensor logits, Tensor bias, const RouterConfig& config) {
  ops_->route(out(experts), out(weights), in(logits), in(bias), config);
  finish();
}

void MirroredOps::do_group_rows(ExpertGroups& groups,
                                Tensor experts,
                                Tensor weights,
                                int first_expert) {
  ExpertGroups view = groups;
  view.offsets = out(groups.offsets);
  view.rows = out(groups.rows);
  view.order = out(groups.order);
  view.weights = out(groups.weights);
  ops_->group_rows(view, in(experts), in(weights), first_expert);
  finish();
}

void MirroredOps::do_expert_gate_up(Tensor o,
                                    Tensor x,
                                    const ExpertGroups& groups,
                                    const Weight& w) {
  ops_->expert_gate_up(out(o), in(x), in(groups), in(w));
  finish();
}

void MirroredOps::do_expert_down(Tensor o, Tensor h, const ExpertGroups& groups, const Weight& w) {
  ops_->expert_down(out(o), in(h), in(groups), in(w));
  finish();
}

void MirroredOps::do_combine(Tensor o, Tensor rows, const ExpertGroups& groups) {
  ops_->combine(out(o), in(rows), in(groups));
  finish();
}

void MirroredOps::do_gather_rows(Tensor o, Tensor x, Tensor index) {
  ops_->gather_rows(out(o), in(x), in(index));
  finish();
}

void MirroredOps::do_add(Tensor x, Tensor y) {
  const Tensor to = out(x);
  ops_->add(to, x.data == y.data ? to : in(y));
  finish();
}

void MirroredOps::do_concat_columns(Tensor o, Tensor x, const std::vector<int64_t>& widths) {
  ops_->concat_columns(out(o), in(x), widths);
  finish();
}

void MirroredOps::do_pad_columns(Tensor o, Tensor x, int64_t first) {
  ops_->pad_columns(out(o), in(x), first);
  finish();
}

void MirroredOps::do_add_rms_norm(Tensor o, Tensor x, Tensor y, Tensor weight, float eps) {
  ops_->add_rms_norm(out(o), out(x), in(y), in(weight), eps);
  finish();
}

void MirroredOps::do_place_heads(
    const KvLayer& cache, Tensor qkv, Tensor slots, const HeadLayout& heads, const HeadTurn& turn) {
  HeadTurn view = turn;
  view.q_norm = in(turn.q_norm);
  view.k_norm = in(turn.k_norm);
  view.table = in(turn.table);
  ops_->place_heads(inout(cache), out(qkv), in(slots), heads, view);
  finish();
}

void MirroredOps::do_combine_add(Tensor o, Tensor rows, const ExpertGroups& groups, Tensor addend) {
  ops_->combine(out(o), in(rows), in(groups), in(addend));
  finish();
}

void MirroredOps::do_copy_rows(
    RowCopies& o, Tensor experts, Tensor weights, Tensor borders, int slices) {
  RowCopies view{out(o.index), out(o.routing), out(o.places)};
  ops_->copy_rows(view, in(experts), in(weights), in(borders), slices);
  finish();
}

void MirroredOps::do_split_routing(Tensor experts, Tensor weights, Tensor routing) {
  ops_->split_routing(out(experts), out(weights), in(routing));
  finish();
}

void MirroredOps::do_fill_random(const Weight& w,
                                 int64_t first,
                                 int64_t count,
                                 const RandomRows& from) {
  const auto plane = [&](const void* data, int64_t bytes) {
    return out(host_tensor(const_cast<void*>(data), DType::kU8, {bytes})).data;
  };
  Weight view = w;
  view.values = plane(w.values, w.n_matrices * w.value_stride());
  view.scales = plane(w.scales, w.n_matrices * w.scale_stride());
  ops_->fill_random(view, first, count, from);
  finish();
}

}  // namespace glm::testing
