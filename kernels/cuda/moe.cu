// Choosing experts, grouping rows by expert, adding up what the experts returned: the same bits as
// on the CPU (kernels/cpu/moe.cpp). SPDX-License-Identifier: MIT
#include "kernels/cuda/launch.h"
#include "kernels/cuda/math.h"

namespace glm::GLM_CUDA_SPACE {
namespace {

constexpr int kThreads = 256;
constexpr int kEntries = 1024;  // staged in shared memory at once

// Shared memory of a router's warp.
struct Router {
  float* scores;   // [n_experts]
  float* choice;   // [n_experts], -inf for what is excluded
  float* sums;     // [n_group]
  int32_t* taken;  // [n_experts], then [n_group]

  static GLM_DEVICE Router in_shared(const RouteArgs& a) {
    auto* floats = shared_as<float>();
    return {floats,
            floats + a.n_experts,
            floats + 2 * a.n_experts,
            reinterpret_cast<int32_t*>(floats + 2 * a.n_experts + a.n_group)};
  }
};

inline size_t router_bytes(const RouteArgs& a) {
  return sizeof(float) *
         (3 * static_cast<size_t>(a.n_experts) + 2 * static_cast<size_t>(a.n_group));
}

// Marks the k best of n values: larger first, NaN last, ties to the lower index.
GLM_DEVICE void mark_best(const float* values, int n, int k, int32_t* taken) {
  const int lane = lane_id();
  for (int e = lane; e < n; e += 32) taken[e] = 0;
  for (int round = 0; round < k; ++round) {
    sync_warp();
    int best = -1;
    float value = 0.0f;
    for (int e = lane; e < n; e += 32) {
      if (taken[e] == 0 && (best < 0 || better(values[e], value))) {
        best = e;
        value = values[e];
      }
    }
    for (int step = 16; step > 0; step /= 2) {
      const int other = shuffle_xor(best, step);
      const float other_value = shuffle_xor(value, step);
      const bool wins =
          best < 0 || better(other_value, value) || (!better(value, other_value) && other < best);
      if (other >= 0 && wins) {
        best = other;
        value = other_value;
      }
    }
    if (lane == 0) taken[best] = 1;
  }
  sync_warp();
}

// Sum of the two best values of a group, or the only one.
GLM_DEVICE float two_best(const float* values, int n) {
  float first = values[0];
  if (n == 1) return first;
  float second = values[1];
  if (better(second, first)) {
    second = values[0];
    first = values[1];
  }
  for (int e = 2; e < n; ++e) {
    if (better(values[e], first)) {
      second = first;
      first = values[e];
    } else if (better(values[e], second)) {
      second = values[e];
    }
  }
  return first + second;
}

GLM_DEVICE void exclude_groups(const RouteArgs& a, const Router& r) {
  const int size = a.n_experts / a.n_group;
  int32_t* kept = r.taken + a.n_experts;
  for (int g = lane_id(); g < a.n_group; g += 32) r.sums[g] = two_best(r.choice + g * size, size);
  sync_warp();
  mark_best(r.sums, a.n_group, a.topk_group, kept);
  for (int e = lane_id(); e < a.n_experts; e += 32)
    if (kept[e / size] == 0) r.choice[e] = lowest();
  sync_warp();
}

// Sixteen sums (index mod 16) and a tree, as everywhere.
GLM_DEVICE void softmax_scores(const float* logits, int n, float* scores) {
  const int lane = lane_id();
  float top = lowest();
  for (int e = lane; e < n; e += 32) top = top > logits[e] ? top : logits[e];
  for (int step = 16; step > 0; step /= 2) {
    const float other = shuffle_xor(top, step);
    top = top > other ? top : other;
  }
  for (int e = lane; e < n; e += 32) scores[e] = exp_of(logits[e] - top);
  sync_warp();
  float sum = 0.0f;
  if (lane < 16)
    for (int e = lane; e < n; e += 16) sum = sum + scores[e];
  for (int step = 8; step > 0; step /= 2) sum = sum + shuffle_xor(sum, step);
  const float total = shuffle_from(sum, 0);
  for (int e = lane; e < n; e += 32) scores[e] = quotient(scores[e], total);
}

// A warp per row.
__global__ void route_rows(RouteArgs a) {
  const int lane = lane_id();
  const Router r = Router::in_shared(a);
  const float* logits = a.logits + blockIdx.x * int64_t{a.n_experts};
  if (a.sigmoid)
    for (int e = lane; e < a.n_experts; e += 32) r.scores[e] = sigmoid_of(logits[e]);
  else
    softmax_scores(logits, a.n_experts, r.scores);
  for (int e = lane; e < a.n_experts; e += 32)
    r.choice[e] = a.bias == nullptr ? r.scores[e] : r.scores[e] + a.bias[e];
  sync_warp();
  if (a.n_group > 1) exclude_groups(a, r);
  mark_best(r.choice, a.n_experts, a.top_k, r.taken);
  int32_t* experts = a.experts + blockIdx.x * int64_t{a.top_k};
  float* weights = a.weights + blockIdx.x * int64_t{a.top_k};
  int k = 0;
  float total = 0.0f;  // in ascending order, on every lane
  for (int begin = 0; begin < a.n_experts; begin += 32) {
    const int e = begin + lane;
    const uint32_t chosen = ballot(e < a.n_experts && r.taken[e] != 0);
    if (chosen >> lane & 1u) experts[k + count_bits(chosen & ((1u << lane) - 1u))] = e;
    for (int i = 0; i < 32; ++i)
      if (chosen >> i & 1u) total = total + r.scores[begin + i];
    k += count_bits(chosen);
  }
  if (a.sigmoid) total = total + 1e-20f;
  sync_warp();
  for (int i = lane; i < a.top_k; i += 32) {
    const float score = r.scores[experts[i]];
    weights[i] = (a.norm_topk ? quotient(score, total) : score) * a.scale;
  }
}

// Entries pass through shared memory; the thread of an expert sees them all, in order.
template <class Visit>
GLM_DEVICE void each_entry(const GroupArgs& a, Visit visit) {
  int32_t* staged = shared_as<int32_t>();
  const int64_t entries = a.n_rows * a.top_k;
  for (int64_t begin = 0; begin < entries; begin += kEntries) {
    const int n = static_cast<int>(entries - begin < kEntries ? entries - begin : kEntries);
    for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x))
      staged[i] = a.experts[begin + i] - a.first_expert;
    __syncthreads();
    for (int i = 0; i < n; ++i)
      if (staged[i] == static_cast<int>(threadIdx.x)) visit(begin + i);
    __syncthreads();
  }
}

