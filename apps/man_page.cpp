// Man pages. SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <cctype>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "apps/option_tree.h"

namespace glm {
namespace {

constexpr std::array kPrograms = {
    "glm_convert", "glm_eval", "glm_infer", "glm_inspect", "glm_plan"};

// Text that troff prints as it is. A hyphen of an option is a minus, so that it can be copied.
std::string troff(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\')
      out += "\\e";
    else if (c == '-')
      out += "\\-";
    else if (c == '\n')
      out += ' ';
    else
      out += c;
  }
  // At the start of a line these would be requests.
  if (out.starts_with('.') || out.starts_with('\'')) out.insert(0, "\\&");
  return out;
}

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) {
    return static_cast<char>(std::toupper(c));
  });
  return text;
}

std::string tag(const OptionText& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.names)
    names.push_back(fmt::format("\\f{}{}\\fR", option.positional ? 'I' : 'B', troff(name)));
  std::string text = fmt::format("{}", fmt::join(names, ", "));
  if (!option.value.empty() && !option.positional)
    text += fmt::format(" \\fI{}\\fR", troff(option.value));
  return text;
}

std::string entry(const OptionText& option) {
  std::string help = option.help;
  if (!option.standard.empty() && help.find("(default") == std::string::npos)
    help += fmt::format(" (default {})", option.standard);
  return fmt::format(".TP\n{}\n{}\n", tag(option), troff(help));
}

// Groups in the order of --help, each below a heading of its own; positional arguments first.
std::string options_text(const CommandText& command, const char* heading) {
  std::string text;
  std::vector<std::string> groups;
  for (const OptionText& option : command.options) {
    if (option.positional)
      text += entry(option);
    else if (std::find(groups.begin(), groups.end(), option.group) == groups.end())
      groups.push_back(option.group);
  }
  for (const std::string& group : groups) {
    text += fmt::format("{} {}\n", heading, troff(group));
    for (const OptionText& option : command.options)
      if (!option.positional && option.group == group) text += entry(option);
  }
  return text;
}

std::string synopsis(const CommandText& program) {
  std::string text = fmt::format(".B {}\n", troff(program.name));
  const auto positionals = [](const CommandText& command) {
    std::string names;
    for (const OptionText& option : command.options)
      if (option.positional) names += fmt::format(" \\fI{}\\fR", troff(option.names[0]));
    return names;
  };
  text += fmt::format("[\\fIOPTIONS\\fR]{}\n", positionals(program));
  for (const CommandText& command : program.commands)
    text += fmt::format(".br\n.B {} {}\n[\\fIOPTIONS\\fR]{}\n",
                        troff(program.name),
                        troff(command.name),
                        positionals(command));
  return text;
}

constexpr const char* kStatus = R"(.SH EXIT STATUS
.TP
.B 0
done
.TP
.B 1
failure at run time
.TP
.B 2
usage, configuration or launch
.TP
.B 3
bad model file or checkpoint
.TP
.B 4
resources: memory, disk, GPU
.TP
.B 5
communication: another rank did not answer in time
.TP
.B 6
a numerical check failed
.TP
.B 75
stopped on request, to be started again
)";

}  // namespace

std::string man_page(const CommandText& program, const std::string& version) {
  std::string text = fmt::format(
      ".\\\" Made by {0} \\-\\-generate man.\n.TH {1} 1 \"\" \"glm_infer {2}\" \"User Commands\"\n",
      troff(program.name),
      troff(upper(program.name)),
      troff(version));
  // What man -k shows: the first half sentence.
  const std::string brief = program.help.substr(0, program.help.find_first_of(":."));
  text += fmt::format(".SH NAME\n{} \\- {}\n", troff(program.name), troff(brief));
  text += ".SH SYNOPSIS\n" + synopsis(program);
  text += fmt::format(".SH DESCRIPTION\n{}\n", troff(program.help));
  text += ".SH OPTIONS\n" + options_text(program, ".SS");
  if (!program.commands.empty()) text += ".SH COMMANDS\n";
  for (const CommandText& command : program.commands)
    text += fmt::format(".SS {} {}\n{}\n{}",
                        troff(program.name),
                        troff(command.name),
                        troff(command.help),
                        options_text(command, ".PP\n.I"));
  text += kStatus;
  text += ".SH SEE ALSO\n";
  std::vector<std::string> others;
  for (const char* other : kPrograms)
    if (other != program.name) others.push_back(fmt::format("\\fB{}\\fR(1)", troff(other)));
  return text + fmt::format("{}\n", fmt::join(others, ", "));
}

}  // namespace glm
