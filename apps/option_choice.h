// An option that takes one of a few words. SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/ranges.h>

#include "apps/program.h"

namespace glm {

// Target: T or std::optional<T>.
template <class T, class Target>
CLI::Option* add_choice(CLI::App& app,
                        const std::string& name,
                        Target& target,
                        const std::vector<std::pair<std::string, T>>& choices,
                        const std::string& text) {
  std::vector<std::string> names;
  for (const auto& choice : choices) names.push_back(choice.first);
  const auto assign = [choices, &target](const std::string& value) {
    for (const auto& choice : choices)
      if (choice.first == value) target = choice.second;
  };
  return app.add_option_function<std::string>(name, assign, text)
      ->check(one_of(names))
      ->type_name(fmt::format("{}", fmt::join(names, "|")));
}

}  // namespace glm
