// SPDX-License-Identifier: MIT
#include "apps/chat_terminal.h"

#include <array>
#include <cerrno>
#include <climits>
#include <csignal>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "apps/chat_input.h"

namespace glm {
namespace {

// What a descriptor of the launcher is open on.
std::string launcher_file(int descriptor) {
  std::array<char, PATH_MAX> path{};
  const std::string link = fmt::format("/proc/{}/fd/{}", ::getppid(), descriptor);
  const ssize_t n = ::readlink(link.c_str(), path.data(), path.size());
  return n > 0 ? std::string(path.data(), static_cast<size_t>(n)) : std::string();
}

bool same_device(int a, int b) {
  struct stat of_a = {}, of_b = {};
  return ::fstat(a, &of_a) == 0 && ::fstat(b, &of_b) == 0 && of_a.st_rdev == of_b.st_rdev &&
         S_ISCHR(of_a.st_mode) && S_ISCHR(of_b.st_mode);
}

// Runs in a process of its own, which shares nothing with the job but the terminal: waits for the
// end of the other side, and unless it ended in good order puts the modes back.
[[noreturn]] void guard(int fd, int pipe_end, const termios& before) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTTOU}) std::signal(signal, SIG_IGN);
  ::setsid();
  for (int other = 0; other < 1024; ++other)
    if (other != fd && other != pipe_end) ::close(other);
  char word = 0;
  ssize_t n = -1;
  do {
    n = ::read(pipe_end, &word, 1);
  } while (n < 0 && errno == EINTR);
  if (n <= 0) ::tcsetattr(fd, TCSANOW, &before);
  ::_exit(0);
}

}  // namespace

std::unique_ptr<ChatTerminal> ChatTerminal::find(bool launched) {
  if (::isatty(STDIN_FILENO) != 0)
    return std::unique_ptr<ChatTerminal>(
        new ChatTerminal(STDIN_FILENO,
                         false,
                         ::isatty(STDOUT_FILENO) != 0 && same_device(STDIN_FILENO, STDOUT_FILENO)));
  if (!launched) return nullptr;
  const std::string path = launcher_file(STDIN_FILENO);
  if (!path.starts_with("/dev/pts/") && !path.starts_with("/dev/tty")) return nullptr;
  const int fd = ::open(path.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (fd < 0) return nullptr;
  if (::isatty(fd) == 0 || ::tcgetpgrp(fd) != ::getpgid(::getppid())) {
    ::close(fd);
    return nullptr;
  }
  return std::unique_ptr<ChatTerminal>(
      new ChatTerminal(fd, true, launcher_file(STDOUT_FILENO) == path));
}

ChatTerminal::ChatTerminal(int fd, bool owned, bool shows_stdout)
    : fd_(fd), owned_(owned), shows_stdout_(shows_stdout) {
  ::tcgetattr(fd_, &before_);
  // Ranks are no foreground processes of mpirun's terminal; they may set its modes and write to it
  // all the same.
  std::signal(SIGTTOU, SIG_IGN);
  start_guard();
}

ChatTerminal::~ChatTerminal() {
  restore();
  if (guard_ > 0) {
    const char word = 'q';
    if (::write(guard_pipe_, &word, 1) == 1) ::waitpid(guard_, nullptr, 0);
  }
  if (guard_pipe_ >= 0) ::close(guard_pipe_);
  if (owned_) ::close(fd_);
}

void ChatTerminal::start_guard() {
  std::array<int, 2> ends = {-1, -1};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return;
  guard_ = ::fork();
  if (guard_ == 0) guard(fd_, ends[0], before_);
  ::close(ends[0]);
  guard_pipe_ = ends[1];
}

void ChatTerminal::set(const termios& modes) const {
  while (::tcsetattr(fd_, TCSADRAIN, &modes) != 0 && errno == EINTR) {
  }
}

void ChatTerminal::key_mode() const {
  termios modes = before_;
  modes.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | ISIG);
  modes.c_cc[VMIN] = 1;
  modes.c_cc[VTIME] = 0;
  set(modes);
}

void ChatTerminal::line_mode() const {
  termios modes = before_;
  modes.c_lflag |= static_cast<tcflag_t>(ICANON | ECHO);
  modes.c_cc[VINTR] = _POSIX_VDISABLE;
  modes.c_cc[VEOL] = kCtrlC;
  set(modes);
}

void ChatTerminal::restore() const { set(before_); }

}  // namespace glm
