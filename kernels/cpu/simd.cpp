// SPDX-License-Identifier: MIT
#include <cstdlib>

#include "core/base/check.h"
#include "kernels/cpu/simd_levels.h"

namespace glm {
namespace {

bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

struct Level {
  std::string_view name;
  bool supported;
  const KernelTable* (*table)();
};

// Slowest first.
std::vector<Level> all_levels() {
  return {{"scalar", true, scalar_kernels},
          {"avx2", has_avx2(), avx2_kernels},
          {"avx512", has_avx512(), avx512_kernels},
          {"vnni", has_avx512() && __builtin_cpu_supports("avx512vnni"), vnni_kernels}};
}

}  // namespace

std::vector<std::string> simd_levels() {
  std::vector<std::string> names;
  for (const Level& level : all_levels())
    if (level.supported) names.emplace_back(level.name);
  return names;
}

const KernelTable& choose_kernels(std::string_view forced) {
  const KernelTable* best = nullptr;
  for (const Level& level : all_levels()) {
    if (level.supported) best = level.table();
    if (level.name != forced) continue;
    if (!level.supported)
      fail(ExitCode::kUsage,
           "GLM_SIMD={}: this CPU lacks it; unset it or choose a lower level",
           level.name);
    return *best;
  }
  if (!forced.empty())
    fail(ExitCode::kUsage, "GLM_SIMD={} is not one of scalar, avx2, avx512, vnni", escaped(forced));
  return *best;
}

std::string_view simd_from_environment() {
  const char* value = std::getenv("GLM_SIMD");
  return value == nullptr ? std::string_view() : std::string_view(value);
}

}  // namespace glm
