// SPDX-License-Identifier: MIT
#include "core/engine/kept_caches.h"

#include <algorithm>

namespace glm {

std::optional<KeptCaches::Match> KeptCaches::find(std::span<const int32_t> tokens) const {
  std::optional<Match> best;
  for (size_t i = 0; i < kept_.size(); ++i) {
    const std::vector<int32_t>& mine = kept_[i].tokens;
    const auto apart = std::mismatch(mine.begin(), mine.end(), tokens.begin(), tokens.end());
    const int64_t n = apart.first - mine.begin();
    if (n > (best ? best->n_tokens : 0)) best = Match{i, kept_[i].data_rank, n};
  }
  return best;
}

KeptCaches::Kept KeptCaches::take(size_t index) {
  const auto at = kept_.begin() + static_cast<std::ptrdiff_t>(index);
  Kept out = std::move(*at);
  kept_.erase(at);
  return out;
}

std::optional<KeptCaches::Kept> KeptCaches::take_oldest(int data_rank) {
  for (size_t i = 0; i < kept_.size(); ++i)
    if (kept_[i].data_rank == data_rank) return take(i);
  return std::nullopt;
}

int64_t KeptCaches::n_blocks(int data_rank) const {
  size_t n = 0;
  for (const Kept& kept : kept_)
    if (kept.data_rank == data_rank) n += kept.blocks.size();
  return static_cast<int64_t>(n);
}

}  // namespace glm
