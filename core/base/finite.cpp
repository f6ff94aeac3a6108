// SPDX-License-Identifier: MIT
#include "core/base/finite.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace glm {
namespace {

// Elements that are judged together.
constexpr size_t kPiece = 1024;

// Exponents of NaN and infinities have all bits set. Without a way out of the loop, so that it
// becomes vector instructions.
bool all_finite(std::span<const float> values) {
  constexpr uint32_t kExponent = 0x7f800000;
  uint32_t bad = 0;
  for (const float value : values)
    bad |= static_cast<uint32_t>((std::bit_cast<uint32_t>(value) & kExponent) == kExponent);
  return bad == 0;
}

}  // namespace

int64_t first_not_finite(std::span<const float> values) {
  for (size_t begin = 0; begin < values.size(); begin += kPiece) {
    const auto piece = values.subspan(begin, std::min(kPiece, values.size() - begin));
    if (all_finite(piece)) continue;
    const auto at =
        std::find_if(piece.begin(), piece.end(), [](float value) { return !std::isfinite(value); });
    return static_cast<int64_t>(begin) + (at - piece.begin());
  }
  return -1;
}

}  // namespace glm
