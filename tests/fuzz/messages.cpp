// Fuzz target: what ranks send each other as bytes: the index of a model file (first byte 'i'), the
// plan of a step (else). SPDX-License-Identifier: MIT
#include <cstring>

#include "core/base/device.h"
#include "core/model/batch.h"
#include "io/model_file.h"
#include "tests/fuzz/fuzz.h"

namespace glm {
namespace {

void judge_index(std::string_view bytes) {
  const ModelIndex index = ModelIndex::deserialized(bytes);
  fuzz::require(index.serialized() == bytes, "the same bytes again");
}

void judge_plan(std::string_view bytes) {
  std::vector<int32_t> words(bytes.size() / sizeof(int32_t));
  if (words.empty()) return;
  std::memcpy(words.data(), bytes.data(), words.size() * sizeof(int32_t));
  const StepPlan plan = StepPlan::deserialized(words);
  fuzz::require(plan.serialized() == words, "the same words again");
  static const auto device = make_cpu_device();
  StepLimits limits;
  limits.max_rows = 16;
  limits.max_sequences = 4;
  limits.max_logits = 4;
  limits.max_context = 64;
  Batch batch(*device, limits);
  batch.fill(plan, 0);
}

}  // namespace
}  // namespace glm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  glm::fuzz::accepts({glm::ExitCode::kRuntime, glm::ExitCode::kCommunication}, [&] {
    if (bytes.starts_with('i')) return glm::judge_index(bytes.substr(1));
    if (!bytes.empty()) glm::judge_plan(bytes.substr(1));
  });
  return 0;
}
