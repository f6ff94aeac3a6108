// A conversation at the prompt: messages, commands that begin with a slash, files to save and load.
// What answers and what prints is the host's. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "io/answer_parts.h"
#include "io/json.h"

namespace glm {

struct ChatAnswer {
  enum class End { kStop, kLength, kInterrupted };
  AnswerParts parts;
  End end = End::kStop;
};

class ChatHost {
 public:
  virtual ~ChatHost() = default;
  // Computes and shows the answer to the messages; `tools` may be null. Throws Error(kUsage) or
  // Error(kModelFile) for a conversation that cannot be a prompt.
  virtual ChatAnswer answer(const OrderedJson& messages, const OrderedJson& tools) = 0;
  // A line to the user that is no answer.
  virtual void say(const std::string& line) = 0;
};

struct Conversation {
  OrderedJson messages = OrderedJson::array();
  OrderedJson tools;  // null: none
};

// A file of /save, or a list of messages. Throws Error(kUsage) naming `source`.
Conversation parse_conversation(std::string_view text, const std::string& source);

class ChatSession {
 public:
  ChatSession(ChatHost& host, const std::optional<std::string>& system, OrderedJson tools);

  // Takes one line of input: a command, a message, or a part of one that goes on (a line that ends
  // with a backslash). False when the session is to end. What is wrong with it is said, and the
  // session goes on; errors of the computation itself are thrown.
  bool line(std::string_view text);
  // The message goes on with the next line.
  bool continues() const { return continues_; }
  // Forgets the begun message.
  void abandon();
  int64_t n_turns() const { return n_turns_; }
  const OrderedJson& messages() const { return talk_.messages; }

 private:
  bool act(std::string_view text);
  bool command(std::string_view text);
  void send(OrderedJson message);
  void set_system(std::string_view text);
  void set_tools(const std::string& path);
  void save(const std::string& path);
  void load(const std::string& path);

  ChatHost& host_;
  Conversation talk_;
  std::string begun_;
  bool continues_ = false;
  int64_t n_turns_ = 0;
};

}  // namespace glm
