// Sanitizers make code about ten times as slow: tests then leave out repetitions in which a
// sanitizer sees nothing new, and bounds on time. SPDX-License-Identifier: MIT
#pragma once

namespace glm::testing_support {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kInstrumented = true;
#else
inline constexpr bool kInstrumented = false;
#endif

}  // namespace glm::testing_support
