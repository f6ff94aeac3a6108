// SPDX-License-Identifier: MIT
#include "benchmarks/timed_ops.h"

#include "kernels/cost.h"

namespace glm::bench {
namespace {

constexpr int kRepeats = 16;

}  // namespace

void TimedOps::clear() {
  work_.clear();
  times_.clear();
}

SpanTotals TimedOps::totals() const {
  SpanTotals totals = times_.totals();
  for (auto& [span, total] : totals) {
    const auto known = work_.totals().find(span);
    if (total.work.bytes == 0 && known != work_.totals().end()) total.work = known->second.work;
  }
  return totals;
}

void TimedOps::time(const char* span, const std::function<void()>& run) {
  run();
  device_.wait();
  const Trace::Clock::time_point start = Trace::Clock::now();
  for (int i = 0; i < kRepeats; ++i) run();
  device_.wait();
  const double seconds = std::chrono::duration<double>(Trace::Clock::now() - start).count();
  times_.add(span, seconds / kRepeats, {});
}

std::vector<int32_t> TimedOps::read(Tensor numbers) {
  std::vector<int32_t> values(static_cast<size_t>(numbers.elements()));
  if (values.empty()) return values;
  Tensor host = numbers;
  host.data = values.data();
  host.device = nullptr;
  device_.copy(host, numbers);
  device_.wait();
  return values;
}

void TimedOps::expert_work_of(const char* span, const ExpertGroups& groups, const Weight& w) {
  std::vector<int32_t> offsets = read(groups.offsets);
  ExpertGroups known = groups;
  known.offsets = host_tensor(offsets.data(), DType::kI32, {groups.offsets.elements()});
  const ExpertLoad load = expert_load(known);
  times_.add(span, 0, expert_work(load.assignments, load.active, w));
}

void TimedOps::do_embed(Tensor out, Tensor ids, const Weight& table, int64_t first_row) {
  time("op.embed", [&] { ops_.embed(out, ids, table, first_row); });
}

void TimedOps::do_rms_norm(Tensor out, Tensor x, Tensor weight, float eps) {
  time("op.rms_norm", [&] { ops_.rms_norm(out, x, weight, eps); });
}

void TimedOps::do_head_norm(
    Tensor qkv, int first_head, int n_heads, int head_dim, Tensor weight, float eps) {
  time("op.head_norm", [&] { ops_.head_norm(qkv, first_head, n_heads, head_dim, weight, eps); });
}

void TimedOps::do_rope_table(Tensor out, Tensor positions, Tensor inv_freq) {
  time("op.rope_table", [&] { ops_.rope_table(out, positions, inv_freq); });
}

void TimedOps::do_rope(Tensor qkv, Tensor table, const HeadLayout& heads, RopePairing pairing) {
  time("op.rope", [&] { ops_.rope(qkv, table, heads, pairing); });
}

void TimedOps::do_store_kv(const KvLayer& cache,
                           Tensor qkv,
                           Tensor slots,
                           const HeadLayout& heads) {
  time("op.store_kv", [&] { ops_.store_kv(cache, qkv, slots, heads); });
}

void TimedOps::do_attention(
    Tensor out, Tensor qkv, const KvLayer& cache, const BatchRows& rows, const HeadLayout& heads) {
  time("op.attention", [&] { ops_.attention(out, qkv, cache, rows, heads); });
  std::vector<int32_t> spans = read(rows.spans);
  BatchRows known = rows;
  known.spans = host_tensor(spans.data(), DType::kI32, {rows.n_spans, 4});
  const AttentionLoad load = attention_load(known);
  times_.add("op.attention", 0, attention_work(load.positions, load.pairs, cache, heads));
}

void TimedOps::do_linear(Tensor out, Tensor x, const Weight& w, Tensor bias) {
  time("op.linear", [&] { ops_.linear(out, x, w, bias); });
}

void TimedOps::do_gate_up(Tensor out, Tensor x, const Weight& w) {
  time("op.gate_up", [&] { ops_.gate_up(out, x, w); });
}

void TimedOps::do_route(
    Tensor experts, Tensor weights, Tensor logits, Tensor bias, const RouterConfig& config) {
  time("op.route", [&] { ops_.route(experts, weights, logits, bias, config); });
}

void TimedOps::do_group_rows(ExpertGroups& groups,
                             Tensor experts,
                             Tensor weights,
                             int first_expert) {
  time("op.group_rows", [&] { ops_.group_rows(groups, experts, weights, first_expert); });
}

void TimedOps::do_expert_gate_up(Tensor out,
                                 Tensor x,
                                 const ExpertGroups& groups,
                                 const Weight& w) {
  time("op.expert_gate_up", [&] { ops_.expert_gate_up(out, x, groups, w); });
  expert_work_of("op.expert_gate_up", groups, w);
}

void TimedOps::do_expert_down(Tensor out, Tensor h, const ExpertGroups& groups, const Weight& w) {
  time("op.expert_down", [&] { ops_.expert_down(out, h, groups, w); });
  expert_work_of("op.expert_down", groups, w);
}

void TimedOps::do_combine(Tensor out, Tensor rows, const ExpertGroups& groups) {
  time("op.combine", [&] { ops_.combine(out, rows, groups); });
}

void TimedOps::do_gather_rows(Tensor out, Tensor x, Tensor index) {
  time("op.gather_rows", [&] { ops_.gather_rows(out, x, index); });
}

void TimedOps::do_add(Tensor x, Tensor y) {
  time("op.add", [&] { ops_.add(x, y); });
}

void TimedOps::do_concat_columns(Tensor out, Tensor in, const std::vector<int64_t>& widths) {
  time("op.concat_columns", [&] { ops_.concat_columns(out, in, widths); });
}

void TimedOps::do_pad_columns(Tensor out, Tensor in, int64_t first) {
  time("op.pad_columns", [&] { ops_.pad_columns(out, in, first); });
}

void TimedOps::do_fill_random(const Weight& w,
                              int64_t first,
                              int64_t count,
                              const RandomRows& from) {
  time("op.fill_random", [&] { ops_.fill_random(w, first, count, from); });
}

// Operations in one launch have no span of their own: what they move is stated here.
void TimedOps::do_add_rms_norm(Tensor out, Tensor x, Tensor y, Tensor weight, float eps) {
  time("op.add_rms_norm", [&] { ops_.add_rms_norm(out, x, y, weight, eps); });
  times_.add("op.add_rms_norm", 0, element_work(x.elements(), 4, 5));
}

void TimedOps::do_place_heads(
    const KvLayer& cache, Tensor qkv, Tensor slots, const HeadLayout& heads, const HeadTurn& turn) {
  time("op.place_heads", [&] { ops_.place_heads(cache, qkv, slots, heads, turn); });
  times_.add("op.place_heads", 0, element_work(qkv.elements(), 2, 5));
}

void TimedOps::do_combine_add(Tensor out, Tensor rows, const ExpertGroups& groups, Tensor addend) {
  time("op.combine_add", [&] { ops_.combine(out, rows, groups, addend); });
  const int64_t entries = groups.order.elements();
  times_.add("op.combine_add", 0, element_work((entries + 2 * out.rows()) * out.cols(), 1, 2));
}

}  // namespace glm::bench
