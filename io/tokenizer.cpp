// tokenizer.json as a whole: which parts are supported, cutting out control tokens, normalising,
// splitting and merging the text between them, and decoding. SPDX-License-Identifier: MIT
#include "io/tokenizer.h"

#include <algorithm>

#include "io/added_tokens.h"
#include "io/bpe.h"
#include "io/json.h"
#include "io/pretokenizer.h"
#include "io/unicode.h"

namespace glm {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{200} << 20;

const Json& member(const Json& object, const char* key) {
  static const Json absent;
  const auto found = object.find(key);
  return found == object.end() ? absent : *found;
}

// Only the normal form C is known; a Sequence of them is the same.
bool wants_nfc(const Json& normalizer, const std::string& source, int depth = 0) {
  if (normalizer.is_null()) return false;
  const std::string field = source + ": normalizer";
  const std::string type = json_string(normalizer, "type", field, ExitCode::kModelFile);
  if (type == "NFC") return true;
  const Json& members = member(normalizer, "normalizers");
  if (type != "Sequence" || !members.is_array() || depth > 4)
    fail(ExitCode::kModelFile, "{}: type {} is unsupported", field, escaped(type));
  bool nfc = false;
  for (const Json& entry : members) nfc |= wants_nfc(entry, source, depth + 1);
  return nfc;
}

// Ids that a TemplateProcessing puts before the text. Anything behind it is refused: a prompt that
// is to be continued cannot have it.
void read_template(const Json& processor, const std::string& field, std::vector<int32_t>& prefix) {
  const Json& single = member(processor, "single");
  if (!single.is_array()) fail(ExitCode::kModelFile, "{}: single: expected an array", field);
  bool text_seen = false;
  for (const Json& part : single) {
    if (part.is_object() && part.contains("Sequence")) {
      text_seen = true;
      continue;
    }
    if (text_seen || !part.is_object() || !member(part, "SpecialToken").is_object())
      fail(ExitCode::kModelFile,
           "{}: single: {} is unsupported",
           field,
           text_seen ? "a token behind the text" : "a part of this kind");
    const std::string name = json_string(part["SpecialToken"], "id", field, ExitCode::kModelFile);
    const Json& tokens = member(processor, "special_tokens");
    const Json& ids = tokens.is_object() && tokens.contains(name) && tokens[name].is_object()
                          ? member(tokens[name], "ids")
                          : Json();
    if (!ids.is_array())
      fail(ExitCode::kModelFile, "{}: special_tokens has no ids for {}", field, escaped(name));
    for (const Json& id : ids) prefix.push_back(token_id_of(id, field));
  }
}

void read_post_processor(const Json& processor,
                         const std::string& source,
                         std::vector<int32_t>& prefix,
                         int depth = 0) {
  if (processor.is_null()) return;
  const std::string field = source + ": post_processor";
  const std::string type = json_string(processor, "type", field, ExitCode::kModelFile);
  if (type == "ByteLevel") return;  // changes offsets only
  if (type == "TemplateProcessing") return read_template(processor, field, prefix);
  const Json& members = member(processor, "processors");
  if (type != "Sequence" || !members.is_array() || depth > 4)
    fail(ExitCode::kModelFile, "{}: type {} is unsupported", field, escaped(type));
  for (const Json& entry : members) read_post_processor(entry, source, prefix, depth + 1);
}

bool recognised(const AddedToken& token, Origin origin) {
  switch (origin) {
    case Origin::kTemplate:
      return true;
    case Origin::kUser:
      return token.content == "/nothink";
    case Origin::kAssistant:
      return token.content == "<think>" || token.content == "</think>" ||
             token.content == "/nothink";
    case Origin::kPlain:
      return false;
  }
  return false;
}

// Text with tokens cut out of it, in order.
struct Cut {
  size_t begin;
  size_t end;
  int32_t id;
};

}  // namespace

struct Tokenizer::Impl {
  Impl(const Json& file, const std::string& source)
      : bpe(member(file, "model"), source),
        added(member(file, "added_tokens"), source),
        splitter(member(file, "pre_tokenizer"), source),
        nfc(wants_nfc(member(file, "normalizer"), source)) {
    read_post_processor(member(file, "post_processor"), source, prefix);
    const Json& decoder = member(file, "decoder");
    if (!decoder.is_null() && member(decoder, "type") != Json("ByteLevel"))
      fail(ExitCode::kModelFile,
           "{}: decoder {} is unsupported",
           source,
           escaped(member(decoder, "type").dump()));
    collect_tokens(source);
    for (const int32_t id : prefix)
      if (id >= static_cast<int32_t>(tokens.size()))
        fail(ExitCode::kModelFile, "{}: post_processor: id {} is no token", source, id);
  }

  void collect_tokens(const std::string& source);
  // Cuts of all runs, by provenance; `joined` is their text.
  std::vector<Cut> cut(const Text& text, bool normalized) const;
  void encode_gap(std::string_view gap, std::vector<int32_t>& out) const;
  std::vector<int32_t> encode(const Text& text) const;

  Bpe bpe;
  AddedTokens added;
  Pretokenizer splitter;
  bool nfc;
  std::vector<int32_t> prefix;
  std::vector<std::string_view> tokens;  // bytes by id; empty in gaps
  std::vector<bool> special;
};

