// The options of a program as plain data, and what is made of them: its man page and its
// completions for shells. Whatever --help says comes from the same CLI::App, so none of them can
// fall behind. SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace glm {

struct OptionText {
  std::vector<std::string> names;  // "-h", "--help"; of a positional argument its name: "MODEL"
  std::string value;               // what it takes, "PATH", "on|off"; "" for a flag
  std::string standard;            // the default, as --help shows it
  std::string help;
  std::string group;
  std::vector<std::string> choices;  // words it takes, where they are known
  bool is_file = false;              // it takes the name of one
  bool positional = false;
  bool repeated = false;
};

struct CommandText {
  std::string name;
  std::string help;
  std::vector<OptionText> options;  // in the order of --help
  std::vector<CommandText> commands;
};

CommandText command_text(const CLI::App& app);

// troff. version: "0.1.0".
std::string man_page(const CommandText& program, const std::string& version);
std::string bash_completion(const CommandText& program);
std::string zsh_completion(const CommandText& program);
std::string fish_completion(const CommandText& program);

// What PROGRAM --generate FORM prints: man, bash, zsh or fish. Throws Error(kUsage) for another
// word.
std::string generated_text(const CLI::App& app,
                           const std::string& form,
                           const std::string& version);

}  // namespace glm
