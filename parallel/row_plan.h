// Who gets which row of a step: from the experts that the router chose to lists of rows for each
// rank of the exchange group. Integers only. SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace glm {

// Who holds expert e: ranks [first, first + n) of the exchange group (n = slices of its columns).
struct ExpertPlacement {
  ExpertPlacement() = default;
  // Even shares; counts differ by one at most.
  ExpertPlacement(int experts, int shares, int slices);
  // borders: first expert of each share, then the number of experts.
  ExpertPlacement(std::vector<int> borders, int slices);

  int n_experts = 0;
  int n_shares = 1;  // GridShape::expert
  int n_slices = 1;
  std::vector<int> begins = {0, 0};
  // Experts of share s: [begin(s), begin(s + 1)); shares may be empty.
  int begin(int share) const { return begins[static_cast<size_t>(share)]; }
  int share_of(int expert) const;
  int largest() const;  // experts of the largest share
};

class RowPlan {
 public:
  // At most max_rows rows in a plan, and max_sent copies of them. Takes its memory here.
  RowPlan(const ExpertPlacement& placement, int top_k, int64_t max_rows, int64_t max_sent);

  // experts, weights: [n_rows, top_k], -1 for none.
  void make(std::span<const int32_t> experts, std::span<const float> weights, int64_t n_rows);

  // Per rank of the group: rows that it needs.
  const std::vector<int64_t>& sent() const { return sent_; }
  int64_t n_sent() const { return n_sent_; }
  // Of each sent row, destination after destination: the row, and top_k experts of the destination
  // (-1 behind and between), then their top_k weights as bits.
  std::vector<int32_t>& index() { return index_; }
  std::vector<int32_t>& routing() { return routing_; }
  // [n_rows, most_copies()] Of each row, its places among the sent ones, ascending; -1 behind them.
  std::vector<int32_t>& copies() { return copies_; }
  int64_t most_copies() const { return most_copies_; }
  // Ranks of the group that one row can need.
  static int64_t most_copies(const ExpertPlacement& placement, int64_t top_k) {
    return std::min<int64_t>(placement.n_shares, top_k) * placement.n_slices;
  }

 private:
  // Calls visit(row, share) once for each share that holds an expert of the row.
  template <class Visit>
  void each_share(std::span<const int32_t> experts, int64_t n_rows, const Visit& visit);
  void write_row(std::span<const int32_t> experts,
                 std::span<const float> weights,
                 int share,
                 int32_t* routing) const;

  ExpertPlacement placement_;
  int64_t top_k_;
  int64_t most_copies_;
  int64_t n_sent_ = 0;
  std::vector<int64_t> sent_;
  std::vector<int64_t> next_;       // next free place per destination
  std::vector<int64_t> last_seen_;  // per share: the last row that goes there
  std::vector<int32_t> index_, routing_, copies_;
};

}  // namespace glm
