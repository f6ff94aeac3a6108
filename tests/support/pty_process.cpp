// SPDX-License-Identifier: MIT
#include "tests/support/pty_process.h"

#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <stdexcept>

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utmp.h>

namespace glm::testing_support {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

PtyProcess::PtyProcess(const std::vector<std::string>& argv,
                       const std::vector<std::pair<std::string, std::string>>& env) {
  std::vector<char*> words;
  for (const std::string& word : argv) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  winsize size = {};
  size.ws_row = 50;
  size.ws_col = 200;
  if (::openpty(&master_, &slave_, nullptr, nullptr, &size) != 0)
    throw std::runtime_error("openpty failed");
  ::fcntl(master_, F_SETFD, FD_CLOEXEC);
  ::fcntl(slave_, F_SETFD, FD_CLOEXEC);
  pid_ = ::fork();
  if (pid_ < 0) throw std::runtime_error("fork failed");
  if (pid_ == 0) {
    for (const auto& [name, value] : env) ::setenv(name.c_str(), value.c_str(), 1);
    if (::login_tty(::dup(slave_)) == 0) ::execvp(words[0], words.data());
    ::_exit(127);
  }
}

PtyProcess::~PtyProcess() {
  if (!ended_) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  ::close(slave_);
  ::close(master_);
}

void PtyProcess::type(const std::string& keys) {
  if (::write(master_, keys.data(), keys.size()) != static_cast<ssize_t>(keys.size()))
    throw std::runtime_error("the pty takes no keys");
}

bool PtyProcess::read_some(double seconds) {
  pollfd ready = {master_, POLLIN, 0};
  if (::poll(&ready, 1, static_cast<int>(seconds * 1000)) <= 0) return false;
  std::array<char, 4096> buffer;
  const ssize_t n = ::read(master_, buffer.data(), buffer.size());
  if (n > 0) shown_.append(buffer.data(), static_cast<size_t>(n));
  return n > 0;
}

bool PtyProcess::wait_for(const std::string& text, double seconds) {
  for (const auto start = Clock::now();;) {
    const size_t found = shown_.find(text, seen_);
    if (found != std::string::npos) {
      seen_ = found + text.size();
      return true;
    }
    if (since(start) > seconds) return false;
    read_some(0.05);
  }
}

int PtyProcess::finish(double seconds) {
  for (const auto start = Clock::now(); !ended_ && since(start) < seconds;) {
    read_some(0.02);
    ended_ = ::waitpid(pid_, &status_, WNOHANG) == pid_;
  }
  while (read_some(0.02)) {
  }
  return ended_ && WIFEXITED(status_) ? WEXITSTATUS(status_) : -1;
}

termios PtyProcess::modes() const {
  termios out = {};
  ::tcgetattr(slave_, &out);
  return out;
}

}  // namespace glm::testing_support
