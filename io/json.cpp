// Builds JSON values from nlohmann's SAX events, so that depth, duplicate keys and integer ranges
// are judged while parsing and a hostile text never becomes a value that is unsafe to copy.
// SPDX-License-Identifier: MIT
#include "io/json.h"

#include <cstring>
#include <iterator>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <vector>

#include "io/raw_file.h"

namespace glm {
namespace {

// Reads the text and tells where the lexer stands, which nlohmann's SAX events do not.
class Cursor {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  Cursor(const char* at, const char** seen) : at_(at), seen_(seen) {}
  reference operator*() const { return *at_; }
  Cursor& operator++() {
    *seen_ = ++at_;
    return *this;
  }
  Cursor operator++(int) {
    Cursor before = *this;
    ++*this;
    return before;
  }
  bool operator==(const Cursor& other) const { return at_ == other.at_; }

 private:
  const char* at_;
  const char** seen_;
};

template <class J>
class Builder {
 public:
  using number_integer_t = typename J::number_integer_t;
  using number_unsigned_t = typename J::number_unsigned_t;
  using number_float_t = typename J::number_float_t;
  using string_t = typename J::string_t;
  using binary_t = typename J::binary_t;

  explicit Builder(const JsonLimits& limits)
      : max_depth_(static_cast<size_t>(limits.max_depth)), values_left_(limits.max_values) {}

  bool null() { return put(nullptr); }
  bool boolean(bool value) { return put(value); }
  bool number_integer(number_integer_t value) { return put(value); }
  bool number_unsigned(number_unsigned_t value) { return put(value); }
  bool number_float(number_float_t value, const string_t& text) {
    // nlohmann turns integers beyond 64 bits into doubles.
    if (text.find_first_of(".eE") == string_t::npos)
      return refuse(fmt::format("the integer {} does not fit 64 bits", escaped(text, 40)));
    return put(value);
  }
  bool string(string_t& value) { return put(std::move(value)); }
  bool binary(binary_t& /*value*/) { return refuse("binary value"); }
  bool start_object(size_t /*size*/) { return open(J::value_t::object); }
  bool end_object() { return close(); }
  bool start_array(size_t /*size*/) { return open(J::value_t::array); }
  bool end_array() { return close(); }
  bool key(string_t& key) {
    auto& object = stack_.back()->template get_ref<typename J::object_t&>();
    if constexpr (std::is_same_v<J, OrderedJson>) {
      // ordered_map searches linearly; the set beside it keeps long objects affordable.
      if (!keys_.back().insert(key).second) return duplicate(key);
      object.emplace_back(std::move(key), J());
      slot_ = &object.back().second;
    } else {
      const auto [at, inserted] = object.try_emplace(std::move(key));
      if (!inserted) return duplicate(at->first);
      slot_ = &at->second;
    }
    return true;
  }
  bool parse_error(size_t /*position*/, const std::string& /*token*/, const std::exception& error) {
    const std::string_view text = error.what();
    const size_t prefix = text.find("] ");  // "[json.exception.parse_error.101] "
    return refuse(escaped(prefix == text.npos ? text : text.substr(prefix + 2), 300));
  }

  J take() { return std::move(root_); }
  const std::string& reason() const { return reason_; }

 private:
  bool refuse(std::string reason) {
    reason_ = std::move(reason);
    return false;
  }
  bool duplicate(const string_t& key) {
    return refuse(fmt::format("the key \"{}\" appears twice in one object", escaped(key)));
  }
  // Where the next value goes.
  template <class V>
  J* place(V&& value) {
    if (stack_.empty()) {
      root_ = J(std::forward<V>(value));
      return &root_;
    }
    if (stack_.back()->is_array()) {
      auto& array = stack_.back()->template get_ref<typename J::array_t&>();
      array.emplace_back(std::forward<V>(value));
      return &array.back();
    }
    *slot_ = J(std::forward<V>(value));
    return slot_;
  }
  template <class V>
  bool put(V&& value) {
    if (--values_left_ < 0) return refuse("too many values");
    place(std::forward<V>(value));
    return true;
  }
  bool open(typename J::value_t type) {
    if (stack_.size() >= max_depth_)
      return refuse(fmt::format("nested deeper than {} levels", max_depth_));
    if (--values_left_ < 0) return refuse("too many values");
    stack_.push_back(place(type));
    if constexpr (std::is_same_v<J, OrderedJson>) keys_.emplace_back();
    return true;
  }
  bool close() {
    stack_.pop_back();
    if constexpr (std::is_same_v<J, OrderedJson>) keys_.pop_back();
    return true;
  }

