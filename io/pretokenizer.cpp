// The pre_tokenizer of tokenizer.json. Patterns are written for Oniguruma; where PCRE2 means
// something else by the same letters they are translated or refused. SPDX-License-Identifier: MIT
#include "io/pretokenizer.h"

#include <algorithm>
#include <chrono>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "io/unicode.h"

namespace glm {
namespace {

// Backtracking steps of one match. Splitting a megabyte of spaces takes one step for each.
constexpr uint32_t kMatchLimit = 20'000'000;
constexpr uint32_t kHeapLimitKib = 512 * 1024;
constexpr size_t kJitStackBytes = size_t{8} << 20;
// For patterns that stay below the limit of one match at every position of a long text.
constexpr std::chrono::seconds kSplitDeadline{20};
// Anchored: each call tries one position, so that the work of a call is bounded. In Oniguruma ^ and
// $ are those of lines.
constexpr uint32_t kCompileOptions =
    PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
constexpr size_t kMaxPatternBytes = 64 * 1024;

// The split of GPT-2, which a ByteLevel with use_regex stands for.
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

constexpr std::string_view kWord = R"(\p{L}\p{M}\p{N}\p{Pc})";

// White space is the Unicode property (PCRE2's \s adds U+180E), a word character may be a mark
// (PCRE2's may not). Set operations and nested sets exist only in Oniguruma.
std::string translated(std::string_view pattern, const std::string& where) {
  const auto refuse = [&](std::string_view what) {
    fail(ExitCode::kModelFile, "{}: unsupported in a pattern: {}", where, escaped(what));
  };
  std::string out;
  bool in_set = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char next = pattern[++i];
      if (next == 's' || next == 'S') {
        out += next == 's' ? R"(\p{White_Space})" : R"(\P{White_Space})";
      } else if (next == 'w') {
        out += in_set ? std::string(kWord) : fmt::format("[{}]", kWord);
      } else if (next == 'W' && !in_set) {
        out += fmt::format("[^{}]", kWord);
      } else if (std::string_view("WbBhHKGgkRXyYoQE").find(next) != std::string_view::npos) {
        refuse(pattern.substr(i - 1, 2));
      } else {
        out += c;
        out += next;
      }
      continue;
    }
    if (in_set && c == '[') refuse("a set within a set");
    if (in_set && c == '&' && pattern.substr(i, 2) == "&&") refuse("&&");
    if (!in_set && pattern.substr(i, 2) == "(*") refuse("(*");
    if (!in_set && c == '[') {
      in_set = true;
      out += c;
      if (pattern.substr(i + 1, 1) == "^") out += pattern[++i];
      continue;
    }
    if (c == ']') in_set = false;
    out += c;
  }
  return out;
}

std::string quoted_literal(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view(R"(\^$.|?*+()[]{}-/#& )").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

std::string pcre2_message(int code) {
  std::string buffer(256, '\0');
  const int length =
      pcre2_get_error_message(code, reinterpret_cast<PCRE2_UCHAR*>(buffer.data()), buffer.size());
  buffer.resize(length > 0 ? static_cast<size_t>(length) : 0);
  return buffer;
}

PCRE2_SPTR as_subject(std::string_view text) {
  return reinterpret_cast<PCRE2_SPTR>(text.empty() ? "" : text.data());
}

}  // namespace

struct Pretokenizer::Pattern {
  struct FreeCode {
    void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  };
  struct FreeContext {
    void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  };
  struct FreeStack {
    void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
  };
  struct FreeData {
    void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  };

  Pattern(std::string_view pattern, const std::string& field) : where(field) {
    if (pattern.size() > kMaxPatternBytes)
      fail(ExitCode::kModelFile, "{}: pattern of {} bytes is too long", field, pattern.size());
    const std::string text = translated(pattern, field);
    int error = 0;
    PCRE2_SIZE offset = 0;
    code.reset(
        pcre2_compile(as_subject(text), text.size(), kCompileOptions, &error, &offset, nullptr));
    if (!code)
      fail(ExitCode::kModelFile,
           "{}: pattern is refused at byte {}: {}",
           field,
           offset,
           pcre2_message(error));
    // Without JIT support the interpreter does the same work.
    has_jit = pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE) == 0;
  }

  // Appends the pieces of `text`, which is UTF-8.
  void split(std::string_view text, std::vector<std::string_view>& out) const;
  int match(std::string_view text,
            size_t at,
            pcre2_match_data* data,
            pcre2_match_context* context) const;

  std::string where;
  std::unique_ptr<pcre2_code, FreeCode> code;
  bool has_jit = false;
};

int Pretokenizer::Pattern::match(std::string_view text,
                                 size_t at,
                                 pcre2_match_data* data,
                                 pcre2_match_context* context) const {
  int rc = PCRE2_ERROR_JIT_STACKLIMIT;
  if (has_jit)
    rc = pcre2_jit_match(
        code.get(), as_subject(text), text.size(), at, PCRE2_NO_UTF_CHECK, data, context);
  if (rc == PCRE2_ERROR_JIT_STACKLIMIT)  // the interpreter keeps its stack on the heap
    rc = pcre2_match(code.get(),
                     as_subject(text),
                     text.size(),
                     at,
                     PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                     data,
                     context);
  if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
    fail(ExitCode::kModelFile,
         "{}: pattern gives up at byte {} of {}: {}",
         where,
         at,
         text.size(),
         pcre2_message(rc));
  return rc;
}