// Place of entry `at` among those of its row: by expert, then by position.
GLM_DEVICE int place_in_row(const GroupArgs& a, int64_t row, int64_t at) {
  const int32_t own = a.experts[at];
  int place = 0;
  for (int64_t i = row * a.top_k; i < (row + 1) * a.top_k; ++i) {
    const int32_t other = a.experts[i];
    const bool local = other >= a.first_expert && other < a.first_expert + a.n_experts;
    if (local && (other < own || (other == own && i < at))) ++place;
  }
  return place;
}

// One block, one thread per expert.
__global__ void group(GroupArgs a) {
  int32_t* counts = shared_as<int32_t>() + kEntries;
  const int e = static_cast<int>(threadIdx.x);
  for (int64_t i = e; i < a.n_rows * a.top_k; i += static_cast<int>(blockDim.x)) {
    a.order[i] = -1;
    a.order_weights[i] = 0.0f;
  }
  int32_t count = 0;
  each_entry(a, [&](int64_t) { ++count; });
  if (e < a.n_experts) counts[e] = count;
  __syncthreads();
  int32_t next = 0;
  if (e < a.n_experts) {
    for (int before = 0; before < e; ++before) next += counts[before];
    a.offsets[e] = next;
    if (e == a.n_experts - 1) a.offsets[a.n_experts] = next + count;
  }
  if (a.n_experts == 0 && e == 0) a.offsets[0] = 0;
  each_entry(a, [&](int64_t at) {
    if (e >= a.n_experts) return;
    const int64_t row = at / a.top_k;
    const int64_t place = row * a.top_k + place_in_row(a, row, at);
    a.rows[next] = static_cast<int32_t>(row);
    a.order[place] = next++;
    a.order_weights[place] = a.weights[at];
  });
}

