// SPDX-License-Identifier: MIT
#include "io/tool_calls.h"

#include <algorithm>
#include <optional>

namespace glm {
namespace {

constexpr std::string_view kOpen = "<tool_call>";
constexpr std::string_view kClose = "</tool_call>";
constexpr size_t kMostCalls = 256;
constexpr size_t kMostArguments = 1024;
constexpr size_t kLongestName = 256;
constexpr JsonLimits kCallLimits = {int64_t{8} << 20, 64, 10'000};
constexpr JsonLimits kToolLimits = {int64_t{16} << 20, 64, 200'000};

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(kJsonBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kJsonBlanks) - begin + 1);
}

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= kLongestName &&
         std::none_of(name.begin(), name.end(), [](char c) {
           return static_cast<unsigned char>(c) <= ' ' || c == '\x7F' ||
                  std::string_view("<>{}\"").find(c) != std::string_view::npos;
         });
}

std::optional<OrderedJson> json_of(std::string_view text) {
  try {
    return parse_ordered_json(text, "tool call", ExitCode::kUsage, kCallLimits);
  } catch (const Error&) {
    return std::nullopt;
  }
}

// The function of an entry of the list, which may be wrapped.
const OrderedJson& function_of(const OrderedJson& tool) {
  return tool.contains("function") ? tool["function"] : tool;
}

// Null when it was not offered. Lists of batch files may hold anything.
const OrderedJson* find_tool(const OrderedJson& tools, std::string_view name) {
  for (const OrderedJson& tool : tools)
    if (const OrderedJson& function = function_of(tool);
        function.is_object() && function.contains("name") && function["name"] == name)
      return &function;
  return nullptr;
}

// "string", "integer", ... of an argument; "" when the tool does not say one.
std::string type_of(const OrderedJson& tools, const std::string& name, const std::string& key) {
  const OrderedJson* at = find_tool(tools, name);
  for (const std::string& step : {std::string("parameters"), std::string("properties"), key}) {
    if (at == nullptr || !at->is_object() || !at->contains(step)) return {};
    at = &(*at)[step];
  }
  if (!at->is_object() || !at->contains("type") || !(*at)["type"].is_string()) return {};
  return (*at)["type"].get<std::string>();
}

// Reads one text from front to back.
class CallReader {
 public:
  CallReader(std::string_view text, const OrderedJson& tools, bool complete)
      : text_(text), tools_(tools), complete_(complete) {}

  CallsInText read();

 private:
  bool read_call(ToolCall& call);
  bool read_tagged(ToolCall& call);
  bool read_json(ToolCall& call);
  bool read_function(ToolCall& call);
  bool read_end(const ToolCall& call);
  std::optional<std::string_view> value_until(std::string_view word, std::string_view begin);
  bool add(ToolCall& call, std::string_view key, std::string_view value) const;

  void skip_blanks() { at_ = std::min(text_.find_first_not_of(kJsonBlanks, at_), text_.size()); }
  // Moves behind `tag` when it is next, blanks before it or not.
  bool take(std::string_view tag) {
    skip_blanks();
    if (text_.substr(at_, tag.size()) != tag) return false;
    at_ += tag.size();
    return true;
  }
  // A name that ends before one of `ends`; moves to its end.
  std::optional<std::string_view> take_name(std::string_view ends) {
    const std::string_view window = text_.substr(at_, kLongestName + 2);
    const size_t end = std::min(window.find_first_of(ends), window.size());
    const std::string_view name = trimmed(window.substr(0, end));
    if (!is_name(name)) return std::nullopt;
    at_ += end;
    return name;
  }

