// Reading base64 tokens with ranks, and writing them as byte-level BPE. SPDX-License-Identifier:
// MIT
#include "io/tiktoken.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "io/bpe.h"

namespace glm {
namespace {

constexpr size_t kMaxTokenBytes = 1024;             // the longest known are runs of 128 blanks
constexpr size_t kMaxJsonBytes = size_t{64} << 20;  // four times what the largest known take

// The pattern of GLM-4 and later; the file itself does not hold it.
constexpr std::string_view kPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

// Strict base64 with padding; nothing for any other text.
std::optional<std::string> from_base64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  std::string out;
  uint32_t bits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t digit = i < text.size() - padding ? kAlphabet.find(text[i]) : 0;
    if (digit == std::string_view::npos) return std::nullopt;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    if (i % 4 != 3) continue;
    for (const int shift : {16, 8, 0}) out += static_cast<char>(bits >> shift & 0xFF);
    bits = 0;
  }
  out.resize(out.size() - padding);
  return out;
}

struct RankedToken {
  std::string bytes;
  int32_t rank = 0;
};

std::optional<RankedToken> parse_line(std::string_view line) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  const auto bytes = from_base64(line.substr(0, space));
  RankedToken token;
  const char* const end = line.data() + line.size();
  const auto [stop, error] = std::from_chars(line.data() + space + 1, end, token.rank);
  if (!bytes || error != std::errc() || stop != end || line[space + 1] == '-') return std::nullopt;
  token.bytes = *bytes;
  return token;
}

// Bytes to the place in the list of tokens, which is in the order of ranks.
using Places = std::unordered_map<std::string_view, size_t>;

// All tokens by rank.
std::vector<RankedToken> read_tokens(std::string_view text, const std::string& source) {
  std::vector<RankedToken> tokens;
  int64_t number = 0;
  while (!text.empty()) {
    ++number;
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    auto token = parse_line(line);
    if (!token)
      fail(ExitCode::kModelFile,
           "{}:{}: expected a base64 token, a blank and its rank, found {}",
           escaped(source),
           number,
           escaped(line, 60));
    if (token->bytes.size() > kMaxTokenBytes || token->rank > kMaxTokenId)
      fail(ExitCode::kModelFile,
           "{}:{}: a token of {} bytes with rank {}; at most {} bytes and rank {} are accepted",
           escaped(source),
           number,
           token->bytes.size(),
           token->rank,
           kMaxTokenBytes,
           kMaxTokenId);
    tokens.push_back(*std::move(token));
  }
  std::ranges::sort(tokens, {}, &RankedToken::rank);
  const auto same = std::ranges::adjacent_find(tokens, {}, &RankedToken::rank);
  if (same != tokens.end())
    fail(ExitCode::kModelFile, "{}: rank {} has two tokens", escaped(source), same->rank);
  return tokens;
}

Places places_of(const std::vector<RankedToken>& tokens, const std::string& source) {
  Places places;
  places.reserve(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i)
    if (const auto [at, fresh] = places.emplace(tokens[i].bytes, i); !fresh)
      fail(ExitCode::kModelFile,
           "{}: token {} has two ranks, {} and {}",
           escaped(source),
           escaped(tokens[i].bytes, 40),
           tokens[at->second].rank,
           tokens[i].rank);
  return places;
}

// `spelled`: the tokens as JSON strings.
void append_merges(std::string& out,
                   std::string_view bytes,
                   const Places& places,
                   const std::vector<std::string>& spelled) {
  std::vector<std::pair<size_t, size_t>> halves;
  for (size_t cut = 1; cut < bytes.size(); ++cut) {
    const auto left = places.find(bytes.substr(0, cut));
    if (left == places.end()) continue;
    const auto right = places.find(bytes.substr(cut));
    if (right != places.end()) halves.emplace_back(left->second, right->second);
  }
  std::ranges::sort(halves);
  for (const auto& [left, right] : halves) {
    out += out.ends_with('[') ? "\n[" : ",\n[";
    out += spelled[left];
    out += ", ";
    out += spelled[right];
    out += ']';
  }
}