// A warp per row, a lane per rank.
__global__ void copy_to_ranks(CopyArgs a) {
  const int lane = lane_id();
  const int64_t t = blockIdx.x;
  const int32_t* experts = a.experts + t * a.top_k;
  int32_t* places = a.places + t * a.most;
  int64_t n_needed = 0;
  for (int first = 0; first < a.n_ranks; first += 32) {
    const int p = first + lane;
    const int64_t at = p * a.n_rows + t;
    bool needed = false;
    if (p < a.n_ranks) {
      const int32_t begin = a.borders[p / a.slices];
      const int32_t end = a.borders[p / a.slices + 1];
      int32_t* routing = a.routing + at * 2 * a.top_k;
      for (int j = 0; j < a.top_k; ++j) {
        const bool goes = experts[j] >= begin && experts[j] < end;
        routing[j] = goes ? experts[j] : -1;
        routing[a.top_k + j] = goes ? static_cast<int32_t>(bits_of(a.weights[t * a.top_k + j])) : 0;
        needed = needed || goes;
      }
      a.index[at] = static_cast<int32_t>(t);
    }
    const uint32_t all = ballot(needed);
    const int64_t place = n_needed + count_bits(all & ((1u << lane) - 1u));
    if (needed && place < a.most) places[place] = static_cast<int32_t>(at);
    n_needed += count_bits(all);
  }
  for (int64_t i = n_needed + lane; i < a.most; i += 32) places[i] = -1;
}

__global__ void split_entries(SplitArgs a) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= a.n) return;
  const int32_t* row = a.routing + i / a.top_k * 2 * a.top_k + i % a.top_k;
  a.experts[i] = row[0];
  a.weights[i] = float_of(static_cast<uint32_t>(row[a.top_k]));
}

__global__ void combine_rows(CombineArgs a) {
  const int32_t* order = a.order + blockIdx.x * int64_t{a.top_k};
  const float* weights = a.weights + blockIdx.x * int64_t{a.top_k};
  const int64_t c = int64_t{blockIdx.y} * kThreads + threadIdx.x;
  if (c >= a.cols) return;
  float y = 0.0f;
  for (int k = 0; k < a.top_k && order[k] >= 0; ++k) {
    const float term = weights[k] * a.rows[order[k] * a.cols + c];
    y = k == 0 ? term : y + term;
  }
  if (a.addend != nullptr) y = y + a.addend[blockIdx.x * a.cols + c];
  a.out[blockIdx.x * a.cols + c] = y;
}

}  // namespace

void route(const RouteArgs& args, int64_t n_rows, Stream stream) {
  launch("route", route_rows, {n_rows}, 32, router_bytes(args), stream, args);
}

void group_rows(const GroupArgs& args, Stream stream) {
  const size_t words = static_cast<size_t>(kEntries + args.n_experts);
  const int threads = args.n_experts <= kThreads ? kThreads : kMaxExperts;
  launch("group_rows", group, {1}, threads, 4 * words, stream, args);
}

void copy_rows(const CopyArgs& args, Stream stream) {
  launch("copy_rows", copy_to_ranks, {args.n_rows}, 32, 0, stream, args);
}

void split_routing(const SplitArgs& args, Stream stream) {
  const Shape grid{(args.n + kThreads - 1) / kThreads};
  launch("split_routing", split_entries, grid, kThreads, 0, stream, args);
}

void combine(const CombineArgs& args, int64_t n_rows, Stream stream) {
  const int64_t pieces = (args.cols + kThreads - 1) / kThreads;
  launch("combine", combine_rows, {n_rows, pieces}, kThreads, 0, stream, args);
}

}  // namespace glm::GLM_CUDA_SPACE
