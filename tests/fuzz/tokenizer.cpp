// Fuzz target: tokenizer.json, or tokenizer.model with the added_tokens_decoder as third part, and
// with what was accepted a short text (the second part) there and back. SPDX-License-Identifier:
// MIT
#include "io/tokenizer.h"

#include "io/tiktoken.h"
#include "tests/fuzz/fuzz.h"

namespace glm {
namespace {

// Patterns of exponential time are refused after a number of steps that few bytes stay below.
constexpr size_t kMostText = 20;

void encode_and_decode(std::string_view json, std::string_view text) {
  const Tokenizer tokenizer(json, "tokenizer.json");
  for (const int32_t id : tokenizer.prefix())
    fuzz::require(id >= 0 && id < tokenizer.vocab_size(), "a prefix of the vocabulary");
  for (const bool control : {false, true}) {
    const std::vector<int32_t> ids = tokenizer.encode(text.substr(0, kMostText), control);
    for (const int32_t id : ids)
      fuzz::require(id >= 0 && id < tokenizer.vocab_size(), "ids of the vocabulary");
    tokenizer.decode(ids, true);
    fuzz::require(ids.size() <= 4 * kMostText, "few ids for a short text");
  }
  for (int32_t id = -1; id <= tokenizer.vocab_size() && id < 1000; ++id) tokenizer.token_bytes(id);
}

// tokenizer.json, whichever of the two forms came.
std::string json_of(std::string_view file, std::string_view added) {
  if (!is_tiktoken(file)) return std::string(file);
  const OrderedJson tokens =
      added.empty() ? OrderedJson::object()
                    : parse_ordered_json(added, "tokenizer_config.json", ExitCode::kModelFile);
  return tiktoken_to_json(file, "tokenizer.model", tokens, "tokenizer_config.json");
}

}  // namespace
}  // namespace glm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = glm::fuzz::parts(data, size, 3);
  glm::fuzz::accepts({glm::ExitCode::kModelFile, glm::ExitCode::kUsage},
                     [&] { glm::encode_and_decode(glm::json_of(parts[0], parts[2]), parts[1]); });
  return 0;
}