void Tokenizer::Impl::collect_tokens(const std::string& source) {
  int32_t largest = -1;
  for (const auto& [id, bytes] : bpe.tokens()) largest = std::max(largest, id);
  for (const AddedToken& token : added.tokens()) largest = std::max(largest, token.id);
  tokens.resize(static_cast<size_t>(largest) + 1);
  special.resize(tokens.size());
  for (const auto& [id, bytes] : bpe.tokens()) tokens[static_cast<size_t>(id)] = bytes;
  for (const AddedToken& token : added.tokens()) {
    const int32_t* in_vocab = bpe.find(token.content);
    std::string_view& slot = tokens[static_cast<size_t>(token.id)];
    if ((in_vocab != nullptr && *in_vocab != token.id) || (!slot.empty() && slot != token.content))
      fail(ExitCode::kModelFile,
           "{}: added token {} and the vocabulary disagree about id {}",
           source,
           escaped(token.content, 40),
           token.id);
    if (nfc && token.normalized)
      fail(ExitCode::kModelFile,
           "{}: added token {}: normalized together with a normalizer is unsupported",
           source,
           escaped(token.content, 40));
    slot = token.content;
    special[static_cast<size_t>(token.id)] = token.special;
  }
}

std::vector<Cut> Tokenizer::Impl::cut(const Text& text, bool normalized) const {
  std::vector<Cut> cuts;
  size_t offset = 0;
  for (const TextRun& run : text) {
    const auto filter = [&](const AddedToken& token) { return recognised(token, run.origin); };
    size_t at = 0;
    while (run.origin != Origin::kPlain && at < run.text.size()) {
      const AddedTokens::Match match = added.next(run.text, at, normalized, filter);
      if (match.token == nullptr) break;
      at = match.begin + match.token->content.size();
      cuts.push_back({offset + match.begin, offset + at, match.token->id});
    }
    offset += run.text.size();
  }
  return cuts;
}

void Tokenizer::Impl::encode_gap(std::string_view gap, std::vector<int32_t>& out) const {
  if (gap.empty()) return;
  std::string normal;
  if (nfc) {
    // Bytes that are not UTF-8 stay as they are between the normalised parts.
    for (size_t begin = 0; begin < gap.size();) {
      const bool valid = utf8_length(gap, begin) > 0;
      size_t end = begin;
      while (end < gap.size() && (utf8_length(gap, end) > 0) == valid)
        end += std::max<size_t>(utf8_length(gap, end), 1);
      const std::string_view part = gap.substr(begin, end - begin);
      normal += valid ? to_nfc(part) : std::string(part);
      begin = end;
    }
    gap = normal;
  }
  for (const std::string_view piece : splitter.split(gap)) bpe.encode(piece, out);
}

std::vector<int32_t> Tokenizer::Impl::encode(const Text& text) const {
  std::string joined;
  for (const TextRun& run : text) joined += run.text;
  // Tokens to be found in the raw text go first; the others may not overlap them.
  std::vector<Cut> cuts = cut(text, false);
  const bool has_late = std::any_of(added.tokens().begin(),
                                    added.tokens().end(),
                                    [](const AddedToken& token) { return token.normalized; });
  if (has_late) {
    Text rest;
    std::vector<size_t> starts;  // of each part of `rest`, in `joined`
    size_t offset = 0;
    size_t next = 0;
    for (const TextRun& run : text) {
      size_t at = offset;
      const size_t run_end = offset + run.text.size();
      while (at < run_end) {
        while (next < cuts.size() && cuts[next].end <= at) ++next;
        const size_t end = next < cuts.size() ? std::min(cuts[next].begin, run_end) : run_end;
        rest.push_back({joined.substr(at, end - at), run.origin});
        starts.push_back(at);
        at = end < run_end ? cuts[next].end : run_end;
      }
      offset = run_end;
    }
    for (size_t i = 0; i < rest.size(); ++i)
      for (Cut late : cut({rest[i]}, true))
        cuts.push_back({late.begin + starts[i], late.end + starts[i], late.id});
    std::sort(
        cuts.begin(), cuts.end(), [](const Cut& a, const Cut& b) { return a.begin < b.begin; });
  }
  std::vector<int32_t> ids;
  size_t at = 0;
  for (const Cut& control : cuts) {
    encode_gap(std::string_view(joined).substr(at, control.begin - at), ids);
    ids.push_back(control.id);
    at = control.end;
  }
  encode_gap(std::string_view(joined).substr(at), ids);
  return ids;
}

Tokenizer::Tokenizer(std::string_view json, const std::string& source) {
  const Json file = parse_json(json, source, ExitCode::kModelFile, {kMaxFileBytes, 32});
  if (!file.is_object()) fail(ExitCode::kModelFile, "{}: expected an object", source);
  impl_ = std::make_unique<Impl>(file, source);
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool control_tokens) const {
  return impl_->encode({{std::string(text), control_tokens ? Origin::kTemplate : Origin::kPlain}});
}

std::vector<int32_t> Tokenizer::encode(const Text& text) const { return impl_->encode(text); }

std::vector<int32_t> Tokenizer::prefix() const { return impl_->prefix; }

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string out;
  for (const int32_t id : ids)
    if (!skip_special || !is_special(id)) out += token_bytes(id);
  return out;
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  return id >= 0 && id < vocab_size() ? impl_->tokens[static_cast<size_t>(id)] : "";
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocab_size() && impl_->special[static_cast<size_t>(id)];
}

std::optional<int32_t> Tokenizer::token_id(std::string_view token) const {
  if (const AddedToken* added = impl_->added.find(token)) return added->id;
  if (const int32_t* id = impl_->bpe.find(token)) return *id;
  return std::nullopt;
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(impl_->tokens.size()); }

}  // namespace glm
