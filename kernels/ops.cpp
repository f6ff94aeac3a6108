// The public face of the operations: shape checks, trace spans with their cost, then the backend.
// SPDX-License-Identifier: MIT
#include "kernels/ops.h"

#include <algorithm>
#include <bit>

#include "kernels/cost.h"

namespace glm {
namespace {

void need(const Tensor& t, DType dtype, int64_t rows, int64_t cols, const char* what) {
  GLM_CHECK(t.dtype == dtype && t.rows() == rows && (rows == 0 || t.cols() == cols),
            "{} is {}, expected [{}, {}] {}",
            what,
            t.shape_text(),
            rows,
            cols,
            dtype_name(dtype));
}

void need_f32(const Tensor& t, int64_t rows, int64_t cols, const char* what) {
  need(t, DType::kF32, rows, cols, what);
}

// A list of i32 of one dimension (or one column).
void need_list(const Tensor& t, int64_t count, const char* what) {
  need(t, DType::kI32, count, 1, what);
}

void need_vector(const Tensor& t, int64_t count, const char* what) {
  GLM_CHECK(t.dtype == DType::kF32 && t.elements() == count,
            "{} is {}, expected [{}] f32",
            what,
            t.shape_text(),
            count);
}

void need_weight(const Weight& w, int64_t cols, const char* what) {
  GLM_CHECK(w.dtype != DType::kI32 && w.dtype != DType::kU8,
            "{}: weight of {}",
            what,
            dtype_name(w.dtype));
  GLM_CHECK(w.rows >= 0 && w.cols == cols && w.n_matrices >= 0,
            "{}: weight [{}, {}, {}] for {} columns",
            what,
            w.n_matrices,
            w.rows,
            w.cols,
            cols);
  GLM_CHECK(!is_quantized(w.dtype) || w.cols % kQuantBlock == 0,
            "{}: {} columns of {}",
            what,
            w.cols,
            dtype_name(w.dtype));
  GLM_CHECK(w.packing == Packing::kRows || (is_quantized(w.dtype) && w.rows % kTileRows == 0),
            "{}: {} rows of {} in tile16",
            what,
            w.rows,
            dtype_name(w.dtype));
}

void need_gate_up(const Weight& w, const char* what) {
  const int64_t unit = w.packing == Packing::kTile16 ? 2 * kTileRows : 2;
  GLM_CHECK(w.rows % unit == 0, "{}: {} rows do not divide into gate and up", what, w.rows);
}

void need_heads(const HeadLayout& heads, const Tensor& qkv, const char* what) {
  GLM_CHECK(heads.n_heads >= 0 && heads.n_kv_heads >= 0 && heads.head_dim > 0 && heads.ratio > 0 &&
                heads.first_head >= 0 && heads.first_head < heads.ratio,
            "{}: {} heads on {} key-value heads x {}, ratio {}, first head {}",
            what,
            heads.n_heads,
            heads.n_kv_heads,
            heads.head_dim,
            heads.ratio,
            heads.first_head);
  GLM_CHECK(heads.n_heads == 0 || heads.kv_head_of(heads.n_heads - 1) < heads.n_kv_heads,
            "{}: {} heads need more than {} key-value heads",
            what,
            heads.n_heads,
            heads.n_kv_heads);
  need_f32(qkv, qkv.rows(), heads.row_width(), what);
}

void need_cache(const KvLayer& cache, const HeadLayout& heads, const char* what) {
  GLM_CHECK(cache.n_kv_heads == heads.n_kv_heads && cache.head_dim == heads.head_dim,
            "{}: cache of {} x {} for {} x {}",
            what,
            cache.n_kv_heads,
            cache.head_dim,
            heads.n_kv_heads,
            heads.head_dim);
}

void need_groups(const ExpertGroups& groups, const char* what) {
  GLM_CHECK(groups.n_experts >= 0 && groups.capacity >= 0, "{}: groups", what);
  need_list(groups.offsets, int64_t{groups.n_experts} + 1, what);
  GLM_CHECK(groups.rows.dtype == DType::kI32 && groups.rows.elements() >= groups.capacity,
            "{}: rows is {} for a capacity of {}",
            what,
            groups.rows.shape_text(),
            groups.capacity);
}

// An output of one row per assignment.
void need_assigned(const Tensor& t, const ExpertGroups& groups, int64_t cols, const char* what) {
  GLM_CHECK(
      t.dtype == DType::kF32 && t.rows() >= groups.capacity && (t.rows() == 0 || t.cols() == cols),
      "{} is {}, expected [{}, {}] f32",
      what,
      t.shape_text(),
      groups.capacity,
      cols);
}

bool on_host(const Tensor& t) { return t.device == nullptr || t.device->is_host(); }

// Which experts have rows is known here only where the host can read it; else all are assumed.
Work group_work(Trace* trace, const ExpertGroups& groups, const Weight& w) {
  if (trace == nullptr) return {};
  if (!on_host(groups.offsets)) return expert_work(groups.capacity, groups.n_experts, w);
  const ExpertLoad load = expert_load(groups);
  return expert_work(load.assignments, load.active, w);
}

}  // namespace

void Ops::embed(Tensor out, Tensor ids, const Weight& table, int64_t first_row) {
  need_weight(table, table.cols, "embed table");
  need_f32(out, out.rows(), table.cols, "embed out");
  need_list(ids, out.rows(), "embed ids");
  const Span span(trace_, "op.embed", element_work(out.elements(), 2, 0));
  do_embed(out, ids, table, first_row);
}

void Ops::rms_norm(Tensor out, Tensor x, Tensor weight, float eps) {
  need_f32(x, x.rows(), x.cols(), "rms_norm x");
  need_f32(out, x.rows(), x.cols(), "rms_norm out");
  if (x.rows() != 0) need_vector(weight, x.cols(), "rms_norm weight");
  const Span span(trace_, "op.rms_norm", element_work(x.elements(), 2, 4));
  do_rms_norm(out, x, weight, eps);
}

void Ops::add_rms_norm(Tensor out, Tensor x, Tensor y, Tensor weight, float eps) {
  need_f32(x, x.rows(), x.cols(), "add_rms_norm x");
  need_f32(y, x.rows(), x.cols(), "add_rms_norm y");
  need_f32(out, x.rows(), x.cols(), "add_rms_norm out");
  if (x.rows() != 0) need_vector(weight, x.cols(), "add_rms_norm weight");
  do_add_rms_norm(out, x, y, weight, eps);
}

void Ops::do_add_rms_norm(Tensor out, Tensor x, Tensor y, Tensor weight, float eps) {
  add(x, y);
  rms_norm(out, x, weight, eps);
}

void Ops::head_norm(
    Tensor qkv, int first_head, int n_heads, int head_dim, Tensor weight, float eps) {
  need_f32(qkv, qkv.rows(), qkv.cols(), "head_norm qkv");
  need_vector(weight, head_dim, "head_norm weight");
  GLM_CHECK(first_head >= 0 && n_heads >= 0 && head_dim > 0 &&
                (qkv.rows() == 0 || int64_t{first_head + n_heads} * head_dim <= qkv.cols()),
            "head_norm: heads {}..+{} x {} of {}",
            first_head,
            n_heads,
            head_dim,
            qkv.shape_text());
  const Span span(trace_, "op.head_norm", element_work(qkv.rows() * n_heads * head_dim, 2, 4));
  do_head_norm(qkv, first_head, n_heads, head_dim, weight, eps);
}

void Ops::rope_table(Tensor out, Tensor positions, Tensor inv_freq) {
  need_f32(out, out.rows(), 2 * inv_freq.elements(), "rope_table out");
  need_list(positions, out.rows(), "rope_table positions");
  need_vector(inv_freq, inv_freq.elements(), "rope_table inv_freq");
  const Span span(trace_, "op.rope_table", element_work(out.elements(), 1, 1));
  do_rope_table(out, positions, inv_freq);
}

void Ops::rope(Tensor qkv, Tensor table, const HeadLayout& heads, RopePairing pairing) {
  need_heads(heads, qkv, "rope");
  need_f32(table, qkv.rows(), table.cols(), "rope table");
  GLM_CHECK(table.cols() % 2 == 0 && table.cols() <= heads.head_dim,
            "rope: table {} for heads of {}",
            table.shape_text(),
            heads.head_dim);
  const int64_t turned = qkv.rows() * (heads.n_heads + heads.n_kv_heads) * table.cols();
  const Span span(trace_, "op.rope", element_work(turned, 2, 3));
  do_rope(qkv, table, heads, pairing);
}

void Ops::store_kv(const KvLayer& cache, Tensor qkv, Tensor slots, const HeadLayout& heads) {
  need_heads(heads, qkv, "store_kv");
  need_cache(cache, heads, "store_kv");
  need_list(slots, qkv.rows(), "store_kv slots");
  const Span span(trace_,
                  "op.store_kv",
                  element_work(qkv.rows() * 2 * heads.n_kv_heads * heads.head_dim, 2, 0));
  do_store_kv(cache, qkv, slots, heads);
}

void Ops::place_heads(
    const KvLayer& cache, Tensor qkv, Tensor slots, const HeadLayout& heads, const HeadTurn& turn) {
  need_heads(heads, qkv, "place_heads");
  need_cache(cache, heads, "place_heads");
  need_list(slots, qkv.rows(), "place_heads slots");
  need_f32(turn.table, qkv.rows(), turn.table.cols(), "place_heads table");
  GLM_CHECK(turn.q_norm.absent() == turn.k_norm.absent(), "place_heads: one of two norms");
  do_place_heads(cache, qkv, slots, heads, turn);
}

void Ops::do_place_heads(
    const KvLayer& cache, Tensor qkv, Tensor slots, const HeadLayout& heads, const HeadTurn& turn) {
  if (!turn.q_norm.absent()) {
    head_norm(qkv, 0, heads.n_heads, heads.head_dim, turn.q_norm, turn.eps);
    head_norm(qkv, heads.n_heads, heads.n_kv_heads, heads.head_dim, turn.k_norm, turn.eps);
  }
  rope(qkv, turn.table, heads, turn.pairing);
  store_kv(cache, qkv, slots, heads);
}

void Ops::attention(
    Tensor out, Tensor qkv, const KvLayer& cache, const BatchRows& rows, const HeadLayout& heads) {
  need_heads(heads, qkv, "attention");
  need_cache(cache, heads, "attention");
  need_f32(out, qkv.rows(), int64_t{heads.n_heads} * heads.head_dim, "attention out");
  GLM_CHECK(rows.n_rows == qkv.rows(), "attention: {} rows, qkv has {}", rows.n_rows, qkv.rows());
  need(rows.spans, DType::kI32, rows.n_spans, 4, "attention spans");
  Work work;
  if (trace_ != nullptr && on_host(rows.spans)) {
    const AttentionLoad load = attention_load(rows);
    work = attention_work(load.positions, load.pairs, cache, heads);
  }
  const Span span(trace_, "op.attention", work);
  do_attention(out, qkv, cache, rows, heads);
}

void Ops::linear(Tensor out, Tensor x, const Weight& w, Tensor bias) {
  need_weight(w, x.rows() == 0 ? w.cols : x.cols(), "linear");
  GLM_CHECK(w.n_matrices == 1, "linear: {} matrices", w.n_matrices);
  need_f32(x, x.rows(), w.cols, "linear x");
  need_f32(out, x.rows(), w.rows, "linear out");
  if (!bias.absent()) need_vector(bias, w.rows, "linear bias");
  const Span span(trace_, "op.linear", linear_work(x.rows(), w));
  do_linear(out, x, w, bias);
}

void Ops::gate_up(Tensor out, Tensor x, const Weight& w) {
  need_weight(w, x.rows() == 0 ? w.cols : x.cols(), "gate_up");
  need_gate_up(w, "gate_up");
  GLM_CHECK(w.n_matrices == 1, "gate_up: {} matrices", w.n_matrices);
  need_f32(x, x.rows(), w.cols, "gate_up x");
  need_f32(out, x.rows(), w.rows / 2, "gate_up out");
  const Span span(trace_, "op.gate_up", linear_work(x.rows(), w));
  do_gate_up(out, x, w);
}

void Ops::route(
    Tensor experts, Tensor weights, Tensor logits, Tensor bias, const RouterConfig& config) {
  GLM_CHECK(config.n_experts > 0 && config.top_k > 0 && config.top_k <= config.n_experts &&
                config.n_group > 0 && config.n_experts % config.n_group == 0 &&
                config.topk_group > 0 && config.topk_group <= config.n_group,
            "route: {} experts, top {}, {} groups, top {} groups",
            config.n_experts,
            config.top_k,
            config.n_group,
            config.topk_group);
  GLM_CHECK(config.n_experts / config.n_group * config.topk_group >= config.top_k,
            "route: {} of {} groups hold fewer than {} experts",
            config.topk_group,
            config.n_group,
            config.top_k);
  need_f32(logits, logits.rows(), config.n_experts, "route logits");
  need(experts, DType::kI32, logits.rows(), config.top_k, "route experts");
  need_f32(weights, logits.rows(), config.top_k, "route weights");
  if (!bias.absent()) need_vector(bias, config.n_experts, "route bias");
  const Span span(trace_, "op.route", element_work(logits.elements(), 1, 8));
  do_route(experts, weights, logits, bias, config);
}

void Ops::group_rows(ExpertGroups& groups, Tensor experts, Tensor weights, int first_expert) {
  need_groups(groups, "group_rows");
  need(experts, DType::kI32, experts.rows(), experts.cols(), "group_rows experts");
  need_f32(weights, experts.rows(), experts.cols(), "group_rows weights");
  need(groups.order, DType::kI32, experts.rows(), experts.cols(), "group_rows order");
  need_f32(groups.weights, experts.rows(), experts.cols(), "group_rows weights out");
  GLM_CHECK(experts.elements() <= groups.capacity,
            "group_rows: {} entries, capacity {}",
            experts.elements(),
            groups.capacity);
  const Span span(trace_, "op.group_rows", element_work(experts.elements(), 4, 0));
  do_group_rows(groups, experts, weights, first_expert);
}

void Ops::expert_gate_up(Tensor out, Tensor x, const ExpertGroups& groups, const Weight& w) {
  need_weight(w, x.rows() == 0 ? w.cols : x.cols(), "expert_gate_up");
  need_gate_up(w, "expert_gate_up");
  need_groups(groups, "expert_gate_up");
  GLM_CHECK(
      w.n_matrices == groups.n_experts, "{} matrices, {} experts", w.n_matrices, groups.n_experts);
  need_assigned(out, groups, w.rows / 2, "expert_gate_up out");
  const Span span(trace_, "op.expert_gate_up", group_work(trace_, groups, w));
  do_expert_gate_up(out, x, groups, w);
}

void Ops::expert_down(Tensor out, Tensor h, const ExpertGroups& groups, const Weight& w) {
  need_weight(w, h.rows() == 0 ? w.cols : h.cols(), "expert_down");
  need_groups(groups, "expert_down");
  GLM_CHECK(
      w.n_matrices == groups.n_experts, "{} matrices, {} experts", w.n_matrices, groups.n_experts);
  need_assigned(h, groups, w.cols, "expert_down h");
  need_assigned(out, groups, w.rows, "expert_down out");
  const Span span(trace_, "op.expert_down", group_work(trace_, groups, w));
  do_expert_down(out, h, groups, w);
}

void Ops::combine(Tensor out, Tensor rows, const ExpertGroups& groups, Tensor addend) {
  if (!addend.absent()) {
    need_f32(addend, out.rows(), out.cols(), "combine addend");
    do_combine_add(out, rows, groups, addend);
    return;
  }
  need_f32(out, out.rows(), out.cols(), "combine out");
  need_assigned(rows, groups, out.rows() == 0 ? rows.cols() : out.cols(), "combine rows");
  need(groups.order, DType::kI32, out.rows(), groups.order.cols(), "combine order");
  need_f32(groups.weights, out.rows(), groups.order.cols(), "combine weights");
  const int64_t entries = groups.order.elements();
  const Span span(trace_, "op.combine", element_work(entries * out.cols(), 1, 2));
  do_combine(out, rows, groups);
}

void Ops::do_combine_add(Tensor out, Tensor rows, const ExpertGroups& groups, Tensor addend) {
  combine(out, rows, groups);
  add(out, addend);
}

void Ops::copy_rows(RowCopies& out, Tensor experts, Tensor weights, Tensor borders, int slices) {
  const int64_t rows = experts.rows();
  GLM_CHECK(borders.dtype == DType::kI32 && borders.elements() > 0 && slices > 0,
            "copy_rows: borders {} in {} slices",
            borders.shape_text(),
            slices);
  const int64_t sent = (borders.elements() - 1) * slices * rows;
  need(experts, DType::kI32, rows, experts.cols(), "copy_rows experts");
  need_f32(weights, rows, experts.cols(), "copy_rows weights");
  need_list(out.index, sent, "copy_rows index");
  need(out.routing, DType::kI32, sent, 2 * experts.cols(), "copy_rows routing");
  need(out.places, DType::kI32, rows, out.places.cols(), "copy_rows places");
  const Span span(trace_, "op.copy_rows", element_work(out.routing.elements(), 2, 0));
  do_copy_rows(out, experts, weights, borders, slices);
}

void Ops::do_copy_rows(RowCopies& out, Tensor experts, Tensor weights, Tensor borders, int slices) {
  const int64_t rows = experts.rows(), top_k = experts.cols(), most = out.places.cols();
  const int64_t ranks = (borders.elements() - 1) * slices;
  for (int64_t t = 0; t < rows; ++t) {
    int32_t* places = out.places.i32() + t * most;
    std::fill(places, places + most, -1);
    for (int64_t p = 0; p < ranks; ++p) {
      const int64_t at = p * rows + t;
      const int32_t begin = borders.i32()[p / slices], end = borders.i32()[p / slices + 1];
      int32_t* routing = out.routing.i32() + at * 2 * top_k;
      bool needed = false;
      for (int64_t j = 0; j < top_k; ++j) {
        const int32_t expert = experts.i32()[t * top_k + j];
        const bool goes = expert >= begin && expert < end;
        routing[j] = goes ? expert : -1;
        routing[top_k + j] = goes ? std::bit_cast<int32_t>(weights.f32()[t * top_k + j]) : 0;
        needed = needed || goes;
      }
      if (needed) *places++ = static_cast<int32_t>(at);
      out.index.i32()[at] = static_cast<int32_t>(t);
    }
  }
}

void Ops::split_routing(Tensor experts, Tensor weights, Tensor routing) {
  need(experts, DType::kI32, routing.rows(), experts.cols(), "split_routing experts");
  need_f32(weights, routing.rows(), experts.cols(), "split_routing weights");
  need(routing, DType::kI32, routing.rows(), 2 * experts.cols(), "split_routing routing");
  const Span span(trace_, "op.split_routing", element_work(routing.elements(), 2, 0));
  do_split_routing(experts, weights, routing);
}

void Ops::do_split_routing(Tensor experts, Tensor weights, Tensor routing) {
  const int64_t top_k = experts.cols();
  for (int64_t i = 0; i < experts.rows(); ++i) {
    const int32_t* from = routing.i32() + i * 2 * top_k;
    std::copy_n(from, top_k, experts.i32() + i * top_k);
    for (int64_t j = 0; j < top_k; ++j)
      weights.f32()[i * top_k + j] = std::bit_cast<float>(from[top_k + j]);
  }
}

void Ops::gather_rows(Tensor out, Tensor x, Tensor index) {
  GLM_CHECK(out.dtype == x.dtype && (x.dtype == DType::kF32 || x.dtype == DType::kI32),
            "gather_rows: {} from {}",
            out.shape_text(),
            x.shape_text());
  GLM_CHECK(out.rows() == 0 || out.cols() == x.cols(),
            "gather_rows: {} from {}",
            out.shape_text(),
            x.shape_text());
  need_list(index, out.rows(), "gather_rows index");
  const Span span(trace_, "op.gather_rows", element_work(out.elements(), 2, 0));
  do_gather_rows(out, x, index);
}

void Ops::add(Tensor x, Tensor y) {
  need_f32(x, x.rows(), x.cols(), "add x");
  need_f32(y, x.rows(), x.cols(), "add y");
  const Span span(trace_, "op.add", element_work(x.elements(), 3, 1));
  do_add(x, y);
}

void Ops::concat_columns(Tensor out, Tensor in, const std::vector<int64_t>& widths) {
  int64_t total = 0;
  for (const int64_t width : widths) {
    GLM_CHECK(width >= 0, "concat_columns: a width of {}", width);
    total += width;
  }
  need_f32(out, out.rows(), total, "concat_columns out");
  GLM_CHECK(in.dtype == DType::kF32 && in.elements() == out.elements(),
            "concat_columns: {} into {}",
            in.shape_text(),
            out.shape_text());
  const Span span(trace_, "op.concat_columns", element_work(out.elements(), 2, 0));
  do_concat_columns(out, in, widths);
}

void Ops::pad_columns(Tensor out, Tensor in, int64_t first) {
  need_f32(out, out.rows(), out.cols(), "pad_columns out");
  need_f32(in, out.rows(), in.cols(), "pad_columns in");
  GLM_CHECK(first >= 0 && (out.rows() == 0 || first + in.cols() <= out.cols()),
            "pad_columns: {} into {} at {}",
            in.shape_text(),
            out.shape_text(),
            first);
  const Span span(trace_, "op.pad_columns", element_work(out.elements(), 2, 0));
  do_pad_columns(out, in, first);
}

void Ops::fill_random(const Weight& w, int64_t first, int64_t count, const RandomRows& from) {
  need_weight(w, w.cols, "fill_random");
  const int64_t line = line_rows(w);
  GLM_CHECK(
      first >= 0 && count >= 0 && first + count <= w.rows && first % line == 0 && count % line == 0,
      "fill_random: rows [{}, {}) of {}",
      first,
      first + count,
      w.rows);
  GLM_CHECK(from.first_matrix >= 0 && from.first_row >= 0 && from.first_col >= 0 &&
                from.first_row + count <= from.rows && from.first_col + w.cols <= from.cols &&
                from.first_row % line == 0,
            "fill_random: {} rows and {} columns from [{}, {}] of a tensor of [{}, {}]",
            count,
            w.cols,
            from.first_row,
            from.first_col,
            from.rows,
            from.cols);
  GLM_CHECK(!from.alternate || (line > 1 && from.rows % (2 * line) == 0),
            "fill_random: {} rows do not alternate",
            from.rows);
  GLM_CHECK(
      !is_quantized(w.dtype) || (from.cols % kQuantBlock == 0 && from.first_col % kQuantBlock == 0),
      "fill_random: columns from {} of {} in blocks",
      from.first_col,
      from.cols);
  const double rows = static_cast<double>(w.n_matrices) * static_cast<double>(count);
  const double row_bytes =
      static_cast<double>(value_bytes(w.dtype, 1, w.cols) + scale_bytes(w.dtype, 1, w.cols));
  const Span span(trace_, "op.fill_random", {rows * row_bytes, 0});
  do_fill_random(w, first, count, from);
}

}  // namespace glm
