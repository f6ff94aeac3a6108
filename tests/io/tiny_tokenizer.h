// The tokenizer of the tiny model, as it is and with changes. SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "io/json.h"
#include "io/tokenizer.h"

namespace glm {

inline const std::string kTiny = std::string(GLM_TEST_DATA) + "/tiny/";

inline Json tiny_json() {
  return parse_json(read_file(kTiny + "tokenizer.json", 1 << 24, ExitCode::kModelFile),
                    "tokenizer.json",
                    ExitCode::kModelFile);
}

inline Tokenizer make(const Json& file) { return Tokenizer(file.dump(), "tokenizer.json"); }

inline const Tokenizer& tiny() {
  static const Tokenizer tokenizer = make(tiny_json());
  return tokenizer;
}

inline Json with_pattern(const std::string& pattern) {
  Json file = tiny_json();
  file["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {{"Regex", pattern}};
  return file;
}

}  // namespace glm