  std::string_view text_;
  const OrderedJson& tools_;
  bool complete_;
  size_t at_ = 0;
};

// What went wrong stays text up to the place where it did, and reading goes on there: no byte is
// searched twice for the same tag.
CallsInText CallReader::read() {
  CallsInText out;
  for (;;) {
    const size_t open = text_.find(kOpen, at_);
    out.text += text_.substr(at_, open == std::string_view::npos ? open : open - at_);
    if (open == std::string_view::npos) break;
    at_ = open + kOpen.size();
    ToolCall call;
    if (out.calls.size() < kMostCalls && read_call(call)) {
      out.calls.push_back(std::move(call));
    } else {
      out.malformed = true;
      out.text += text_.substr(open, at_ - open);
    }
  }
  if (!out.calls.empty()) out.text = trimmed(out.text);
  return out;
}

bool CallReader::read_call(ToolCall& call) {
  skip_blanks();
  const std::string_view rest = text_.substr(at_);
  const bool good = rest.starts_with("{")            ? read_json(call)
                    : rest.starts_with("<function=") ? read_function(call)
                                                     : read_tagged(call);
  return good && read_end(call);
}

bool CallReader::read_end(const ToolCall& call) {
  if (take(kClose)) return true;
  return complete_ && at_ == text_.size() && find_tool(tools_, call.name) != nullptr;
}

bool CallReader::read_tagged(ToolCall& call) {
  const auto name = take_name("<\n");
  if (!name) return false;
  call.name = *name;
  while (take("<arg_key>")) {
    const auto key = take_name("<\n");
    if (!key || !take("</arg_key>") || !take("<arg_value>")) return false;
    const auto value = value_until("arg_value", ">");
    if (!value || !add(call, *key, *value)) return false;
  }
  return true;
}

bool CallReader::read_function(ToolCall& call) {
  at_ += std::string_view("<function=").size();
  const auto name = take_name(">");
  if (!name || !take(">")) return false;
  call.name = *name;
  while (take("<parameter=")) {
    const auto key = take_name(">");
    if (!key || !take(">")) return false;
    auto value = value_until("parameter", "=");
    if (!value) return false;
    if (value->starts_with('\n')) value->remove_prefix(1);
    if (value->ends_with('\n')) value->remove_suffix(1);
    if (!add(call, *key, *value)) return false;
  }
  return take("</function>");
}

// The bytes before the next </word>. Nothing when there is none, or when <word and `begin` come
// first: then it is not clear what the value is.
std::optional<std::string_view> CallReader::value_until(std::string_view word,
                                                        std::string_view begin) {
  for (size_t found = text_.find(word, at_); found != std::string_view::npos;
       found = text_.find(word, found + word.size())) {
    const std::string_view before = text_.substr(0, found);
    const std::string_view behind = text_.substr(found + word.size());
    if (before.ends_with("</") && found - 2 >= at_ && behind.starts_with(">")) {
      const std::string_view value = text_.substr(at_, found - 2 - at_);
      at_ = found + word.size() + 1;
      return value;
    }
    if (before.ends_with("<") && behind.starts_with(begin)) return std::nullopt;
  }
  return std::nullopt;
}

bool CallReader::add(ToolCall& call, std::string_view key, std::string_view value) const {
  const std::string name(key);
  if (call.arguments.size() >= kMostArguments || call.arguments.contains(name)) return false;
  const std::string type = type_of(tools_, call.name, name);
  OrderedJson& target = call.arguments[name];
  target = value;
  if (type == "string") return true;
  const std::string_view inner = trimmed(value);
  if (type == "boolean" && (inner == "True" || inner == "False"))  // as Python writes them
    target = inner == "True";
  else if (auto json = json_of(inner))
    target = std::move(*json);
  return true;
}

// Length of the JSON object at the beginning of `text`, or nothing, and then how far it looked like
// one.
std::pair<bool, size_t> object_length(std::string_view text) {
  int64_t depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (static_cast<unsigned char>(c) < ' ') return {false, i};
      if (c == '\\')
        ++i;
      else if (c == '"')
        quoted = false;
      continue;
    }
    if (c == '<') return {false, i};
    if (c == '"') quoted = true;
    if (c == '{' || c == '[') ++depth;
    if ((c == '}' || c == ']') && --depth == 0) return {true, i + 1};
  }
  return {false, text.size()};
}

