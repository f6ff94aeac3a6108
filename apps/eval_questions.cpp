// The questions of `glm_eval answers`. SPDX-License-Identifier: MIT
#include "apps/batch_file.h"
#include "apps/eval_score.h"

namespace glm {

std::vector<Question> read_questions(const std::string& path) {
  std::vector<Question> questions;
  read_json_lines(path, [&](int64_t line, const OrderedJson& json) {
    const auto text = [&](const char* key) {
      if (!json.contains(key) || !json[key].is_string())
        fail(ExitCode::kUsage, "expected the key \"{}\" with a string", key);
      return json[key].get<std::string>();
    };
    if (!json.is_object()) fail(ExitCode::kUsage, "expected an object, found {}", json.type_name());
    questions.push_back({line, text("prompt"), text("answer")});
    if (questions.back().prompt.empty()) fail(ExitCode::kUsage, "prompt: the text is empty");
  });
  return questions;
}

}  // namespace glm
