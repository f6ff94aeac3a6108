// Lines edited with libedit: arrow keys, history. It draws on the terminal; its keys come from
// stdin, which under mpirun is a pipe. SPDX-License-Identifier: MIT
#include <clocale>
#include <cstdio>
#include <cstring>
#include <cwchar>

#include <histedit.h>
#include <langinfo.h>
#include <unistd.h>

#include "apps/chat_input.h"
#include "io/unicode.h"

namespace glm {
namespace {

constexpr int kHistoryLines = 1000;

// libedit measures and draws characters as the locale says.
void use_utf8() {
  std::setlocale(LC_CTYPE, "");
  if (std::strcmp(::nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
}

std::FILE* stream(int fd, const char* mode) { return ::fdopen(::dup(fd), mode); }

}  // namespace

struct LineEditor::Impl {
  Impl(const ChatTerminal& of, InputBytes& from);
  ~Impl();

  static Impl& of(EditLine* editor);
  static int next_key(EditLine* editor, wchar_t* key);
  static wchar_t* show_prompt(EditLine* editor) { return of(editor).prompt.data(); }
  int read_key(wchar_t* key);

  const ChatTerminal& terminal;
  InputBytes& bytes;
  std::FILE* in;
  std::FILE* out;
  EditLine* editor;
  HistoryW* history;
  std::wstring prompt;
  bool interrupted = false;
};

LineEditor::Impl::Impl(const ChatTerminal& on, InputBytes& from)
    : terminal(on), bytes(from), in(stream(on.fd(), "r")), out(stream(on.fd(), "w")) {
  use_utf8();
  editor = ::el_init("glm_infer", in, out, out);
  history = ::history_winit();
  HistEventW event;
  ::history_w(history, &event, H_SETSIZE, kHistoryLines);
  ::history_w(history, &event, H_SETUNIQUE, 1);
  ::el_wset(editor, EL_CLIENTDATA, this);
  ::el_wset(editor, EL_EDITOR, L"emacs");
  ::el_wset(editor, EL_SIGNAL, 0);
  ::el_wset(editor, EL_PROMPT, show_prompt);
  ::el_wset(editor, EL_HIST, history_w, history);
  ::el_wset(editor, EL_GETCFN, next_key);
  ::el_wset(editor, EL_SETTY, L"-d", L"-isig", nullptr);
  terminal.key_mode();
}

LineEditor::Impl::~Impl() {
  ::history_wend(history);
  ::el_end(editor);
  std::fclose(in);
  std::fclose(out);
}

LineEditor::Impl& LineEditor::Impl::of(EditLine* editor) {
  void* data = nullptr;
  ::el_wget(editor, EL_CLIENTDATA, &data);
  return *static_cast<Impl*>(data);
}

int LineEditor::Impl::next_key(EditLine* editor, wchar_t* key) { return of(editor).read_key(key); }

// One character, from as many bytes as it has. 0 ends the line.
int LineEditor::Impl::read_key(wchar_t* key) {
  std::string character;
  while (character.size() < 4) {
    char byte = 0;
    const InputBytes::Event event = bytes.next(byte);
    interrupted = event == InputBytes::Event::kInterrupt;
    if (event != InputBytes::Event::kByte) return 0;
    character += byte;
    const size_t length = utf8_length(character, 0);
    if (length > 0) {
      *key = static_cast<wchar_t>(utf8_decode(character, 0, length));
      return 1;
    }
  }
  *key = L'\xFFFD';
  return 1;
}

LineEditor::LineEditor(const ChatTerminal& terminal, InputBytes& bytes)
    : impl_(std::make_unique<Impl>(terminal, bytes)) {}

LineEditor::~LineEditor() = default;

ChatInput::Event LineEditor::read(const std::string& prompt, std::string& line) {
  impl_->prompt.assign(prompt.begin(), prompt.end());
  impl_->interrupted = false;
  int n = 0;
  const wchar_t* text = ::el_wgets(impl_->editor, &n);
  impl_->terminal.key_mode();
  if (text == nullptr || n <= 0)
    return impl_->interrupted ? ChatInput::Event::kInterrupt : ChatInput::Event::kEnd;
  for (int i = 0; i < n; ++i) append_utf8(line, static_cast<int32_t>(text[i]));
  if (line.ends_with('\n')) line.pop_back();
  HistEventW event;
  if (!line.empty()) ::history_w(impl_->history, &event, H_ENTER, text);
  return ChatInput::Event::kLine;
}

}  // namespace glm
