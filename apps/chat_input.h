// Lines from stdin on rank 0: keys of a terminal with editing and history, or a pipe. While nothing
// comes the job is kept alive. SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "apps/chat_terminal.h"

namespace glm {

inline constexpr char kCtrlC = 3;

// stdin byte by byte, and the wish to interrupt: SIGINT, or Ctrl-C as a key.
class InputBytes {
 public:
  enum class Event { kByte, kEnd, kInterrupt };

  // `keys`: bytes come from a terminal. `idle` is called a few times a second while next() waits.
  InputBytes(int fd, bool keys, std::function<void()> idle);
  // SIGINT ends the program again.
  ~InputBytes();
  InputBytes(const InputBytes&) = delete;
  InputBytes& operator=(const InputBytes&) = delete;

  Event next(char& byte);
  // Without waiting: whether somebody wants to interrupt. Keys that came before the wish are
  // dropped, others wait for next().
  bool interrupted();

 private:
  bool take_signal();
  void fill();

  int fd_;
  bool keys_;
  std::function<void()> idle_;
  std::string buffer_;
  size_t at_ = 0;
  bool ended_ = false;
};

class LineEditor;

class ChatInput {
 public:
  enum class Event { kLine, kEnd, kInterrupt };

  // `terminal` may be null: then lines are read without a prompt.
  ChatInput(const ChatTerminal* terminal, std::function<void()> idle);
  ~ChatInput();

  // Throws Error(kUsage) for a line that is too long; reading goes on behind it.
  Event read(const std::string& prompt, std::string& line);
  // Without waiting, during an answer.
  bool interrupted() { return bytes_.interrupted(); }

 private:
  Event read_plain(std::string& line);

  InputBytes bytes_;
  std::unique_ptr<LineEditor> editor_;
};

// Editing on a terminal. With libedit: keys, history. Without it (line_editor_plain.cpp) the
// terminal's own.
class LineEditor {
 public:
  LineEditor(const ChatTerminal& terminal, InputBytes& bytes);
  ~LineEditor();
  ChatInput::Event read(const std::string& prompt, std::string& line);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace glm
