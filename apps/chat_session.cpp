// SPDX-License-Identifier: MIT
#include "apps/chat_session.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <utility>

#include "io/unicode.h"

namespace glm {
namespace {

constexpr int64_t kLongestFile = int64_t{256} << 20;
constexpr JsonLimits kTalkLimits = {kLongestFile, 64, 2'000'000};
constexpr size_t kLongestMessage = size_t{64} << 20;
constexpr std::string_view kBlanks = " \t\r\n";

constexpr const char* kHelp =
    "/reset         forget the conversation; system message and tools stay\n"
    "/system TEXT   set the system message; without TEXT take it away\n"
    "/tools FILE    offer the tools of a JSON file; without FILE none\n"
    "/result TEXT   the result of a tool call, for the model to go on with\n"
    "/save FILE     write the conversation to a JSON file\n"
    "/load FILE     go on with a conversation from such a file\n"
    "/help          this list\n"
    "/quit          end (as the end of the input does)\n"
    "A line that ends with \\ goes on in the next one. A message that begins with / is written "
    "with //.\n"
    "Ctrl-C stops an answer.";

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

bool is_system(const OrderedJson& message) { return message["role"] == "system"; }

// Templates take the arguments of calls as objects; many programs write them as JSON text.
void judge_call(OrderedJson& call, const std::string& where) {
  OrderedJson* function = call.is_object() && call.contains("function") ? &call["function"] : &call;
  if (!function->is_object() || !function->contains("name") || !(*function)["name"].is_string())
    fail(ExitCode::kUsage, "{}: a tool call without a name", where);
  OrderedJson& arguments = (*function)["arguments"];
  if (arguments.is_null()) arguments = OrderedJson::object();
  if (arguments.is_string())
    arguments = parse_ordered_json(
        arguments.get<std::string>(), where + ": arguments", ExitCode::kUsage, kTalkLimits);
  if (!arguments.is_object())
    fail(ExitCode::kUsage, "{}: arguments of a tool call: expected an object", where);
}

void judge_message(OrderedJson& message, const std::string& where) {
  if (!message.is_object() || !message.contains("role") || !message["role"].is_string())
    fail(ExitCode::kUsage, "{}: expected an object with a \"role\"", where);
  const auto role = message["role"].get<std::string>();
  if (role != "system" && role != "user" && role != "assistant" && role != "tool")
    fail(ExitCode::kUsage,
         "{}: the role \"{}\" is none of system, user, assistant, tool",
         where,
         escaped(role));
  const bool calls = message.contains("tool_calls") && !message["tool_calls"].is_null();
  if (!message.contains("content") || message["content"].is_null()) message["content"] = "";
  if (!message["content"].is_string())
    fail(ExitCode::kUsage,
         "{}: content: expected a string, found {}",
         where,
         message["content"].type_name());
  if (!calls) return;
  if (!message["tool_calls"].is_array())
    fail(ExitCode::kUsage, "{}: tool_calls: expected a list", where);
  for (OrderedJson& call : message["tool_calls"]) judge_call(call, where);
}

void write_file(const std::string& path, const std::string& text) {
  std::FILE* opened = std::fopen(path.c_str(), "wbe");
  if (opened == nullptr) fail(ExitCode::kUsage, "{}: {}", escaped(path), std::strerror(errno));
  const bool written = std::fwrite(text.data(), 1, text.size(), opened) == text.size();
  const int reason = errno;
  if (std::fclose(opened) == 0 && written) return;
  fail(ExitCode::kUsage, "{}: {}", escaped(path), std::strerror(written ? errno : reason));
}

// A slip of the fingers must not cost a file of another kind.
void check_replaceable(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return;
  try {
    parse_conversation(read_file(path, kLongestFile, ExitCode::kUsage), path);
  } catch (const Error&) {
    fail(ExitCode::kUsage, "{} exists and is no conversation; name another file", escaped(path));
  }
}

}  // namespace

Conversation parse_conversation(std::string_view text, const std::string& source) {
  OrderedJson json = parse_ordered_json(text, source, ExitCode::kUsage, kTalkLimits);
  Conversation out;
  const bool wrapped = json.is_object();
  if (wrapped && json.contains("tools") && !json["tools"].is_null())
    out.tools = parse_tools(json["tools"].dump(), source + ": tools");
  out.messages = wrapped ? json.value("messages", OrderedJson()) : std::move(json);
  if (!out.messages.is_array())
    fail(ExitCode::kUsage,
         "{}: expected a list of messages, or an object with \"messages\"",
         escaped(source));
  size_t number = 0;
  for (OrderedJson& message : out.messages)
    judge_message(message, fmt::format("{}: message {}", escaped(source), ++number));
  return out;
}

ChatSession::ChatSession(ChatHost& host,
                         const std::optional<std::string>& system,
                         OrderedJson tools)
    : host_(host) {
  talk_.tools = std::move(tools);
  if (system) set_system(*system);
}

bool ChatSession::line(std::string_view text) {
  if (text.ends_with('\r')) text.remove_suffix(1);
  continues_ = text.ends_with('\\');
  if (continues_) text.remove_suffix(1);
  begun_ += text;
  if (continues_ && begun_.size() <= kLongestMessage) {
    begun_ += '\n';
    return true;
  }
  continues_ = false;
  const std::string whole = std::exchange(begun_, {});
  try {
    return act(whole);
  } catch (const Error& error) {
    if (error.code() != ExitCode::kUsage && error.code() != ExitCode::kModelFile) throw;
    host_.say(error.what());
  }
  return true;
}

void ChatSession::abandon() {
  begun_.clear();
  continues_ = false;
}

bool ChatSession::act(std::string_view text) {
  if (trimmed(text).empty()) return true;
  if (text.size() > kLongestMessage)
    fail(ExitCode::kUsage, "a message of more than {} MiB is refused", kLongestMessage >> 20);
  if (!is_utf8(text)) fail(ExitCode::kUsage, "this is no UTF-8 text; set the terminal to UTF-8");
  if (text.starts_with('/') && !text.starts_with("//")) return command(text);
  if (text.starts_with("//")) text.remove_prefix(1);
  send({{"role", "user"}, {"content", text}});
  return true;
}

bool ChatSession::command(std::string_view text) {
  const size_t end = std::min(text.find_first_of(kBlanks), text.size());
  const std::string_view name = text.substr(0, end);
  const std::string rest(trimmed(text.substr(end)));
  if (name == "/quit" || name == "/exit") return false;
  if (name == "/help") {
    host_.say(kHelp);
  } else if (name == "/reset") {
    OrderedJson kept = OrderedJson::array();
    for (const OrderedJson& message : talk_.messages)
      if (is_system(message)) kept.push_back(message);
    talk_.messages = std::move(kept);
    host_.say("a new conversation");
  } else if (name == "/system") {
    set_system(rest);
    host_.say(rest.empty() ? "no system message" : "system message set");
  } else if (name == "/tools") {
    set_tools(rest);
  } else if (name == "/result") {
    send({{"role", "tool"}, {"content", rest}});
  } else if (name == "/save") {
    save(rest);
  } else if (name == "/load") {
    load(rest);
  } else {
    fail(ExitCode::kUsage,
         "unknown command {}; /help lists them (a message that begins with / is written with //)",
         escaped(name, 40));
  }
  return true;
}

// The conversation stays as it was when nothing comes of the message.
void ChatSession::send(OrderedJson message) {
  const bool result = message["role"] == "tool";
  const bool asked = !talk_.messages.empty() && (talk_.messages.back().contains("tool_calls") ||
                                                 talk_.messages.back()["role"] == "tool");
  if (result && !asked) fail(ExitCode::kUsage, "/result: the model has called no tool");
  talk_.messages.push_back(std::move(message));
  ChatAnswer answer;
  try {
    answer = host_.answer(talk_.messages, talk_.tools);
  } catch (...) {
    talk_.messages.erase(talk_.messages.size() - 1);
    throw;
  }
  ++n_turns_;
  const bool interrupted = answer.end == ChatAnswer::End::kInterrupted;
  if (interrupted && answer.parts.content.empty() && answer.parts.calls.empty()) {
    talk_.messages.erase(talk_.messages.size() - 1);
    host_.say("stopped; the message is taken back");
    return;
  }
  talk_.messages.push_back(message_json(answer.parts));
  if (interrupted) host_.say("stopped");
  if (answer.end == ChatAnswer::End::kLength)
    host_.say("the answer was cut off: --max-tokens or the context is used up");
  if (answer.parts.malformed_call)
    host_.say("a tool call in the answer is malformed; it is kept as text");
}

void ChatSession::set_system(std::string_view text) {
  OrderedJson messages = OrderedJson::array();
  if (!text.empty()) messages.push_back({{"role", "system"}, {"content", text}});
  for (OrderedJson& message : talk_.messages)
    if (!is_system(message)) messages.push_back(std::move(message));
  talk_.messages = std::move(messages);
}

void ChatSession::set_tools(const std::string& path) {
  if (path.empty()) {
    talk_.tools = nullptr;
    host_.say("no tools");
    return;
  }
  talk_.tools = parse_tools(read_file(path, kLongestFile, ExitCode::kUsage), path);
  std::string names;
  for (const OrderedJson& tool : talk_.tools) {
    const OrderedJson& function = tool.contains("function") ? tool["function"] : tool;
    names += (names.empty() ? "" : ", ") + function["name"].get<std::string>();
  }
  host_.say(fmt::format("tools: {}", escaped(names, 400)));
}

void ChatSession::save(const std::string& path) {
  if (path.empty()) fail(ExitCode::kUsage, "/save needs the name of a file");
  check_replaceable(path);
  OrderedJson json = {{"messages", talk_.messages}};
  if (!talk_.tools.is_null()) json["tools"] = talk_.tools;
  write_file(path, json.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n");
  host_.say(fmt::format("{} messages written to {}", talk_.messages.size(), escaped(path)));
}

void ChatSession::load(const std::string& path) {
  if (path.empty()) fail(ExitCode::kUsage, "/load needs the name of a file");
  talk_ = parse_conversation(read_file(path, kLongestFile, ExitCode::kUsage), path);
  host_.say(fmt::format("{} messages read from {}", talk_.messages.size(), escaped(path)));
}

}  // namespace glm