// {"name": ..., "arguments": {...}}; the arguments may be missing, or JSON in a string.
bool call_of(const OrderedJson& json, ToolCall& call) {
  if (!json.is_object() || !json.contains("name") || !json["name"].is_string()) return false;
  call.name = json["name"].get<std::string>();
  const char* key = json.contains("arguments") ? "arguments" : "parameters";
  if (json.contains(key)) call.arguments = json[key];
  if (call.arguments.is_string())
    call.arguments = json_of(call.arguments.get_ref<const std::string&>()).value_or(OrderedJson());
  return is_name(call.name) && call.arguments.is_object();
}

bool CallReader::read_json(ToolCall& call) {
  const auto [whole, length] = object_length(text_.substr(at_));
  const std::string_view object = text_.substr(at_, length);
  at_ += length;
  if (!whole) return false;
  const auto json = json_of(object);
  return json && call_of(*json, call);
}

// The answer of GLM-4-0414 that is one call.
std::optional<ToolCall> whole_call(std::string_view text, const OrderedJson& tools) {
  const std::string_view answer = trimmed(text);
  const size_t end = answer.find('\n');
  if (end == std::string_view::npos || end > kLongestName) return std::nullopt;
  const std::string_view name = trimmed(answer.substr(0, end));
  const std::string_view rest = trimmed(answer.substr(end));
  if (!rest.starts_with('{') || find_tool(tools, name) == nullptr) return std::nullopt;
  auto json = json_of(rest);
  if (!json || !json->is_object()) return std::nullopt;
  return ToolCall{std::string(name), std::move(*json)};
}

void judge_tool(const OrderedJson& tool, size_t index, const std::string& source) {
  const bool wrapped = tool.is_object() && tool.contains("function");
  const OrderedJson& function = wrapped ? tool["function"] : tool;
  const bool named =
      function.is_object() && function.contains("name") && function["name"].is_string();
  if (!named || !is_name(function["name"].get_ref<const std::string&>()))
    fail(ExitCode::kUsage,
         "{}: tool {} has no name; expected {{\"type\": \"function\", \"function\": {{\"name\": "
         "\"...\", \"parameters\": {{...}}}}}}",
         escaped(source),
         index + 1);
  if (function.contains("parameters") && !function["parameters"].is_object())
    fail(ExitCode::kUsage,
         "{}: tool {}: parameters: expected an object, found {}",
         escaped(source),
         index + 1,
         function["parameters"].type_name());
}

}  // namespace

OrderedJson parse_tools(std::string_view text, const std::string& source) {
  OrderedJson json = parse_ordered_json(text, source, ExitCode::kUsage, kToolLimits);
  if (json.is_object() && json.contains("tools")) json = OrderedJson(json["tools"]);
  if (!json.is_array() || json.empty())
    fail(ExitCode::kUsage, "{}: expected a list of tools, with at least one", escaped(source));
  for (size_t i = 0; i < json.size(); ++i) judge_tool(json[i], i, source);
  return json;
}

CallsInText parse_tool_calls(std::string_view text, const OrderedJson& tools, bool complete) {
  CallsInText out = CallReader(text, tools, complete).read();
  if (!out.calls.empty() || out.malformed || !complete) return out;
  if (auto call = whole_call(text, tools)) out = {{}, {std::move(*call)}, false};
  return out;
}

OrderedJson tool_call_json(const ToolCall& call) {
  return {{"name", call.name}, {"arguments", call.arguments}};
}

OrderedJson tool_calls_json(const std::vector<ToolCall>& calls) {
  OrderedJson out = OrderedJson::array();
  for (const ToolCall& call : calls)
    out.push_back({{"type", "function"}, {"function", tool_call_json(call)}});
  return out;
}

}  // namespace glm
