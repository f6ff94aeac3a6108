// The model's own Jinja chat template, run by a small interpreter. An unsupported construct is an
// error naming line and construct, never wrong text. Output carries provenance (text.h).
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "io/json.h"
#include "io/text.h"

namespace glm {

struct RenderInput {
  OrderedJson messages = OrderedJson::array();  // [{"role": ..., "content": ...}, ...]
  OrderedJson tools;                            // array or null (none)
  std::optional<bool> enable_thinking;          // undefined unless given
  bool add_generation_prompt = true;
  // Special tokens of tokenizer_config.json by name ("bos_token": "..."); absent ones are
  // undefined.
  OrderedJson special_tokens = OrderedJson::object();
  // What strftime_now() shows: seconds since 1970, in UTC; the local time of the machine if absent.
  std::optional<int64_t> now;
  // Budget of the rendering, in units of work and memory; Error(kUsage) when it is used up.
  int64_t max_steps = 20'000'000;
};

class ChatTemplate {
 public:
  // Parses with trim_blocks and lstrip_blocks on. Throws Error(kModelFile) "source:line: ..." .
  ChatTemplate(std::string_view text, const std::string& source);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // Throws Error(kModelFile) for unsupported constructs, Error(kUsage) for raise_exception() and
  // for messages that the template cannot take; bounded in steps, depth and output.
  Text render(const RenderInput& input) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

std::string plain_text(const Text& text);

}  // namespace glm
