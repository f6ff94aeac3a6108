// A model named by a user: a model file, a Hugging Face folder whose texts are read without its
// weights, or a config.json with random numbers. SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "core/model/synthetic.h"
#include "io/json.h"
#include "io/model_file.h"

namespace glm {

struct ModelSource {
  std::string path;
  ModelTexts texts;
  std::optional<ModelIndex> index;  // a model file; absent for a folder (or a bare config.json)
  std::optional<SyntheticModel> synthetic;  // weights without a file

  // For messages: "FOLDER/config.json", or "FILE: config.json" for the texts of a model file.
  std::string name_of(std::string_view text) const;
};

// Throws Error(kUsage) when nothing is there, Error(kModelFile) when it is not a model. A path of a
// file that ends in .json is taken for a config.json alone.
ModelSource open_model_source(const std::filesystem::path& path);

// A config.json whatever its name. Throws Error(kUsage) when it is not a file.
ModelSource open_synthetic_source(const std::filesystem::path& config_json,
                                  const SyntheticModel& model);

// The texts of a folder; only config.json must exist. Where there is no tokenizer.json, a
// tokenizer.model of lines "base64 rank" is turned into one. The chat template is
// chat_template.jinja, else the chat_template of tokenizer_config.json (of several the one named
// "default").
ModelTexts read_folder_texts(const std::filesystem::path& folder);

// Special tokens of tokenizer_config.json by name, as templates see them: strings, and
// additional_special_tokens as a list. Empty when there is no tokenizer_config.json.
OrderedJson special_tokens(std::string_view tokenizer_config, const std::string& source);

}  // namespace glm
