// Long inputs. SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>

namespace glm {

inline std::string repeated(std::string_view unit, size_t count) {
  std::string out;
  out.reserve(unit.size() * count);
  for (size_t i = 0; i < count; ++i) out += unit;
  return out;
}

}  // namespace glm
