// Lines as the terminal edits them, where there is no libedit. SPDX-License-Identifier: MIT
#include <unistd.h>

#include "apps/chat_input.h"

namespace glm {

struct LineEditor::Impl {
  const ChatTerminal& terminal;
  InputBytes& bytes;
};

LineEditor::LineEditor(const ChatTerminal& terminal, InputBytes& bytes)
    : impl_(new Impl{terminal, bytes}) {
  terminal.key_mode();
}

LineEditor::~LineEditor() = default;

ChatInput::Event LineEditor::read(const std::string& prompt, std::string& line) {
  impl_->terminal.line_mode();
  const bool shown = ::write(impl_->terminal.fd(), prompt.data(), prompt.size()) >= 0;
  auto event = shown ? ChatInput::Event::kLine : ChatInput::Event::kEnd;
  for (char byte = 0; event == ChatInput::Event::kLine;) {
    const InputBytes::Event got = impl_->bytes.next(byte);
    if (got == InputBytes::Event::kInterrupt) event = ChatInput::Event::kInterrupt;
    if (got == InputBytes::Event::kEnd && line.empty()) event = ChatInput::Event::kEnd;
    if (got != InputBytes::Event::kByte || byte == '\n') break;
    line += byte;
  }
  impl_->terminal.key_mode();
  return event;
}

}  // namespace glm
