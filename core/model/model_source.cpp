// Model files and folders by one name. SPDX-License-Identifier: MIT
#include "core/model/model_source.h"

#include "io/tiktoken.h"

namespace glm {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxConfigBytes = int64_t{16} << 20;
constexpr int64_t kMaxTokenizerBytes = int64_t{100} << 20;
constexpr int64_t kMaxTiktokenBytes = int64_t{16} << 20;
constexpr int64_t kMaxTemplateBytes = int64_t{4} << 20;

std::string read_optional(const fs::path& path, int64_t max_bytes) {
  std::error_code error;
  if (!fs::exists(fs::status(path, error))) return {};
  return read_file(path, max_bytes, ExitCode::kModelFile);
}

OrderedJson parse_tokenizer_config(std::string_view text, const std::string& source) {
  JsonLimits limits;
  limits.max_bytes = kMaxConfigBytes;
  limits.max_values = 2'000'000;
  OrderedJson object = parse_ordered_json(text, source, ExitCode::kModelFile, limits);
  if (!object.is_object())
    fail(ExitCode::kModelFile, "{}: expected a JSON object", escaped(source));
  return object;
}

std::string template_of(const OrderedJson& config, const std::string& source) {
  const auto at = config.find("chat_template");
  if (at == config.end() || at->is_null()) return {};
  if (at->is_string()) return at->get<std::string>();
  if (!at->is_array())
    fail(ExitCode::kModelFile, "{}: chat_template: expected a string or a list", escaped(source));
  for (const OrderedJson& entry : *at) {
    if (!entry.is_object() || !entry.contains("name") || !entry["name"].is_string() ||
        !entry.contains("template") || !entry["template"].is_string())
      fail(ExitCode::kModelFile,
           "{}: chat_template: expected entries with name and template",
           escaped(source));
    if (entry["name"].get_ref<const std::string&>() == "default")
      return entry["template"].get<std::string>();
  }
  fail(ExitCode::kModelFile, "{}: chat_template: no entry is named \"default\"", escaped(source));
}

// A token written as "text" or as {"content": "text", ...}.
std::optional<std::string> token_text(const OrderedJson& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() && value.contains("content") && value["content"].is_string())
    return value["content"].get<std::string>();
  return std::nullopt;
}

// The text of a tokenizer.json out of the tokenizer.model of an older repository; empty where there
// is none, or one of another kind.
std::string from_tokenizer_model(const fs::path& folder, std::string_view tokenizer_config) {
  const fs::path path = folder / "tokenizer.model";
  const std::string text = read_optional(path, kMaxTiktokenBytes);
  if (!is_tiktoken(text)) return {};
  const std::string source = (folder / "tokenizer_config.json").string();
  const OrderedJson config =
      tokenizer_config.empty() ? OrderedJson() : parse_tokenizer_config(tokenizer_config, source);
  const auto added = config.find("added_tokens_decoder");
  if (added == config.end())
    fail(ExitCode::kModelFile,
         "{}: the control tokens that belong to it, added_tokens_decoder of tokenizer_config.json, "
         "are missing",
         escaped(path.string()));
  return tiktoken_to_json(text, path.string(), *added, source);
}

}  // namespace

std::string ModelSource::name_of(std::string_view text) const {
  if (index) return fmt::format("{}: {}", path, text);
  if (synthetic || path.ends_with(".json")) return path;
  return (fs::path(path) / text).string();
}

ModelTexts read_folder_texts(const fs::path& folder) {
  ModelTexts texts;
  texts.config = read_file(folder / "config.json", kMaxConfigBytes, ExitCode::kModelFile);
  texts.generation_config = read_optional(folder / "generation_config.json", kMaxConfigBytes);
  texts.tokenizer = read_optional(folder / "tokenizer.json", kMaxTokenizerBytes);
  texts.tokenizer_config = read_optional(folder / "tokenizer_config.json", kMaxConfigBytes);
  if (texts.tokenizer.empty())
    texts.tokenizer = from_tokenizer_model(folder, texts.tokenizer_config);
  texts.chat_template = read_optional(folder / "chat_template.jinja", kMaxTemplateBytes);
  if (texts.chat_template.empty() && !texts.tokenizer_config.empty()) {
    const std::string source = (folder / "tokenizer_config.json").string();
    texts.chat_template =
        template_of(parse_tokenizer_config(texts.tokenizer_config, source), source);
  }
  return texts;
}

ModelSource open_model_source(const fs::path& path) {
  ModelSource source;
  source.path = path.string();
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status))
    fail(ExitCode::kUsage, "{}: no such file or folder", escaped(source.path));
  if (fs::is_directory(status)) {
    source.texts = read_folder_texts(path);
  } else if (path.extension() == ".json") {
    source.texts.config = read_file(path, kMaxConfigBytes, ExitCode::kModelFile);
  } else {
    source.index = read_model_index(path);
    source.texts = source.index->texts;
  }
  return source;
}

ModelSource open_synthetic_source(const fs::path& config_json, const SyntheticModel& model) {
  ModelSource source;
  source.path = config_json.string();
  source.synthetic = model;
  std::error_code error;
  const fs::file_status status = fs::status(config_json, error);
  if (!fs::exists(status)) fail(ExitCode::kUsage, "{}: no such file", escaped(source.path));
  if (!fs::is_regular_file(status))
    fail(ExitCode::kUsage, "{}: not a file; a config.json is needed", escaped(source.path));
  source.texts.config = read_file(config_json, kMaxConfigBytes, ExitCode::kModelFile);
  return source;
}

OrderedJson special_tokens(std::string_view tokenizer_config, const std::string& source) {
  OrderedJson tokens = OrderedJson::object();
  if (tokenizer_config.empty()) return tokens;
  const OrderedJson config = parse_tokenizer_config(tokenizer_config, source);
  for (const char* name : {"bos_token",
                           "eos_token",
                           "unk_token",
                           "sep_token",
                           "pad_token",
                           "cls_token",
                           "mask_token"}) {
    const auto at = config.find(name);
    if (at == config.end()) continue;
    if (const auto text = token_text(*at)) tokens[name] = *text;
  }
  const auto list = config.find("additional_special_tokens");
  if (list == config.end() || !list->is_array()) return tokens;
  OrderedJson additional = OrderedJson::array();
  for (const OrderedJson& entry : *list)
    if (const auto text = token_text(entry)) additional.push_back(*text);
  tokens["additional_special_tokens"] = additional;
  return tokens;
}

}  // namespace glm
