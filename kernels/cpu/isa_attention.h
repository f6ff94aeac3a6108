// Attention over one split of the cache, for all instruction sets (isa_body.h). Keys of a page
// stand transposed, so that a chain of fused additions per query and page runs over the head's
// elements; values stand row by row, with a chain per query and sixteen elements over the
// positions. A block works on several pages or pieces of a row at once, as many as registers hold,
// because one chain waits for the addition before it; and asks for the page after next early,
// because the processor's own prefetcher stops at the end of each 4 KiB. SPDX-License-Identifier:
// MIT
#pragma once

#include "kernels/cpu/isa_body.h"

namespace glm::GLM_ISA {

constexpr int kCacheLine = 64;

// Chains that Q queries leave registers for.
template <int Q>
constexpr int chains(int most) {
  const int fit = kAttentionChains / Q;
  return fit < 1 ? 1 : (fit < most ? fit : most);
}

// Asks for bytes [at, at + n) of a page that is needed soon; every address may be asked for.
inline void ask_for(const uint8_t* page, int64_t at, int n) {
  for (int i = 0; i < n; i += kCacheLine) __builtin_prefetch(page + at + i);
}

// scores[p][q] grows by the products of elements [begin, end). `ahead` are pages needed next.
template <class Load, int Q, int P>
inline void add_scores(const SplitAttention& a,
                       const uint8_t* const* pages,
                       const uint8_t* const* ahead,
                       int first_query,
                       int begin,
                       int end,
                       F (*scores)[Q]) {
  using Type = typename Load::Type;
  constexpr int kElements = kCacheLine / (16 * static_cast<int>(sizeof(Type)));  // of a line
  const float* queries[Q];
  for (int q = 0; q < Q; ++q) queries[q] = a.queries[first_query + q];
  const auto element = [&](int d) {
    F keys[P];
    for (int p = 0; p < P; ++p)
      keys[p] = Load::full(reinterpret_cast<const Type*>(pages[p] + a.head_bytes) + d * 16);
    for (int q = 0; q < Q; ++q) {
      const F x = splat(queries[q][d]);
      for (int p = 0; p < P; ++p) scores[p][q] = fused(x, keys[p], scores[p][q]);
    }
  };
  int d = begin;
  for (; d + kElements <= end; d += kElements) {
    for (int p = 0; p < P; ++p)
      ask_for(ahead[p], a.head_bytes + int64_t{d} * 16 * sizeof(Type), kCacheLine);
    for (int i = 0; i < kElements; ++i) element(d + i);
  }
  for (; d < end; ++d) element(d);
}

template <class Load, int Q, int P>
inline void page_scores(const SplitAttention& a,
                        const uint8_t* const* pages,
                        const uint8_t* const* ahead,
                        int first_query,
                        F (*scores)[Q]) {
  for (int p = 0; p < P; ++p)
    for (int q = 0; q < Q; ++q) scores[p][q] = zero();
  if constexpr (sizeof(typename Load::Type) == 1) {
    for (int begin = 0; begin < a.head_dim; begin += 32) {
      const int end = begin + 32 < a.head_dim ? begin + 32 : a.head_dim;
      F group[P][Q];
      for (int p = 0; p < P; ++p)
        for (int q = 0; q < Q; ++q) group[p][q] = zero();
      add_scores<Load, Q, P>(a, pages, ahead, first_query, begin, end, group);
      for (int p = 0; p < P; ++p) {
        const F scale =
            load(reinterpret_cast<const float*>(pages[p] + a.key_scale_bytes) + begin / 2);
        for (int q = 0; q < Q; ++q) scores[p][q] = fused(group[p][q], scale, scores[p][q]);
      }
    }
  } else {
    add_scores<Load, Q, P>(a, pages, ahead, first_query, 0, a.head_dim, scores);
  }
}

// Values of one position, 16 elements from dim on.
template <class Load>
inline F page_values(const SplitAttention& a, const uint8_t* page, int offset, int dim) {
  using Type = typename Load::Type;
  const auto* row = reinterpret_cast<const Type*>(page + a.head_bytes) + offset * a.head_dim + dim;
  const F v = dim + 16 <= a.head_dim ? Load::full(row) : Load::part(row, a.head_dim - dim);
  if constexpr (sizeof(Type) == 1) {
    const int groups = (a.head_dim + 31) / 32;
    const auto* scales = reinterpret_cast<const float*>(page + a.value_scale_bytes);
    return v * splat(scales[offset * groups + dim / 32]);
  } else {
    return v;
  }
}

// Adds the first `common` positions of a page to elements [dim, dim + 16 D) of Q queries.
template <class Load, int Q, int D>
inline void add_values(const SplitAttention& a,
                       const uint8_t* page,
                       const uint8_t* ahead,
                       const float* scores,
                       float* out,
                       int common,
                       int dim) {
  using Type = typename Load::Type;
  constexpr int kBytes = D * 16 * static_cast<int>(sizeof(Type));
  F sums[D][Q];
  for (int q = 0; q < Q; ++q)
    for (int i = 0; i < D; ++i) sums[i][q] = load(out + q * a.stride + dim + 16 * i);
  for (int p = 0; p < common; ++p) {
    ask_for(ahead, a.head_bytes + (int64_t{p} * a.head_dim + dim) * sizeof(Type), kBytes);
    F values[D];
    for (int i = 0; i < D; ++i) values[i] = page_values<Load>(a, page, p, dim + 16 * i);
    for (int q = 0; q < Q; ++q) {
      const F weight = splat(scores[q * kSplitPositions + p]);
      for (int i = 0; i < D; ++i) sums[i][q] = fused(weight, values[i], sums[i][q]);
    }
  }
  for (int q = 0; q < Q; ++q)
    for (int i = 0; i < D; ++i) store(out + q * a.stride + dim + 16 * i, sums[i][q]);
}

// Adds positions [0, 16) of a page, each to the queries that see it: first those that all see.
template <class Load, int Q>
inline void add_page(const SplitAttention& a,
                     const uint8_t* page,
                     const uint8_t* ahead,
                     int first_query,
                     int begin) {
  constexpr int kPieces = chains<Q>(4);
  const float* scores = a.scores + first_query * kSplitPositions + begin;
  float* sums = a.sums + first_query * a.stride;
  int common = 16;
  for (int q = 0; q < Q; ++q) {
    const int seen = a.limits[first_query + q] - begin;
    common = seen < common ? seen : common;
  }
  common = common < 0 ? 0 : common;
  int dim = 0;
  for (; dim + 16 * kPieces <= a.head_dim; dim += 16 * kPieces)
    add_values<Load, Q, kPieces>(a, page, ahead, scores, sums, common, dim);
  for (; dim < a.head_dim; dim += 16)
    add_values<Load, Q, 1>(a, page, ahead, scores, sums, common, dim);
  for (int q = 0; q < Q; ++q) {
    const int seen = a.limits[first_query + q] - begin;
    for (int p = common; p < seen && p < 16; ++p) {
      const F weight = splat(scores[q * kSplitPositions + p]);
      for (dim = 0; dim < a.head_dim; dim += 16) {
        float* sum = sums + q * a.stride + dim;
        store(sum, fused(weight, page_values<Load>(a, page, p, dim), load(sum)));
      }
    }
  }
}

// Scores of pages [page, page + P), scaled and cut to what each query sees.
template <class Load, int Q, int P>
inline void score_pages(const SplitAttention& a, int first_query, int page, int n_pages, F* top) {
  const float lowest = -__builtin_inff();
  const uint8_t* pages[P];
  const uint8_t* ahead[P];
  for (int p = 0; p < P; ++p) {
    const int next = page + P + p;  // behind the last keys come the first values
    pages[p] = a.keys + a.pages[page + p] * a.page_bytes;
    ahead[p] = next < n_pages ? a.keys + a.pages[next] * a.page_bytes
                              : a.values + a.pages[p] * a.page_bytes;
  }
  F scores[P][Q];
  page_scores<Load, Q, P>(a, pages, ahead, first_query, scores);
  for (int p = 0; p < P; ++p) {
    for (int q = 0; q < Q; ++q) {
      const int at = (page + p) * 16;
      const F scaled =
          keep_first(scores[p][q] * splat(a.scale), a.limits[first_query + q] - at, lowest);
      top[q] = max_of(top[q], scaled);
      store(a.scores + (first_query + q) * kSplitPositions + at, scaled);
    }
  }
}

template <class Load, int Q>
inline void attend_block(const SplitAttention& a, int first_query) {
  constexpr int kPages = chains<Q>(sizeof(typename Load::Type) == 1 ? 1 : 4);
  int longest = 0;
  for (int q = 0; q < Q; ++q) {
    const int limit = a.limits[first_query + q];
    longest = limit > longest ? limit : longest;
  }
  const int n_pages = (longest + 15) / 16;
  F top[Q];
  for (int q = 0; q < Q; ++q) top[q] = splat(-__builtin_inff());
  int page = 0;
  for (; page + kPages <= n_pages; page += kPages)
    score_pages<Load, Q, kPages>(a, first_query, page, n_pages, top);
  for (; page < n_pages; ++page) score_pages<Load, Q, 1>(a, first_query, page, n_pages, top);
  for (int q = 0; q < Q; ++q) {
    const float largest = tree_max(top[q]);
    float* scores = a.scores + (first_query + q) * kSplitPositions;
    F total = zero();
    const int own_pages = (a.limits[first_query + q] + 15) / 16;
    for (int i = 0; i < own_pages; ++i) {
      const F e = exp_of(load(scores + i * 16) - splat(largest));
      total = total + e;
      store(scores + i * 16, e);
    }
    a.largest[first_query + q] = largest;
    a.totals[first_query + q] = tree_sum(total);
    for (int64_t i = 0; i < a.stride; i += 16)
      store(a.sums + (first_query + q) * a.stride + i, zero());
  }
  for (page = 0; page < n_pages; ++page) {
    // Behind the last values come the keys of the next split.
    const int next = page + 1 < a.n_pages ? page + 1 : page;
    add_page<Load, Q>(a,
                      a.values + a.pages[page] * a.page_bytes,
                      (next < n_pages ? a.values : a.keys) + a.pages[next] * a.page_bytes,
                      first_query,
                      page * 16);
  }
}

template <class Load>
inline void attend(const SplitAttention& a) {
  int q = 0;
  for (; q + kQueryBlock <= a.n_queries; q += kQueryBlock) attend_block<Load, kQueryBlock>(a, q);
  if constexpr (kQueryBlock > 4)
    for (; q + 4 <= a.n_queries; q += 4) attend_block<Load, 4>(a, q);
  if constexpr (kQueryBlock > 2)
    for (; q + 2 <= a.n_queries; q += 2) attend_block<Load, 2>(a, q);
  for (; q < a.n_queries; ++q) attend_block<Load, 1>(a, q);
}

inline void merge_split(float* largest,
                        float* total,
                        float* sums,
                        float split_largest,
                        float split_total,
                        const float* split_sums,
                        int64_t n) {
  const float top = *largest > split_largest ? *largest : split_largest;
  float weights[16];
  store(weights, exp_of(splat(*largest - top)));
  const float old_weight = weights[0];
  store(weights, exp_of(splat(split_largest - top)));
  const float new_weight = weights[0];
  *largest = top;
  *total = *total * old_weight + split_total * new_weight;
  for (int64_t i = 0; i < n; i += 16)
    store(sums + i, load(sums + i) * splat(old_weight) + load(split_sums + i) * splat(new_weight));
}

inline void divide(const float* sums, float total, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += 16) {
    const int left = static_cast<int>(n - i < 16 ? n - i : 16);
    store(out + i, load(sums + i, left) / splat(total), left);
  }
}

}  // namespace glm::GLM_ISA