void Pretokenizer::Pattern::split(std::string_view text, std::vector<std::string_view>& out) const {
  const std::unique_ptr<pcre2_match_data, FreeData> data(
      pcre2_match_data_create_from_pattern(code.get(), nullptr));
  const std::unique_ptr<pcre2_match_context, FreeContext> context(
      pcre2_match_context_create(nullptr));
  const std::unique_ptr<pcre2_jit_stack, FreeStack> stack(
      pcre2_jit_stack_create(32 * 1024, kJitStackBytes, nullptr));
  GLM_CHECK(data && context && stack, "PCRE2 is out of memory");
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_heap_limit(context.get(), kHeapLimitKib);
  pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  const auto start = std::chrono::steady_clock::now();

  size_t done = 0;      // everything before is in `out`
  size_t last_end = 0;  // of the last match; an empty one there does not count
  size_t at = 0;
  bool matched_once = false;
  for (size_t calls = 1; at <= text.size() && !text.empty(); ++calls) {
    if (calls % 64 == 0 && std::chrono::steady_clock::now() - start > kSplitDeadline)
      fail(ExitCode::kModelFile, "{}: pattern takes too long on {} bytes", where, text.size());
    const bool matched = match(text, at, data.get(), context.get()) >= 0;
    const size_t end = matched ? pcre2_get_ovector_pointer(data.get())[1] : at;
    // An empty match cuts, but not where the last match ended.
    if (matched && (end > at || at != last_end || !matched_once)) {
      if (at > done) out.push_back(text.substr(done, at - done));
      if (end > at) out.push_back(text.substr(at, end - at));
      done = last_end = std::max(at, end);
      matched_once = true;
    }
    at = end > at ? end : at + (at < text.size() ? std::max<size_t>(utf8_length(text, at), 1) : 1);
  }
  if (done < text.size()) out.push_back(text.substr(done));
}

Pretokenizer::Pretokenizer(const Json& spec, const std::string& source) : source_(source) {
  const std::string field = source + ": pre_tokenizer";
  add(spec, field);
  if (!byte_level_)
    fail(ExitCode::kModelFile, "{}: no ByteLevel; only byte-level models are supported", field);
}

Pretokenizer::~Pretokenizer() = default;
Pretokenizer::Pretokenizer(Pretokenizer&&) noexcept = default;
Pretokenizer& Pretokenizer::operator=(Pretokenizer&&) noexcept = default;

void Pretokenizer::add(const Json& spec, const std::string& field) {
  const std::string type = json_string(spec, "type", field, ExitCode::kModelFile);
  if (byte_level_)
    fail(ExitCode::kModelFile, "{}: {} after ByteLevel is unsupported", field, escaped(type));
  if (type == "Sequence") {
    const auto members = spec.find("pretokenizers");
    if (members == spec.end() || !members->is_array())
      fail(ExitCode::kModelFile, "{}: pretokenizers: expected an array", field);
    for (const Json& member : *members) add(member, field);
  } else if (type == "ByteLevel") {
    if (spec.value("add_prefix_space", Json(true)) != Json(false))
      fail(ExitCode::kModelFile, "{}: ByteLevel with add_prefix_space is unsupported", field);
    if (spec.value("use_regex", Json(true)) != Json(false))
      patterns_.push_back(std::make_unique<Pattern>(kGpt2Pattern, field));
    byte_level_ = true;
  } else if (type == "Split") {
    add_split(spec, field);
  } else {
    fail(ExitCode::kModelFile, "{}: type {} is unsupported", field, escaped(type));
  }
}

void Pretokenizer::add_split(const Json& spec, const std::string& field) {
  const std::string behavior = json_string(spec, "behavior", field, ExitCode::kModelFile);
  if (behavior != "Isolated" || spec.value("invert", Json(false)) != Json(false))
    fail(ExitCode::kModelFile,
         "{}: Split with behavior {} is unsupported unless Isolated and not inverted",
         field,
         escaped(behavior));
  const auto pattern = spec.find("pattern");
  if (pattern == spec.end() || !pattern->is_object())
    fail(ExitCode::kModelFile, "{}: Split: pattern: expected an object", field);
  if (json_has(*pattern, "Regex")) {
    patterns_.push_back(std::make_unique<Pattern>(
        json_string(*pattern, "Regex", field, ExitCode::kModelFile), field));
  } else {
    patterns_.push_back(std::make_unique<Pattern>(
        quoted_literal(json_string(*pattern, "String", field, ExitCode::kModelFile)), field));
  }
}

std::vector<std::string_view> Pretokenizer::split(std::string_view text) const {
  std::vector<std::string_view> pieces;
  size_t begin = 0;
  while (begin < text.size()) {
    size_t end = begin;
    const bool valid = utf8_length(text, begin) > 0;
    while (end < text.size() && (utf8_length(text, end) > 0) == valid)
      end += std::max<size_t>(utf8_length(text, end), 1);
    const std::string_view segment = text.substr(begin, end - begin);
    begin = end;
    std::vector<std::string_view> parts{segment};
    for (size_t i = 0; valid && i < patterns_.size(); ++i) {
      std::vector<std::string_view> finer;
      for (const std::string_view part : parts) patterns_[i]->split(part, finer);
      parts = std::move(finer);
    }
    pieces.insert(pieces.end(), parts.begin(), parts.end());
  }
  return pieces;
}

}  // namespace glm
