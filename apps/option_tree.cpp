// SPDX-License-Identifier: MIT
#include "apps/option_tree.h"

#include <sstream>

#include <CLI/CLI.hpp>

#include "core/base/check.h"

namespace glm {
namespace {

// "auto|cpu|cuda,...": a list of such words.
std::vector<std::string> choices_of(std::string value) {
  if (value.find('|') == std::string::npos) return {};
  if (const size_t dots = value.find(",..."); dots != std::string::npos) value.resize(dots);
  std::vector<std::string> words;
  std::istringstream in(value);
  for (std::string word; std::getline(in, word, '|');) words.push_back(word);
  return words;
}

bool names_file(const std::string& value) {
  return value == "PATH" || value == "FILE" || value.find(".json") != std::string::npos ||
         value.ends_with(".h5");
}

OptionText option_text(const CLI::Option& option) {
  OptionText text;
  text.positional = !option.nonpositional();
  if (text.positional) text.names = {option.get_name(true)};
  for (const std::string& name : option.get_snames()) text.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) text.names.push_back("--" + name);
  if (option.get_items_expected_max() > 0) text.value = option.get_type_name();
  text.standard = option.get_default_str();
  text.help = option.get_description();
  text.group = option.get_group();
  text.choices = choices_of(text.value);
  text.is_file = text.positional || names_file(text.value);
  text.repeated = option.get_items_expected_max() > 1;
  return text;
}

}  // namespace

CommandText command_text(const CLI::App& app) {
  CommandText text;
  text.name = app.get_name();
  text.help = app.get_description();
  for (const CLI::Option* option : app.get_options())
    if (!option->get_group().empty()) text.options.push_back(option_text(*option));
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    text.commands.push_back(command_text(*command));
  return text;
}

std::string generated_text(const CLI::App& app,
                           const std::string& form,
                           const std::string& version) {
  const CommandText program = command_text(app);
  if (form == "man") return man_page(program, version);
  if (form == "bash") return bash_completion(program);
  if (form == "zsh") return zsh_completion(program);
  if (form == "fish") return fish_completion(program);
  fail(ExitCode::kUsage, "--generate {}: it takes man, bash, zsh or fish", escaped(form));
}

}  // namespace glm
