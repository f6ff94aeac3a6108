// Byte-pair encoding: reading the vocabulary, and merging with a heap over a linked list.
// SPDX-License-Identifier: MIT
#include "io/bpe.h"

#include <algorithm>
#include <queue>

#include "io/unicode.h"

namespace glm {
namespace {

// The alphabet of GPT-2: printable bytes stand for themselves, the other 68 are U+0100 and up in
// order.
std::array<int32_t, 256> byte_alphabet() {
  std::array<int32_t, 256> alphabet{};
  int32_t next = 0x100;
  for (int32_t byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    alphabet[static_cast<size_t>(byte)] = printable ? byte : next++;
  }
  return alphabet;
}

// Bytes of a token as it is spelled; a token with a character outside the alphabet is its own
// UTF-8, as in the reference decoder.
std::string bytes_of(std::string_view spelling, const std::unordered_map<int32_t, char>& bytes) {
  std::string out;
  for (size_t at = 0; at < spelling.size();) {
    const size_t length = std::max<size_t>(utf8_length(spelling, at), 1);
    const auto found = bytes.find(utf8_decode(spelling, at, length));
    if (found == bytes.end()) return std::string(spelling);
    out += found->second;
    at += length;
  }
  return out;
}

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

void refuse_flag(const Json& model, std::string_view key, const std::string& source) {
  const auto found = model.find(key);
  if (found == model.end() || found->is_null() || *found == Json(false) || *found == Json(""))
    return;
  fail(ExitCode::kModelFile, "{}: model.{} {} is unsupported", source, key, escaped(found->dump()));
}

}  // namespace

std::string byte_level_spelling(std::string_view bytes) {
  static const std::array<int32_t, 256> alphabet = byte_alphabet();
  std::string out;
  for (const char byte : bytes) append_utf8(out, alphabet[static_cast<unsigned char>(byte)]);
  return out;
}

int32_t token_id_of(const Json& value, const std::string& field) {
  if (!value.is_number_integer() || value.get<int64_t>() < 0 || value.get<int64_t>() > kMaxTokenId)
    fail(ExitCode::kModelFile,
         "{}: id {} is not an integer from 0 to {}",
         field,
         escaped(value.dump(-1, ' ', true, Json::error_handler_t::replace), 40),
         kMaxTokenId);
  return value.get<int32_t>();
}

Bpe::Bpe(const Json& model, const std::string& source) : source_(source) {
  if (!model.is_object()) fail(ExitCode::kModelFile, "{}: model: expected an object", source);
  const auto type = model.find("type");
  if (type != model.end() && *type != Json("BPE"))
    fail(ExitCode::kModelFile, "{}: model.type {} is unsupported", source, escaped(type->dump()));
  for (const char* key : {"dropout",
                          "unk_token",
                          "continuing_subword_prefix",
                          "end_of_word_suffix",
                          "fuse_unk",
                          "byte_fallback"})
    refuse_flag(model, key, source);
  const auto ignore = model.find("ignore_merges");
  ignore_merges_ = ignore != model.end() && *ignore == Json(true);
  const auto vocab = model.find("vocab");
  if (vocab == model.end() || !vocab->is_object())
    fail(ExitCode::kModelFile, "{}: model.vocab: expected an object", source);
  read_vocab(*vocab);
  const auto merges = model.find("merges");
  if (merges == model.end() || !merges->is_array())
    fail(ExitCode::kModelFile, "{}: model.merges: expected an array", source);
  read_merges(*merges);
}

void Bpe::read_vocab(const Json& vocab) {
  const std::array<int32_t, 256> alphabet = byte_alphabet();
  std::unordered_map<int32_t, char> bytes;
  for (size_t byte = 0; byte < alphabet.size(); ++byte)
    bytes.emplace(alphabet[byte], static_cast<char>(byte));
  const std::string field = source_ + ": model.vocab";
  vocab_.reserve(vocab.size());
  spelling_.reserve(vocab.size());
  for (const auto& [token, value] : vocab.items()) {
    const int32_t id = token_id_of(value, fmt::format("{}: {}", field, escaped(token, 40)));
    const auto [entry, fresh] = vocab_.emplace(bytes_of(token, bytes), id);
    if (!fresh)
      fail(ExitCode::kModelFile, "{}: {} spells the bytes of another", field, escaped(token, 40));
    if (!tokens_.emplace(id, entry->first).second)
      fail(ExitCode::kModelFile, "{}: id {} has two tokens", field, id);
    spelling_.emplace(token, id);
  }
  for (size_t byte = 0; byte < byte_ids_.size(); ++byte) {
    const int32_t* id = find(std::string(1, static_cast<char>(byte)));
    if (id == nullptr) fail(ExitCode::kModelFile, "{}: no token for byte 0x{:02X}", field, byte);
    byte_ids_[byte] = *id;
  }
}

int32_t Bpe::spelled_id(std::string_view spelling, size_t index) const {
  const auto found = spelling_.find(std::string(spelling));
  if (found == spelling_.end())
    fail(ExitCode::kModelFile,
         "{}: model.merges[{}]: {} is not in the vocabulary",
         source_,
         index,
         escaped(spelling, 40));
  return found->second;
}

void Bpe::add_merge(const Json& merge, size_t index) {
  std::string left;
  std::string right;
  if (merge.is_string()) {
    const auto& text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      left = text.substr(0, space);
      right = text.substr(space + 1);
    }
  } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
             merge[1].is_string()) {
    left = merge[0].get<std::string>();
    right = merge[1].get<std::string>();
  }
  if (left.empty() || right.empty())
    fail(ExitCode::kModelFile,
         "{}: model.merges[{}]: expected \"a b\" or [\"a\", \"b\"]",
         source_,
         index);
  const uint64_t key = pair_key(spelled_id(left, index), spelled_id(right, index));
  merges_[key] = {static_cast<int32_t>(index), spelled_id(left + right, index)};
}

