// SPDX-License-Identifier: MIT
#include "apps/chat_input.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>

#include <poll.h>
#include <unistd.h>

#include "core/base/check.h"

namespace glm {
namespace {

constexpr int kNapMilliseconds = 200;
constexpr size_t kLongestLine = size_t{16} << 20;
// Typed ahead during an answer.
constexpr size_t kMostKeys = size_t{1} << 16;

// All that a handler may touch.
volatile std::sig_atomic_t signalled = 0;

void note_signal(int) { signalled = 1; }

// Without SA_RESTART: a wait for input ends.
void handle_interrupts(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
}

}  // namespace

InputBytes::InputBytes(int fd, bool keys, std::function<void()> idle)
    : fd_(fd), keys_(keys), idle_(std::move(idle)) {
  signalled = 0;
  handle_interrupts(note_signal);
}

InputBytes::~InputBytes() { handle_interrupts(SIG_DFL); }

bool InputBytes::take_signal() {
  const bool was = signalled != 0;
  signalled = 0;
  return was;
}

InputBytes::Event InputBytes::next(char& byte) {
  for (;;) {
    if (take_signal()) return Event::kInterrupt;
    if (at_ < buffer_.size()) {
      byte = buffer_[at_++];
      return keys_ && byte == kCtrlC ? Event::kInterrupt : Event::kByte;
    }
    if (ended_) return Event::kEnd;
    idle_();
    pollfd ready = {fd_, POLLIN, 0};
    if (::poll(&ready, 1, kNapMilliseconds) > 0) fill();
  }
}

void InputBytes::fill() {
  if (at_ == buffer_.size()) {
    buffer_.clear();
    at_ = 0;
  }
  std::array<char, 65536> chunk;
  const ssize_t n = ::read(fd_, chunk.data(), chunk.size());
  if (n > 0)
    buffer_.append(chunk.data(), static_cast<size_t>(n));
  else if (n == 0 || (errno != EINTR && errno != EAGAIN))
    ended_ = true;
}

bool InputBytes::interrupted() {
  if (take_signal()) return true;
  pollfd ready = {fd_, POLLIN, 0};
  if (!keys_ || ended_ || ::poll(&ready, 1, 0) <= 0) return false;
  fill();
  const size_t key = buffer_.rfind(kCtrlC);
  if (key != std::string::npos && key >= at_) {
    at_ = key + 1;
    return true;
  }
  buffer_.resize(std::min(buffer_.size(), at_ + kMostKeys));
  return false;
}

ChatInput::ChatInput(const ChatTerminal* terminal, std::function<void()> idle)
    : bytes_(STDIN_FILENO, terminal != nullptr, std::move(idle)) {
  if (terminal != nullptr) editor_ = std::make_unique<LineEditor>(*terminal, bytes_);
}

ChatInput::~ChatInput() = default;

ChatInput::Event ChatInput::read(const std::string& prompt, std::string& line) {
  line.clear();
  return editor_ ? editor_->read(prompt, line) : read_plain(line);
}

ChatInput::Event ChatInput::read_plain(std::string& line) {
  bool too_long = false;
  for (char byte = 0;;) {
    const InputBytes::Event event = bytes_.next(byte);
    if (event == InputBytes::Event::kInterrupt) return Event::kInterrupt;
    const bool ends = event == InputBytes::Event::kEnd;
    if (ends && line.empty() && !too_long) return Event::kEnd;
    if (ends || byte == '\n') break;
    too_long = too_long || line.size() >= kLongestLine;
    if (!too_long) line += byte;
  }
  if (too_long) fail(ExitCode::kUsage, "a line of more than {} MiB is refused", kLongestLine >> 20);
  return Event::kLine;
}

}  // namespace glm