  size_t max_depth_;
  int64_t values_left_;
  J root_;
  // Containers that are open. A container grows only while it is the last one, so these stay valid.
  std::vector<J*> stack_;
  J* slot_ = nullptr;                                  // value of the key read last
  std::vector<std::unordered_set<std::string>> keys_;  // of the open containers; OrderedJson only
  std::string reason_;
};

template <class J>
J parse(std::string_view text, const std::string& source, ExitCode code, const JsonLimits& limits) {
  if (static_cast<int64_t>(text.size()) > limits.max_bytes)
    fail(code,
         "{}: {} bytes of JSON where at most {} are accepted",
         escaped(source),
         text.size(),
         limits.max_bytes);
  if (text.starts_with("\xEF\xBB\xBF"))
    fail(code, "{}: not JSON: byte order mark at byte 0; remove it", escaped(source));
  // nlohmann takes a NUL for the end of the text and would not see what follows.
  if (const size_t nul = text.find('\0'); nul != text.npos)
    fail(code, "{}: not JSON: NUL at byte {}", escaped(source), nul);
  const char* seen = text.data();
  Builder<J> builder(limits);
  if (!J::sax_parse(Cursor(text.data(), &seen), Cursor(text.data() + text.size(), &seen), &builder))
    fail(code,
         "{}: not acceptable JSON at byte {}: {}",
         escaped(source),
         seen - text.data(),
         builder.reason());
  return builder.take();
}

const Json& member(const Json& object,
                   std::string_view key,
                   const char* expected,
                   const std::string& source,
                   ExitCode code) {
  if (!object.is_object())
    fail(code,
         "{}: {}: expected an object that holds it, found {}",
         escaped(source),
         escaped(key),
         object.type_name());
  const auto at = object.find(std::string(key));
  if (at == object.end())
    fail(code, "{}: {}: expected {}, found nothing", escaped(source), escaped(key), expected);
  return *at;
}

[[noreturn]] void wrong(const Json& value,
                        std::string_view key,
                        const std::string& expected,
                        const std::string& source,
                        ExitCode code) {
  const std::string found = value.is_structured() ? value.type_name() : value.dump();
  fail(code,
       "{}: {}: expected {}, found {}",
       escaped(source),
       escaped(key),
       expected,
       escaped(found, 80));
}

}  // namespace

Json parse_json(std::string_view text,
                const std::string& source,
                ExitCode code,
                const JsonLimits& limits) {
  return parse<Json>(text, source, code, limits);
}

OrderedJson parse_ordered_json(std::string_view text,
                               const std::string& source,
                               ExitCode code,
                               const JsonLimits& limits) {
  return parse<OrderedJson>(text, source, code, limits);
}

std::string read_file(const std::filesystem::path& path, int64_t max_bytes, ExitCode code) {
  const RawFile file(path, code);
  if (file.size() > max_bytes)
    fail(code,
         "{}: {} bytes where at most {} are accepted",
         escaped(file.path()),
         file.size(),
         max_bytes);
  std::string text(static_cast<size_t>(file.size()), '\0');
  file.read(0, text.data(), file.size());
  return text;
}

int64_t json_int(const Json& object,
                 std::string_view key,
                 int64_t min,
                 int64_t max,
                 const std::string& source,
                 ExitCode code) {
  const std::string expected = fmt::format("an integer from {} to {}", min, max);
  const Json& value = member(object, key, expected.c_str(), source, code);
  if (!value.is_number_integer()) wrong(value, key, expected, source, code);
  if (value.is_number_unsigned() && std::cmp_greater(value.get<uint64_t>(), max))
    wrong(value, key, expected, source, code);
  const auto number = value.get<int64_t>();
  if (number < min || number > max) wrong(value, key, expected, source, code);
  return number;
}

double json_number(const Json& object,
                   std::string_view key,
                   const std::string& source,
                   ExitCode code) {
  const Json& value = member(object, key, "a number", source, code);
  if (!value.is_number()) wrong(value, key, "a number", source, code);
  return value.get<double>();
}

bool json_bool(const Json& object, std::string_view key, const std::string& source, ExitCode code) {
  const Json& value = member(object, key, "true or false", source, code);
  if (!value.is_boolean()) wrong(value, key, "true or false", source, code);
  return value.get<bool>();
}

std::string json_string(const Json& object,
                        std::string_view key,
                        const std::string& source,
                        ExitCode code) {
  const Json& value = member(object, key, "a string", source, code);
  if (!value.is_string()) wrong(value, key, "a string", source, code);
  return value.get<std::string>();
}

bool json_has(const Json& object, std::string_view key) {
  if (!object.is_object()) return false;
  const auto at = object.find(std::string(key));
  return at != object.end() && !at->is_null();
}

}  // namespace glm
