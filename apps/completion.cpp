// Completions for bash, zsh and fish: options, the words they take, names of files.
// SPDX-License-Identifier: MIT
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "apps/option_tree.h"

namespace glm {
namespace {

std::string replaced(std::string text, const std::string& what, const std::string& by) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size())
    text.replace(at, what.size(), by);
  return text;
}

// Between single quotes of a POSIX shell.
std::string quoted(const std::string& text) { return "'" + replaced(text, "'", "'\\''") + "'"; }

std::vector<std::string> option_names(const CommandText& command) {
  std::vector<std::string> names;
  for (const OptionText& option : command.options)
    if (!option.positional) names.insert(names.end(), option.names.begin(), option.names.end());
  return names;
}

std::vector<std::string> command_names(const CommandText& program) {
  std::vector<std::string> names;
  for (const CommandText& command : program.commands) names.push_back(command.name);
  return names;
}

bool takes_files(const CommandText& command) {
  for (const OptionText& option : command.options)
    if (option.positional) return true;
  return false;
}

// What bash offers behind an option of `command` that takes a value; patterns of `case`.
std::string bash_values(const CommandText& command, const std::string& word) {
  std::string text;
  for (const OptionText& option : command.options) {
    if (option.positional || option.value.empty()) continue;
    std::vector<std::string> patterns;
    for (const std::string& name : option.names) patterns.push_back(word + ":" + name);
    std::string reply = "return";
    if (!option.choices.empty())
      reply = fmt::format("COMPREPLY=($(compgen -W {} -- \"$cur\")); return",
                          quoted(fmt::format("{}", fmt::join(option.choices, " "))));
    else if (option.is_file)
      reply = "compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\")); return";
    text += fmt::format("    {}) {} ;;\n", fmt::join(patterns, " | "), reply);
  }
  return text;
}

// All options and commands, or files where the command takes them.
std::string bash_words(const CommandText& command, const std::string& word) {
  std::vector<std::string> names = option_names(command);
  for (const std::string& name : command_names(command)) names.push_back(name);
  const std::string words = quoted(fmt::format("{}", fmt::join(names, " ")));
  const std::string files = takes_files(command)
                                ? " if [[ $cur != -* ]]; then compopt -o filenames; "
                                  "COMPREPLY+=($(compgen -f -- \"$cur\")); fi;"
                                : "";
  return fmt::format(
      "    {}) COMPREPLY=($(compgen -W {} -- \"$cur\"));{} return ;;\n", word, words, files);
}

// [ and ] end a description of zsh, a colon its parts.
std::string zsh_escaped(const std::string& text) {
  std::string out = replaced(text, "\\", "\\\\");
  for (const char* c : {"[", "]", ":"}) out = replaced(out, c, std::string("\\") + c);
  return out;
}

std::string zsh_action(const OptionText& option) {
  const std::string value = zsh_escaped(option.value.empty() ? option.names[0] : option.value);
  if (!option.choices.empty())
    return fmt::format(":{}:({})", value, fmt::join(option.choices, " "));
  return fmt::format(":{}:{}", value, option.is_file ? "_files" : " ");
}

std::string zsh_arguments(const CommandText& command) {
  std::string text;
  for (const OptionText& option : command.options) {
    if (option.positional) {
      text += fmt::format(" \\\n    {}", quoted(zsh_action(option)));
      continue;
    }
    for (const std::string& name : option.names)
      text += fmt::format(" \\\n    {}",
                          quoted(fmt::format("{}{}[{}]{}",
                                             option.repeated ? "*" : "",
                                             name,
                                             zsh_escaped(option.help),
                                             option.value.empty() ? "" : zsh_action(option))));
  }
  return text;
}

std::string fish_quoted(const std::string& text) {
  return "'" + replaced(replaced(text, "\\", "\\\\"), "'", "\\'") + "'";
}

