// Chat templates: what a template may see of a conversation, and with which provenance.
// SPDX-License-Identifier: MIT
#include "io/chat_template.h"

#include <algorithm>
#include <array>

#include "io/jinja_eval.h"
#include "io/jinja_parser.h"

namespace glm {
namespace {

using jinja::Context;
using jinja::Value;

Value to_value(Context& context, const OrderedJson& json, Origin origin, int depth = 0);

Value string_value(const std::string& text, Origin origin) {
  return Value::string(MarkedString(text, origin));
}

Value object_value(Context& context, const OrderedJson& json, Origin origin, int depth) {
  std::vector<std::pair<Value, Value>> entries;
  for (const auto& [key, member] : json.items())
    entries.emplace_back(string_value(key, origin), to_value(context, member, origin, depth + 1));
  return make_dict(context, std::move(entries), origin);
}

Value to_value(Context& context, const OrderedJson& json, Origin origin, int depth) {
  if (depth > jinja::kMaxValueDepth / 2) context.error("the conversation is nested too deep");
  switch (json.type()) {
    case OrderedJson::value_t::null:
    case OrderedJson::value_t::discarded:
      return Value(jinja::None{}, origin);
    case OrderedJson::value_t::boolean:
      return Value(json.get<bool>(), origin);
    case OrderedJson::value_t::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
        context.error("the conversation holds an integer of more than 64 bits");
      return Value(json.get<int64_t>(), origin);
    case OrderedJson::value_t::number_integer:
      return Value(json.get<int64_t>(), origin);
    case OrderedJson::value_t::number_float:
      return Value(json.get<double>(), origin);
    case OrderedJson::value_t::string:
      return string_value(json.get_ref<const std::string&>(), origin);
    case OrderedJson::value_t::binary:
      context.error("the conversation holds binary data");
    case OrderedJson::value_t::object:
      return object_value(context, json, origin, depth);
    case OrderedJson::value_t::array:
      break;
  }
  std::vector<Value> items;
  for (const OrderedJson& item : json) items.push_back(to_value(context, item, origin, depth + 1));
  return make_list(context, std::move(items), jinja::ListKind::kList, origin);
}

// Templates build "<|role|>" around a role. Any other word could spell a control token there.
bool is_role(const OrderedJson& value) {
  constexpr std::array<std::string_view, 8> kRoles = {
      "system", "developer", "user", "assistant", "tool", "observation", "function", "ipython"};
  return value.is_string() &&
         std::find(kRoles.begin(), kRoles.end(), value.get<std::string>()) != kRoles.end();
}

Origin origin_of(const std::string& role, const std::string& key, const OrderedJson& value) {
  if (key == "role" && is_role(value)) return Origin::kTemplate;
  if (role == "user" && key == "content") return Origin::kUser;
  if (role == "assistant" &&
      (key == "content" || key == "reasoning_content" || key == "tool_calls"))
    return Origin::kAssistant;
  return Origin::kPlain;
}

Value message_value(Context& context, const OrderedJson& message) {
  if (!message.is_object()) return to_value(context, message, Origin::kPlain);
  const auto found = message.find("role");
  const std::string role =
      found != message.end() && found->is_string() ? found->get<std::string>() : "";
  std::vector<std::pair<Value, Value>> entries;
  for (const auto& [key, member] : message.items())
    entries.emplace_back(string_value(key, Origin::kPlain),
                         to_value(context, member, origin_of(role, key, member), 1));
  return make_dict(context, std::move(entries), Origin::kPlain);
}

Value messages_value(Context& context, const OrderedJson& messages) {
  if (!messages.is_array()) context.error("messages: expected an array");
  std::vector<Value> items;
  for (const OrderedJson& message : messages) items.push_back(message_value(context, message));
  return make_list(context, std::move(items), jinja::ListKind::kList, Origin::kPlain);
}

// A special token is a string, or an object that holds it as "content".
void define_special_tokens(jinja::Interpreter& interpreter, const OrderedJson& tokens) {
  if (!tokens.is_object()) return;
  for (const auto& [name, value] : tokens.items()) {
    const OrderedJson& content =
        value.is_object() && value.contains("content") ? value["content"] : value;
    if (!content.is_null())
      interpreter.define(name, to_value(interpreter.context(), content, Origin::kTemplate));
  }
}

}  // namespace

struct ChatTemplate::Impl {
  std::string source;
  jinja::Block block;
};

ChatTemplate::ChatTemplate(std::string_view text, const std::string& source)
    : impl_(std::make_unique<Impl>()) {
  impl_->source = source;
  impl_->block = jinja::Parser(text, source).parse();
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

Text ChatTemplate::render(const RenderInput& input) const {
  jinja::Interpreter interpreter(impl_->source, input.now, input.max_steps);
  Context& context = interpreter.context();
  define_special_tokens(interpreter, input.special_tokens);
  interpreter.define("messages", messages_value(context, input.messages));
  interpreter.define("tools", to_value(context, input.tools, Origin::kPlain));
  interpreter.define("documents", Value::none());
  interpreter.define("add_generation_prompt", Value::boolean(input.add_generation_prompt));
  if (input.enable_thinking)
    interpreter.define("enable_thinking", Value::boolean(*input.enable_thinking));
  return interpreter.run(impl_->block).runs();
}

std::string plain_text(const Text& text) {
  std::string out;
  for (const TextRun& run : text) out += run.text;
  return out;
}

}  // namespace glm