// The list of a tokenizer.json out of {"ID": {"content": ..., ...}, ...}.
Json added_tokens(const OrderedJson& added, const std::string& source) {
  const std::string where = escaped(source) + ": added_tokens_decoder";
  if (!added.is_object()) fail(ExitCode::kModelFile, "{}: expected an object", where);
  std::map<int32_t, Json> by_id;
  for (const auto& [key, value] : added.items()) {
    int32_t id = 0;
    const auto [stop, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || stop != key.data() + key.size() || id < 0 || id > kMaxTokenId)
      fail(ExitCode::kModelFile, "{}: \"{}\" is no id", where, escaped(key, 40));
    const auto content = value.is_object() ? value.find("content") : value.end();
    if (!value.is_object() || content == value.end() || !content->is_string())
      fail(ExitCode::kModelFile, "{}.{}: expected an object with content", where, id);
    Json token = {{"id", id}, {"content", content->get<std::string>()}};
    for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized", "special"}) {
      const auto at = value.find(flag);
      if (at != value.end() && !at->is_boolean())
        fail(ExitCode::kModelFile, "{}.{}.{}: expected true or false", where, id, flag);
      token[flag] = at != value.end() && at->get<bool>();
    }
    by_id[id] = std::move(token);
  }
  Json list = Json::array();
  for (auto& [id, token] : by_id) list.push_back(std::move(token));
  return list;
}

// [gMASK] <sop> before the text.
Json post_processor(const Json& added) {
  Json single = Json::array();
  Json special = Json::object();
  for (const char* name : {"[gMASK]", "<sop>"}) {
    const auto at = std::find_if(
        added.begin(), added.end(), [&](const Json& token) { return token["content"] == name; });
    if (at == added.end()) return nullptr;
    single.push_back({{"SpecialToken", {{"id", name}, {"type_id", 0}}}});
    special[name] = {{"id", name}, {"ids", {(*at)["id"]}}, {"tokens", {name}}};
  }
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  Json pair = single;
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", special}};
}

Json pre_tokenizer() {
  const Json split = {{"type", "Split"},
                      {"pattern", {{"Regex", kPattern}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  const Json bytes = {{"type", "ByteLevel"},
                      {"add_prefix_space", false},
                      {"trim_offsets", true},
                      {"use_regex", false}};
  return {{"type", "Sequence"}, {"pretokenizers", Json::array({split, bytes})}};
}

}  // namespace

bool is_tiktoken(std::string_view text) {
  std::string_view line = text.substr(0, std::min(text.find('\n'), text.size()));
  if (line.ends_with('\r')) line.remove_suffix(1);
  return parse_line(line).has_value();
}

std::string tiktoken_to_json(std::string_view text,
                             const std::string& source,
                             const OrderedJson& added,
                             const std::string& added_source) {
  const std::vector<RankedToken> tokens = read_tokens(text, source);
  const Places places = places_of(tokens, source);
  std::vector<std::string> spelled;
  for (const RankedToken& token : tokens)
    spelled.push_back(Json(byte_level_spelling(token.bytes)).dump());
  const Json list = added_tokens(added, added_source);
  const Json decoder = {{"type", "ByteLevel"},
                        {"add_prefix_space", true},
                        {"trim_offsets", true},
                        {"use_regex", true}};
  std::string out = fmt::format(
      "{{\"version\": \"1.0\", \"truncation\": null, \"padding\": null,\n\"added_tokens\": {},\n"
      "\"normalizer\": null,\n\"pre_tokenizer\": {},\n\"post_processor\": {},\n\"decoder\": {},\n"
      "\"model\": {{\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
      "\"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, \"fuse_unk\": false, "
      "\"byte_fallback\": false, \"ignore_merges\": true,\n\"vocab\": {{",
      list.dump(),
      pre_tokenizer().dump(),
      post_processor(list).dump(),
      decoder.dump());
  for (size_t i = 0; i < tokens.size(); ++i)
    out += fmt::format("{}{}: {}", i == 0 ? "\n" : ",\n", spelled[i], tokens[i].rank);
  out += "\n},\n\"merges\": [";
  for (const RankedToken& token : tokens) {
    append_merges(out, token.bytes, places, spelled);
    if (out.size() > kMaxJsonBytes)
      fail(ExitCode::kModelFile,
           "{}: its merges take more than {} bytes",
           escaped(source),
           kMaxJsonBytes);
  }
  return out + "\n]}}\n";
}

}  // namespace glm
