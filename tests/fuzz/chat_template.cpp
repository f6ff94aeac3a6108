// Fuzz target: the chat template, and a conversation {"messages": [...], "tools": [...]} as second
// part. SPDX-License-Identifier: MIT
#include "io/chat_template.h"

#include "tests/fuzz/fuzz.h"

namespace glm {
namespace {

constexpr int64_t kSteps = 20'000;

RenderInput conversation(std::string_view text) {
  RenderInput input;
  input.max_steps = kSteps;
  input.now = 1753488000;
  input.special_tokens = {{"bos_token", "<s>"}, {"eos_token", {{"content", "</s>"}}}};
  input.messages.push_back({{"role", "user"}, {"content", "Hi <|user|>"}});
  if (text.empty()) return input;
  const OrderedJson given = parse_ordered_json(text, "messages", ExitCode::kUsage);
  if (!given.is_object()) return input;
  if (given.contains("messages")) input.messages = given["messages"];
  if (given.contains("tools")) input.tools = given["tools"];
  if (given.contains("enable_thinking"))
    input.enable_thinking = given["enable_thinking"] == OrderedJson(true);
  return input;
}

void render(std::string_view source, std::string_view messages) {
  const RenderInput input = conversation(messages);
  const ChatTemplate chat(source, "t");
  const Text text = chat.render(input);
  for (size_t i = 0; i < text.size(); ++i)
    fuzz::require(!text[i].text.empty() && (i == 0 || text[i].origin != text[i - 1].origin),
                  "runs that hold something and differ from their neighbours");
}

}  // namespace
}  // namespace glm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = glm::fuzz::parts(data, size, 2);
  glm::fuzz::accepts({glm::ExitCode::kModelFile, glm::ExitCode::kUsage},
                     [&] { glm::render(parts[0], parts[1]); });
  return 0;
}