std::string fish_options(const CommandText& command,
                         const std::string& program,
                         const std::string& condition) {
  std::string text;
  for (const OptionText& option : command.options) {
    if (option.positional) {
      text += fmt::format("complete -c {}{} -F\n", program, condition);
      continue;
    }
    std::string line = fmt::format("complete -c {}{}", program, condition);
    for (const std::string& name : option.names)
      line += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
    if (!option.value.empty()) line += option.is_file ? " -r -F" : " -x";
    if (!option.choices.empty())
      line += " -a " + fish_quoted(fmt::format("{}", fmt::join(option.choices, " ")));
    text += line + " -d " + fish_quoted(option.help) + "\n";
  }
  return text;
}

}  // namespace

// bash splits words at "=", so "--mtp=on" arrives as three of them.
std::string bash_completion(const CommandText& program) {
  std::string text =
      fmt::format("# Completion of {0} for bash; made by {0} --generate bash.\n", program.name);
  text += fmt::format("_{}() {{\n", program.name);
  text += "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command='' i\n";
  text += "  COMPREPLY=()\n";
  text += "  if [[ $prev == '=' ]]; then prev=${COMP_WORDS[COMP_CWORD - 2]}; fi\n";
  text += "  if [[ $cur == '=' ]]; then cur=''; fi\n";
  text += "  for ((i = 1; i < COMP_CWORD; ++i)); do\n";
  text += "    case ${COMP_WORDS[i]} in\n";
  if (!program.commands.empty())
    text += fmt::format("    {}) command=${{COMP_WORDS[i]}}; break ;;\n",
                        fmt::join(command_names(program), " | "));
  text += "    esac\n  done\n";
  text += "  case $command:$prev in\n" + bash_values(program, "");
  for (const CommandText& command : program.commands) text += bash_values(command, command.name);
  text += "  esac\n  case $command in\n" + bash_words(program, "''");
  for (const CommandText& command : program.commands) text += bash_words(command, command.name);
  text += fmt::format("  esac\n}}\ncomplete -F _{0} {0}\n", program.name);
  return text;
}

std::string zsh_completion(const CommandText& program) {
  const std::string& name = program.name;
  std::string text = fmt::format("#compdef {0}\n# Made by {0} --generate zsh.\n", name);
  for (const CommandText& command : program.commands)
    text += fmt::format(
        "_{}_{}() {{\n  _arguments :{}\n}}\n", name, command.name, zsh_arguments(command));
  if (program.commands.empty()) {
    text += fmt::format("_{}() {{\n  _arguments :{}\n}}\n", name, zsh_arguments(program));
  } else {
    std::vector<std::string> described;
    std::string cases;
    for (const CommandText& command : program.commands) {
      described.push_back(quoted(command.name + ":" + zsh_escaped(command.help)));
      cases += fmt::format("        {0}) _{1}_{0} && found=0 ;;\n", command.name, name);
    }
    text += fmt::format(
        "_{0}() {{\n  local state found=1\n  local -a commands=({1})\n  _arguments -C{2} \\\n"
        "    ': :->command' '*:: :->argument' && found=0\n  case $state in\n"
        "    command) _describe command commands && found=0 ;;\n    argument)\n"
        "      case $words[1] in\n{3}      esac ;;\n  esac\n  return found\n}}\n",
        name,
        fmt::join(described, " "),
        zsh_arguments(program),
        cases);
  }
  return text +
         fmt::format(
             "if [ \"$funcstack[1]\" = _{0} ]; then _{0} \"$@\"; else compdef _{0} {0}; fi\n",
             name);
}

std::string fish_completion(const CommandText& program) {
  const std::string& name = program.name;
  std::string text =
      fmt::format("# Completion of {0} for fish; made by {0} --generate fish.\n", name);
  text += fmt::format("complete -c {} -f\n", name);
  if (program.commands.empty()) return text + fish_options(program, name, "");
  const std::string none = fmt::format(" -n 'not __fish_seen_subcommand_from {}'",
                                       fmt::join(command_names(program), " "));
  for (const CommandText& command : program.commands)
    text += fmt::format(
        "complete -c {}{} -a {} -d {}\n", name, none, command.name, fish_quoted(command.help));
  text += fish_options(program, name, none);
  for (const CommandText& command : program.commands)
    text += fish_options(
        command, name, fmt::format(" -n '__fish_seen_subcommand_from {}'", command.name));
  return text;
}

}  // namespace glm
