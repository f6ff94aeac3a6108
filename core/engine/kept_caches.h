// Caches that sequences have left behind for later ones with the same beginning, such as the next
// turn of a conversation: integers only. SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace glm {

// Pages have one owner at a time: whoever goes on from a cache takes it over, and what it does not
// use of it is lost.
class KeptCaches {
 public:
  struct Kept {
    std::vector<int32_t> tokens;  // of the positions in the cache
    int data_rank = 0;
    std::vector<int32_t> blocks;
    int64_t drafted = 0;  // of these positions the MTP layer has in its cache as well
  };
  struct Match {
    size_t index = 0;
    int data_rank = 0;
    int64_t n_tokens = 0;  // that both begin with
  };

  void keep(Kept kept) { kept_.push_back(std::move(kept)); }
  // The cache that shares most with the beginning of `tokens`, at least one token.
  std::optional<Match> find(std::span<const int32_t> tokens) const;
  Kept take(size_t index);
  // Nothing when the data rank has none.
  std::optional<Kept> take_oldest(int data_rank);
  int64_t n_blocks(int data_rank) const;

 private:
  std::vector<Kept> kept_;  // oldest first
};

}  // namespace glm