void Bpe::read_merges(const Json& merges) {
  // Files of old begin with a version line.
  const bool has_version = !merges.empty() && merges[0].is_string() &&
                           merges[0].get_ref<const std::string&>().rfind("#version", 0) == 0;
  merges_.reserve(merges.size());
  for (size_t i = has_version ? 1 : 0; i < merges.size(); ++i) add_merge(merges[i], i);
  spelling_.clear();
}

const int32_t* Bpe::find(std::string_view bytes) const {
  const auto found = vocab_.find(std::string(bytes));
  return found == vocab_.end() ? nullptr : &found->second;
}

const Bpe::Merge* Bpe::merge_of(int32_t left, int32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void Bpe::encode(std::string_view piece, std::vector<int32_t>& out) const {
  if (piece.size() == 1 || ignore_merges_) {
    if (const int32_t* id = find(piece)) {
      out.push_back(*id);
      return;
    }
  }
  struct Symbol {
    int32_t id;  // -1: merged into its left neighbour
    int64_t previous;
    int64_t next;  // -1: none
  };
  struct Candidate {
    int32_t rank;
    int64_t position;
    int32_t id;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  const auto count = static_cast<int64_t>(piece.size());
  std::vector<Symbol> symbols(piece.size());
  for (int64_t i = 0; i < count; ++i)
    symbols[i] = {
        byte_ids_[static_cast<uint8_t>(piece[i])], i - 1, i + 1 < count ? i + 1 : int64_t{-1}};
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto propose = [&](int64_t position) {
    if (position < 0 || symbols[position].next < 0) return;
    if (const Merge* merge = merge_of(symbols[position].id, symbols[symbols[position].next].id))
      queue.push({merge->rank, position, merge->id});
  };
  for (int64_t i = 0; i + 1 < count; ++i) propose(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[best.position];
    if (left.id < 0 || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    const Merge* merge = merge_of(left.id, right.id);
    if (merge == nullptr || merge->rank != best.rank) continue;  // a neighbour changed meanwhile
    left.id = merge->id;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = best.position;
    propose(left.previous);
    propose(best.position);
  }
  for (const Symbol& symbol : symbols)
    if (symbol.id >= 0) out.push_back(symbol.id);
}

}  // namespace glm
