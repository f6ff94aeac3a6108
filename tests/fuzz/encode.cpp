// Fuzz target: texts in runs of different origin through the tiny model's tokenizer. A line
// "@@@@" divides runs, the first letter of a run tells who wrote it. SPDX-License-Identifier: MIT
#include <algorithm>

#include "io/json.h"
#include "io/tokenizer.h"
#include "tests/fuzz/fuzz.h"

namespace glm {
namespace {

constexpr size_t kMostRuns = 8;

Origin origin_of(char letter) {
  switch (letter) {
    case 't':
      return Origin::kTemplate;
    case 'u':
      return Origin::kUser;
    case 'a':
      return Origin::kAssistant;
    default:
      return Origin::kPlain;
  }
}

// May a run of this origin produce the token? Written apart from the tokenizer.
bool allowed(Origin origin, std::string_view token) {
  if (origin == Origin::kTemplate) return true;
  if (token == "/nothink") return origin == Origin::kUser || origin == Origin::kAssistant;
  return origin == Origin::kAssistant && (token == "<think>" || token == "</think>");
}

// Times that `token` stands in runs that may produce it, overlaps included.
size_t places(const Text& text, std::string_view token) {
  size_t count = 0;
  for (const TextRun& run : text)
    if (allowed(run.origin, token))
      for (size_t at = run.text.find(token); at != run.text.npos; at = run.text.find(token, at + 1))
        ++count;
  return count;
}

}  // namespace
}  // namespace glm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace glm;
  static const Tokenizer tokenizer(
      read_file(GLM_TEST_DATA "/tiny/tokenizer.json", 1 << 26, ExitCode::kModelFile), "tiny");
  constexpr int32_t kFirstControl = 1984;
  Text text;
  std::string joined;
  for (const std::string_view part : fuzz::parts(data, size, kMostRuns)) {
    if (part.empty()) continue;
    text.push_back({std::string(part.substr(1)), origin_of(part[0])});
    joined += part.substr(1);
  }
  const std::vector<int32_t> ids = tokenizer.encode(text);
  fuzz::require(tokenizer.decode(ids, false) == joined, "every byte comes back");
  for (int32_t control = kFirstControl; control < tokenizer.vocab_size(); ++control) {
    const auto found = static_cast<size_t>(std::count(ids.begin(), ids.end(), control));
    fuzz::require(found <= places(text, tokenizer.token_bytes(control)), "no forged control token");
  }
  Utf8Stream stream;
  std::string shown;
  for (const int32_t id : ids) shown += stream.push(tokenizer.token_bytes(id));
  shown += stream.finish();
  const OrderedJson quoted = shown;
  fuzz::require(!quoted.dump().empty(), "a stream of whole characters");
  return 0;
}
