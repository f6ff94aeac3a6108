// Fuzz target: JSON, config.json and generation_config.json (a second part). A config that is
// accepted must give a table of tensors, or say why not. SPDX-License-Identifier: MIT
#include "io/json.h"

#include "core/model/config.h"
#include "core/model/tensor_specs.h"
#include "tests/fuzz/fuzz.h"

namespace glm {
namespace {

constexpr ExitCode kBad = ExitCode::kModelFile;

// Both parsers take the same texts, and what they made is read back the same.
bool same_verdict(std::string_view text) {
  Json sorted;
  OrderedJson ordered;
  const bool accepted = fuzz::accepts({kBad}, [&] { sorted = parse_json(text, "t", kBad); });
  fuzz::require(
      accepted == fuzz::accepts({kBad}, [&] { ordered = parse_ordered_json(text, "t", kBad); }),
      "one verdict of both parsers");
  if (!accepted) return false;
  const std::string written = sorted.dump();
  fuzz::require(parse_json(written, "t", kBad).dump() == written, "a value that comes back");
  fuzz::require(Json(parse_json(ordered.dump(), "t", kBad)) == sorted, "one value of both parsers");
  return true;
}

void judge_config(std::string_view text, std::string_view generation) {
  const ModelConfig config = parse_config(text, "config.json");
  fuzz::require(config.hidden > 0 && config.n_layers > 0 && config.vocab > 0 && config.n_heads > 0,
                "sizes above 0");
  for (const int32_t id : config.eos_ids)
    fuzz::require(id >= 0 && id < config.vocab, "end tokens of the vocabulary");
  if (config.n_layers <= 100)
    for (const TensorSpec& spec : tensor_specs(config, config.announces_mtp)) {
      int64_t elements = 1;
      for (const int64_t dim : spec.dims)
        elements = checked_mul(elements, dim, spec.name, ExitCode::kRuntime);
      fuzz::require(elements > 0, "tensors that hold something");
    }
  for (const float frequency : config.rope.inverse_frequencies())
    fuzz::require(frequency >= 0, "frequencies that are numbers");
  parse_generation_config(generation, "generation_config.json", config);
}

}  // namespace
}  // namespace glm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = glm::fuzz::parts(data, size, 2);
  if (glm::same_verdict(parts[0]))
    glm::fuzz::accepts({glm::kBad}, [&] { glm::judge_config(parts[0], parts[1]); });
  return 0;
}
