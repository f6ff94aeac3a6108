// The terminal that a chat is held on, its modes, and their end: whatever happens to this process,
// the terminal gets back the modes it had. SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string>

#include <sys/types.h>
#include <termios.h>

namespace glm {

// Ctrl-C must reach the program as a key: as a signal it would end mpirun, and with it the job. So
// while a chat runs the terminal sends no signals for it.
class ChatTerminal {
 public:
  // The terminal of stdin. Under mpirun stdin is a pipe, and the terminal that of mpirun, if it
  // runs on this host in the foreground. Null when there is none. Starts a process that guards the
  // modes: call it while this process is small.
  static std::unique_ptr<ChatTerminal> find(bool launched);
  ~ChatTerminal();
  ChatTerminal(const ChatTerminal&) = delete;
  ChatTerminal& operator=(const ChatTerminal&) = delete;

  int fd() const { return fd_; }
  // stdout ends on this terminal as well. Then it is better written to directly: what goes through
  // mpirun may come later than the next prompt.
  bool shows_stdout() const { return shows_stdout_; }
  // Every key is a byte at once, nothing is echoed.
  void key_mode() const;
  // The terminal edits lines; Ctrl-C ends one, as its last byte.
  void line_mode() const;
  void restore() const;

 private:
  ChatTerminal(int fd, bool owned, bool shows_stdout);
  void start_guard();
  void set(const termios& modes) const;

  int fd_;
  bool owned_;  // opened here
  bool shows_stdout_;
  termios before_ = {};
  int guard_pipe_ = -1;  // closed by the end of this process, which the guard waits for
  pid_t guard_ = -1;
};

}  // namespace glm
