// glm_inspect: looks into models and runs their tokenizer and chat template, without weights.
// SPDX-License-Identifier: MIT
#include <cstdio>
#include <optional>

#include "apps/inspect_show.h"
#include "apps/program.h"
#include "io/chat_template.h"
#include "io/tokenizer.h"

namespace glm {
namespace {

constexpr const char* kProgram = "glm_inspect";
constexpr int64_t kMaxLines = int64_t{1} << 30;       // bytes of a --jsonl file
constexpr int64_t kMaxMessages = int64_t{100} << 20;  // bytes of a --messages or --tools file

struct Options {
  std::string model;
  bool json = false;
  std::string jsonl;
  std::string messages;
  std::string tools;
  std::string thinking;
  std::string generation_prompt = "on";
  bool ids = false;
};

void write_out(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size())
    fail(ExitCode::kRuntime, "cannot write to standard output");
}

Tokenizer open_tokenizer(const ModelSource& source) {
  if (source.texts.tokenizer.empty())
    fail(ExitCode::kModelFile, "{}: has no tokenizer.json", escaped(source.path));
  return Tokenizer(source.texts.tokenizer, source.name_of("tokenizer.json"));
}

// Calls body(value, place) for the JSON value of each line; empty lines at the end are left out.
template <class Body>
void for_each_line(const std::string& path, const Body& body) {
  const std::string text = read_file(path, kMaxLines, ExitCode::kUsage);
  size_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line(text.data() + at, end - at);
    at = end + 1;
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() && at >= text.size()) return;
    const std::string place = fmt::format("{}:{}", path, number);
    body(parse_json(line, place, ExitCode::kUsage), escaped(place));
  }
}

int show(const Options& options) {
  const ModelSource source = open_model_source(options.model);
  if (options.json)
    write_out(show_json(source).dump() + "\n");
  else
    write_out(show_text(source));
  return 0;
}

int tokenize(const Options& options) {
  const Tokenizer tokenizer = open_tokenizer(open_model_source(options.model));
  for_each_line(options.jsonl, [&](const Json& value, const std::string& place) {
    if (!value.is_string()) fail(ExitCode::kUsage, "{}: expected a JSON string", place);
    write_out(Json(tokenizer.encode(value.get_ref<const std::string&>(), true)).dump() + "\n");
  });
  return 0;
}

std::vector<int32_t> ids_of(const Json& value, const std::string& place) {
  if (!value.is_array()) fail(ExitCode::kUsage, "{}: expected a JSON array of ids", place);
  std::vector<int32_t> ids;
  ids.reserve(value.size());
  for (const Json& id : value) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX)
      fail(ExitCode::kUsage, "{}: {} is not a token id", place, escaped(id.dump()));
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

int detokenize(const Options& options) {
  const Tokenizer tokenizer = open_tokenizer(open_model_source(options.model));
  for_each_line(options.jsonl, [&](const Json& value, const std::string& place) {
    Utf8Stream stream;
    std::string text = stream.push(tokenizer.decode(ids_of(value, place), false));
    text += stream.finish();
    // Escapes keep characters that some readers take for the end of a line.
    write_out(Json(text).dump(-1, ' ', true) + "\n");
  });
  return 0;
}

OrderedJson read_json(const std::string& path) {
  return parse_ordered_json(
      read_file(path, kMaxMessages, ExitCode::kUsage), path, ExitCode::kUsage);
}

int render(const Options& options) {
  const ModelSource source = open_model_source(options.model);
  if (source.texts.chat_template.empty())
    fail(ExitCode::kModelFile, "{}: has no chat template", escaped(source.path));
  RenderInput input;
  input.messages = read_json(options.messages);
  if (!input.messages.is_array())
    fail(ExitCode::kUsage, "{}: expected a list of messages", escaped(options.messages));
  if (!options.tools.empty()) {
    input.tools = read_json(options.tools);
    if (!input.tools.is_array() && !input.tools.is_null())
      fail(ExitCode::kUsage, "{}: expected a list of tools", escaped(options.tools));
  }
  if (!options.thinking.empty()) input.enable_thinking = options.thinking == "on";
  input.add_generation_prompt = options.generation_prompt == "on";
  input.special_tokens =
      special_tokens(source.texts.tokenizer_config, source.name_of("tokenizer_config.json"));
  const ChatTemplate chat(source.texts.chat_template, source.name_of("chat_template.jinja"));
  const Text text = chat.render(input);
  if (options.ids)
    write_out(Json(open_tokenizer(source).encode(text)).dump() + "\n");
  else
    write_out(plain_text(text));
  return 0;
}

CLI::App* command(CLI::App& app, const std::string& name, const char* help, Options& options) {
  CLI::App* sub = app.add_subcommand(name, help);
  sub->add_option("MODEL", options.model, "model file or Hugging Face folder")->required();
  return sub;
}

void declare_options(CLI::App& app, Options& options) {
  app.set_version_flag("--version", version_text(kProgram));
  app.require_subcommand(0, 1);
  command(app, "show", "configuration, sizes and tensors", options)
      ->add_flag("--json", options.json, "one JSON object");
  command(app, "tokenize", "strings to ids, control tokens recognised", options)
      ->add_option("--jsonl", options.jsonl, "file with a JSON string per line")
      ->required();
  command(app, "detokenize", "ids to strings", options)
      ->add_option("--jsonl", options.jsonl, "file with a JSON array of ids per line")
      ->required();
  CLI::App* sub = command(app, "render", "the prompt that a conversation becomes", options);
  sub->add_option("--messages", options.messages, "file with a list of messages")->required();
  sub->add_option("--tools", options.tools, "file with a list of tools");
  sub->add_option("--thinking", options.thinking, "on or off (default: undefined)")
      ->check(CLI::IsMember({"on", "off"}));
  sub->add_option("--generation-prompt", options.generation_prompt, "on or off")
      ->check(CLI::IsMember({"on", "off"}))
      ->capture_default_str();
  sub->add_flag("--ids", options.ids, "token ids as a JSON array instead of text");
}

int run(int argc, char** argv) {
  CLI::App app("Looks into a model: its contents, its tokenizer, its chat template.", kProgram);
  Options options;
  declare_options(app, options);
  std::string text;
  if (!parse_options(app, argc, argv, text)) {
    write_out(text + "\n");
    return 0;
  }
  if (app.got_subcommand("show")) return show(options);
  if (app.got_subcommand("tokenize")) return tokenize(options);
  if (app.got_subcommand("detokenize")) return detokenize(options);
  if (app.got_subcommand("render")) return render(options);
  fail(ExitCode::kUsage, "a command is missing: show, tokenize, detokenize or render; try --help");
}

}  // namespace
}  // namespace glm

int main(int argc, char** argv) {
  return glm::run_program(glm::kProgram, [&] { return glm::run(argc, argv); });
}
