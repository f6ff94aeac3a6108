// SPDX-License-Identifier: MIT
#include "kernels/checked_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

namespace glm {
namespace {

// A copy of a tensor in memory of its own.
class Copy {
 public:
  explicit Copy(Tensor original) : view_(original) {
    const auto bytes = static_cast<size_t>(original.bytes());
    memory_.resize(bytes);
    if (bytes != 0) std::memcpy(memory_.data(), original.data, bytes);
    view_.data = memory_.data();
  }
  Copy(const Copy&) = delete;
  Copy& operator=(const Copy&) = delete;
  Tensor view() const { return view_; }

 private:
  std::vector<uint8_t> memory_;
  Tensor view_;
};

bool finite(Tensor t) {
  if (t.absent() || t.dtype != DType::kF32) return true;
  const float* x = t.f32();
  return std::all_of(x, x + t.elements(), [](float value) { return std::isfinite(value); });
}

std::string element_name(const Tensor& t, int64_t index) {
  const int64_t cols = std::max<int64_t>(1, t.cols());
  return fmt::format("[{}, {}] of {}", index / cols, index % cols, t.shape_text());
}

// For results of finite inputs.
void check_sound(const char* op, Tensor actual, Tensor expected) {
  for (int64_t i = 0; i < actual.elements(); ++i)
    if (!std::isfinite(actual.f32()[i]))
      fail(ExitCode::kNumerical,
           "{}: element {} is {} although what it was made from is finite (reference: {}): a "
           "weight is not, or it overflows",
           op,
           element_name(actual, i),
           actual.f32()[i],
           expected.f32()[i]);
}

void check(const char* op, Tensor actual, Tensor expected, const Tolerances& bounds, bool sound) {
  if (sound) check_sound(op, actual, expected);
  const Deviation deviation = compare(actual, expected, bounds);
  if (deviation.found)
    fail(ExitCode::kNumerical,
         "{}: element {} is {:.9g}, the reference has {:.9g}: {:.3g} times the tolerance",
         op,
         element_name(actual, deviation.index),
         deviation.actual,
         deviation.expected,
         deviation.share);
}

void check_bytes(const char* what, Tensor actual, Tensor expected) {
  const auto* a = actual.as<uint8_t>();
  const auto* b = expected.as<uint8_t>();
  for (int64_t i = 0; i < actual.elements(); ++i)
    if (a[i] != b[i])
      fail(ExitCode::kNumerical,
           "{}: byte {} is {}, the reference has {}: must be equal",
           what,
           i,
           a[i],
           b[i]);
}

// Equal bytes, for operations that only move or round once.
void check_same(const char* op, Tensor actual, Tensor expected) {
  const int64_t size = dtype_size(actual.dtype);
  for (int64_t i = 0; i < actual.elements(); ++i) {
    const uint8_t* a = actual.as<uint8_t>() + i * size;
    const uint8_t* b = expected.as<uint8_t>() + i * size;
    if (std::memcmp(a, b, static_cast<size_t>(size)) == 0) continue;
    if (actual.dtype == DType::kF32 && std::isnan(actual.f32()[i]) && std::isnan(expected.f32()[i]))
      continue;
    const bool real = actual.dtype == DType::kF32;
    const double got = real ? double{actual.f32()[i]} : actual.i32()[i];
    const double want = real ? double{expected.f32()[i]} : expected.i32()[i];
    fail(ExitCode::kNumerical,
         "{}: element {} is {:.9g}, the reference has {:.9g}: must be equal",
         op,
         element_name(actual, i),
         got,
         want);
  }
}

// Whether two choices of experts for one row differ only by experts whose values the rounding of
// exp cannot tell apart. Without groups; with them a tie may hide in the groups' sums.
bool route_tie(const float* logits,
               Tensor bias,
               const RouterConfig& config,
               const int32_t* got,
               const int32_t* want) {
  if (config.n_group > 1 || !std::is_sorted(got, got + config.top_k)) return false;
  double lowest_wanted = HUGE_VAL;
  double lowest_got = HUGE_VAL;
  const double largest = *std::max_element(logits, logits + config.n_experts);
  double total = 0;
  for (int e = 0; e < config.n_experts; ++e) total += std::exp(logits[e] - largest);
  const auto choice = [&](int32_t e) {
    const double z = logits[e];
    const double score = config.kind == RouterKind::kSigmoid ? 1 / (1 + std::exp(-z))
                                                             : std::exp(z - largest) / total;
    return score + (bias.absent() ? 0.0 : double{bias.f32()[e]});
  };
  for (int k = 0; k < config.top_k; ++k) {
    lowest_wanted = std::min(lowest_wanted, choice(want[k]));
    lowest_got = std::min(lowest_got, choice(got[k]));
  }
  return std::fabs(lowest_wanted - lowest_got) <= 0x1p-20 * std::max(1.0, std::fabs(lowest_wanted));
}

}  // namespace

void CheckedOps::do_embed(Tensor out, Tensor ids, const Weight& table, int64_t first_row) {
  const Copy expected(out);
  reference_->do_embed(expected.view(), ids, table, first_row);
  fast_->do_embed(out, ids, table, first_row);
  check_same("embed", out, expected.view());
  check_sound("embed", out, expected.view());
}

void CheckedOps::do_rms_norm(Tensor out, Tensor x, Tensor weight, float eps) {
  const bool sound = finite(x);
  const Copy expected(out);
  reference_->do_rms_norm(expected.view(), x, weight, eps);
  fast_->do_rms_norm(out, x, weight, eps);
  check("rms_norm", out, expected.view(), norm_tolerance(expected.view(), out.cols()), sound);
}

void CheckedOps::do_head_norm(
    Tensor qkv, int first_head, int n_heads, int head_dim, Tensor weight, float eps) {
  const bool sound = finite(qkv);
  const Copy expected(qkv);
  reference_->do_head_norm(expected.view(), first_head, n_heads, head_dim, weight, eps);
  fast_->do_head_norm(qkv, first_head, n_heads, head_dim, weight, eps);
  check("head_norm", qkv, expected.view(), norm_tolerance(expected.view(), head_dim), sound);
}

void CheckedOps::do_rope_table(Tensor out, Tensor positions, Tensor inv_freq) {
  const Copy expected(out);
  reference_->do_rope_table(expected.view(), positions, inv_freq);
  fast_->do_rope_table(out, positions, inv_freq);
  const Tolerances bounds(static_cast<size_t>(out.elements()), 0x1p-23);
  check("rope_table", out, expected.view(), bounds, finite(inv_freq));
}

void CheckedOps::do_rope(Tensor qkv, Tensor table, const HeadLayout& heads, RopePairing pairing) {
  const bool sound = finite(qkv) && finite(table);
  const Tolerances bounds = rope_tolerance(qkv, heads);
  const Copy expected(qkv);
  reference_->do_rope(expected.view(), table, heads, pairing);
  fast_->do_rope(qkv, table, heads, pairing);
  check("rope", qkv, expected.view(), bounds, sound);
}

// The reference writes to copies of the pages that the slots touch.
void CheckedOps::do_store_kv(const KvLayer& cache,
                             Tensor qkv,
                             Tensor slots,
                             const HeadLayout& heads) {
  const int64_t bytes = KvLayer::page_bytes(cache.dtype, cache.n_kv_heads, cache.head_dim);
  std::map<int32_t, int32_t> place;  // page of the cache -> page of the copy
  const Copy moved(slots);
  for (int64_t t = 0; t < slots.elements(); ++t) {
    const int32_t slot = slots.i32()[t];
    GLM_CHECK(slot >= 0 && slot < cache.n_blocks * kKvBlockTokens, "store_kv: slot {}", slot);
    const auto next = static_cast<int32_t>(place.size());
    const int32_t page = place.emplace(slot / kKvBlockTokens, next).first->second;
    moved.view().i32()[t] = page * kKvBlockTokens + slot % kKvBlockTokens;
  }
  std::vector<uint8_t> keys(place.size() * static_cast<size_t>(bytes));
  std::vector<uint8_t> values(keys.size());
  auto* real_keys = static_cast<uint8_t*>(cache.keys);
  auto* real_values = static_cast<uint8_t*>(cache.values);
  for (const auto& [page, at] : place) {
    std::memcpy(keys.data() + at * bytes, real_keys + page * bytes, static_cast<size_t>(bytes));
    std::memcpy(values.data() + at * bytes, real_values + page * bytes, static_cast<size_t>(bytes));
  }
  KvLayer copy = cache;
  copy.keys = keys.data();
  copy.values = values.data();
  copy.n_blocks = static_cast<int64_t>(place.size());
  reference_->do_store_kv(copy, qkv, moved.view(), heads);
  fast_->do_store_kv(cache, qkv, slots, heads);
  for (const auto& [page, at] : place) {
    const bool same =
        std::memcmp(
            real_keys + page * bytes, keys.data() + at * bytes, static_cast<size_t>(bytes)) == 0 &&
        std::memcmp(real_values + page * bytes,
                    values.data() + at * bytes,
                    static_cast<size_t>(bytes)) == 0;
    if (!same && finite(qkv))
      fail(ExitCode::kNumerical, "store_kv: page {} differs from the reference", page);
  }
}

void CheckedOps::do_attention(
    Tensor out, Tensor qkv, const KvLayer& cache, const BatchRows& rows, const HeadLayout& heads) {
  const Copy expected(out);
  reference_->do_attention(expected.view(), qkv, cache, rows, heads);
  fast_->do_attention(out, qkv, cache, rows, heads);
  if (heads.n_heads == 0) return;
  // The cache may hold what is not finite: the reference tells.
  const bool sound = finite(expected.view());
  check("attention", out, expected.view(), attention_tolerance(qkv, cache, rows, heads), sound);
}

void CheckedOps::do_linear(Tensor out, Tensor x, const Weight& w, Tensor bias) {
  const Copy expected(out);
  reference_->do_linear(expected.view(), x, w, bias);
  fast_->do_linear(out, x, w, bias);
  if (out.elements() == 0) return;
  check("linear", out, expected.view(), linear_tolerance(x, w, 0, bias), finite(x));
}

void CheckedOps::do_gate_up(Tensor out, Tensor x, const Weight& w) {
  const Copy expected(out);
  reference_->do_gate_up(expected.view(), x, w);
  fast_->do_gate_up(out, x, w);
  if (out.elements() == 0) return;
  check("gate_up", out, expected.view(), gate_up_tolerance(x, w, 0), finite(x));
}

// Experts whose choice values differ by less than the rounding of exp may change places; then the
// weights of that row are not compared.
void CheckedOps::do_route(
    Tensor experts, Tensor weights, Tensor logits, Tensor bias, const RouterConfig& config) {
  const Copy expected_experts(experts);
  const Copy expected_weights(weights);
  reference_->do_route(expected_experts.view(), expected_weights.view(), logits, bias, config);
  fast_->do_route(experts, weights, logits, bias, config);
  const int64_t k = config.top_k;
  for (int64_t t = 0; t < logits.rows(); ++t) {
    const Tensor want = expected_experts.view().slice(t, 1);
    const Tensor got = experts.slice(t, 1);
    if (!std::equal(got.i32(), got.i32() + k, want.i32())) {
      if (route_tie(logits.f32() + t * config.n_experts, bias, config, got.i32(), want.i32()))
        continue;
      check_same("route", got, want);
    }
    const Tensor row = weights.slice(t, 1);
    const Tensor expected = expected_weights.view().slice(t, 1);
    check("route", row, expected, relative_tolerance(expected, 64), finite(logits.slice(t, 1)));
  }
}

void CheckedOps::do_group_rows(ExpertGroups& groups,
                               Tensor experts,
                               Tensor weights,
                               int first_expert) {
  const Copy offsets(groups.offsets);
  const Copy rows(groups.rows);
  const Copy order(groups.order);
  const Copy order_weights(groups.weights);
  ExpertGroups expected = groups;
  expected.offsets = offsets.view();
  expected.rows = rows.view();
  expected.order = order.view();
  expected.weights = order_weights.view();
  reference_->do_group_rows(expected, experts, weights, first_expert);
  fast_->do_group_rows(groups, experts, weights, first_expert);
  check_same("group_rows offsets", groups.offsets, expected.offsets);
  const int64_t n = expected.offsets.i32()[groups.n_experts];
  check_same("group_rows rows", groups.rows.slice(0, n), expected.rows.slice(0, n));
  check_same("group_rows order", groups.order, expected.order);
  check_same("group_rows weights", groups.weights, expected.weights);
}

void CheckedOps::do_expert_gate_up(Tensor out,
                                   Tensor x,
                                   const ExpertGroups& groups,
                                   const Weight& w) {
  const Copy expected(out);
  reference_->do_expert_gate_up(expected.view(), x, groups, w);
  fast_->do_expert_gate_up(out, x, groups, w);
  for (int e = 0; e < groups.n_experts; ++e) {
    const int64_t first = groups.offsets.i32()[e];
    const int64_t n = groups.offsets.i32()[e + 1] - first;
    if (n == 0 || out.cols() == 0) continue;
    std::vector<float> gathered(static_cast<size_t>(n * w.cols));
    for (int64_t i = 0; i < n; ++i)
      std::copy_n(
          x.f32() + groups.rows.i32()[first + i] * w.cols, w.cols, gathered.begin() + i * w.cols);
    const Tensor inputs = host_tensor(gathered.data(), DType::kF32, {n, w.cols});
    check("expert_gate_up",
          out.slice(first, n),
          expected.view().slice(first, n),
          gate_up_tolerance(inputs, w, e),
          finite(inputs));
  }
}

void CheckedOps::do_expert_down(Tensor out, Tensor h, const ExpertGroups& groups, const Weight& w) {
  const Copy expected(out);
  reference_->do_expert_down(expected.view(), h, groups, w);
  fast_->do_expert_down(out, h, groups, w);
  for (int e = 0; e < groups.n_experts; ++e) {
    const int64_t first = groups.offsets.i32()[e];
    const int64_t n = groups.offsets.i32()[e + 1] - first;
    if (n == 0 || out.cols() == 0) continue;
    const Tensor inputs = h.slice(first, n);
    check("expert_down",
          out.slice(first, n),
          expected.view().slice(first, n),
          linear_tolerance(inputs, w, e, {}),
          finite(inputs));
  }
}

void CheckedOps::do_combine(Tensor out, Tensor rows, const ExpertGroups& groups) {
  const Copy expected(out);
  reference_->do_combine(expected.view(), rows, groups);
  fast_->do_combine(out, rows, groups);
  const bool sound = finite(expected.view());  // unused rows of the buffer hold anything
  check("combine", out, expected.view(), combine_tolerance(out, rows, groups), sound);
}

void CheckedOps::do_gather_rows(Tensor out, Tensor x, Tensor index) {
  const Copy expected(out);
  reference_->do_gather_rows(expected.view(), x, index);
  fast_->do_gather_rows(out, x, index);
  check_same("gather_rows", out, expected.view());
}

void CheckedOps::do_add(Tensor x, Tensor y) {
  const bool sound = finite(x) && finite(y);
  const Copy expected(x);
  reference_->do_add(expected.view(), y);
  fast_->do_add(x, y);
  check_same("add", x, expected.view());
  if (sound) check_sound("add", x, expected.view());
}

void CheckedOps::do_concat_columns(Tensor out, Tensor in, const std::vector<int64_t>& widths) {
  const Copy expected(out);
  reference_->do_concat_columns(expected.view(), in, widths);
  fast_->do_concat_columns(out, in, widths);
  check_same("concat_columns", out, expected.view());
}

void CheckedOps::do_pad_columns(Tensor out, Tensor in, int64_t first) {
  const Copy expected(out);
  reference_->do_pad_columns(expected.view(), in, first);
  fast_->do_pad_columns(out, in, first);
  check_same("pad_columns", out, expected.view());
}

void CheckedOps::do_fill_random(const Weight& w,
                                int64_t first,
                                int64_t count,
                                const RandomRows& from) {
  const auto plane = [](const void* data, int64_t bytes) {
    return host_tensor(const_cast<void*>(data), DType::kU8, {bytes});
  };
  const Tensor values = plane(w.values, w.n_matrices * w.value_stride());
  const Tensor scales = plane(w.scales, w.n_matrices * w.scale_stride());
  const Copy expected_values(values), expected_scales(scales);
  Weight expected = w;
  expected.values = expected_values.view().data;
  expected.scales = expected_scales.view().data;
  reference_->do_fill_random(expected, first, count, from);
  fast_->do_fill_random(w, first, count, from);
  check_bytes("fill_random values", values, expected_values.view());
  check_bytes("fill_random scales", scales, expected_scales.view());
}

}  // namespace glm
