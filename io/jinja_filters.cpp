// Filters on text and numbers, and the text operations they share with methods.
// SPDX-License-Identifier: MIT
#include "io/jinja_filters.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "io/jinja_print.h"
#include "io/unicode.h"

namespace glm::jinja {
namespace {

constexpr std::array<std::string_view, 20> kFilters = {
    "tojson", "trim",       "string", "safe",    "default", "d",     "upper",
    "lower",  "capitalize", "title",  "replace", "int",     "float", "abs",
    "round",  "indent",     "length", "count",   "join",    "items"};

bool has_more_lines(int32_t c) {
  return c == '\n' || c == '\r' || c == 0x0B || c == 0x0C || (c >= 0x1C && c <= 0x1E) ||
         c == 0x85 || c == 0x2028 || c == 0x2029;
}

Value to_json_filter(Context& context, const Value& value, Arguments& args) {
  JsonStyle style;
  style.ensure_ascii = args.flag("ensure_ascii", false);
  const Value* indent = args.next("indent");
  const Value* separators = args.next("separators");
  style.sort_keys = args.flag("sort_keys", false);
  args.done();
  if (indent != nullptr && !indent->is<None>()) {
    style.has_indent = true;
    style.item_separator = {",", Origin::kTemplate};
    if (indent->is_string()) {
      style.indent = indent->text();
    } else {
      const int64_t width = integer_of(context, *indent, "tojson: indent");
      if (width > 1000) context.error("tojson: indent is too large");
      style.indent.assign(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
    }
  }
  if (separators != nullptr && !separators->is<None>()) {
    const List* pair = separators->list();
    if (pair == nullptr || pair->items.size() != 2 || !pair->items[0].is_string() ||
        !pair->items[1].is_string())
      context.error("tojson: separators must be two strings");
    style.item_separator = pair->items[0].as_string();
    style.key_separator = pair->items[1].as_string();
  }
  return Value::string(to_json(context, value, style));
}

std::string trimmed_number(const std::string& text) {
  const MarkedString bare = stripped({text, Origin::kTemplate}, nullptr, true, true);
  std::string out = bare.text();
  for (size_t i = 1; i + 1 < out.size(); ++i)
    if (out[i] == '_' && std::isdigit(static_cast<unsigned char>(out[i - 1])) != 0 &&
        std::isdigit(static_cast<unsigned char>(out[i + 1])) != 0)
      out.erase(i, 1);
  if (out.size() > 1 && out[0] == '+' && out[1] != '-') out.erase(0, 1);
  return out;
}

bool parse_real(const std::string& text, double& value) {
  const std::string number = trimmed_number(text);
  const auto result = std::from_chars(number.data(), number.data() + number.size(), value);
  return result.ec == std::errc{} && result.ptr == number.data() + number.size();
}

Value real_to_integer(Context& context, double value) {
  if (!std::isfinite(value) || std::abs(value) >= 9.2e18)
    context.error("int: a number beyond 64 bits");
  return Value::integer(static_cast<int64_t>(std::trunc(value)));
}

Value int_filter(Context& context, const Value& value, Arguments& args) {
  const Value* fallback = args.next("default");
  const int64_t base = args.integer("base", 10);
  args.done();
  if (value.is<int64_t>()) return value;
  if (value.is<bool>()) return Value::integer(truthy(value) ? 1 : 0);
  if (const double* real = value.get<double>()) return real_to_integer(context, *real);
  if (value.is_string()) {
    if (base != 10) context.unsupported("int with a base");
    const std::string number = trimmed_number(value.text());
    int64_t integer = 0;
    const auto result = std::from_chars(number.data(), number.data() + number.size(), integer);
    if (result.ptr == number.data() + number.size() && !number.empty()) {
      if (result.ec != std::errc{}) context.error("int: a number beyond 64 bits");
      return Value::integer(integer);
    }
    double real = 0;
    if (parse_real(value.text(), real) && std::isfinite(real))
      return real_to_integer(context, real);
  }
  return fallback != nullptr ? *fallback : Value::integer(0);
}

Value float_filter(const Value& value, Arguments& args) {
  const Value* fallback = args.next("default");
  args.done();
  if (value.is<double>()) return value;
  if (const int64_t* integer = value.get<int64_t>())
    return Value::real(static_cast<double>(*integer));
  if (value.is<bool>()) return Value::real(truthy(value) ? 1 : 0);
  double real = 0;
  if (value.is_string() && parse_real(value.text(), real)) return Value::real(real);
  return fallback != nullptr ? *fallback : Value::real(0);
}

Value abs_filter(Context& context, const Value& value, Arguments& args) {
  args.done();
  if (const double* real = value.get<double>()) return Value::real(std::abs(*real));
  const int64_t integer = integer_of(context, value, "abs");
  if (integer == INT64_MIN) context.error("an integer exceeds 64 bits");
  return Value::integer(std::abs(integer));
}

Value round_filter(Context& context, const Value& value, Arguments& args) {
  const int64_t precision = args.integer("precision", 0);
  const Value* method = args.next("method");
  args.done();
  if (method != nullptr && !(method->is_string() && method->text() == "common"))
    context.unsupported("round with a method");
  if (precision < 0 || precision > 300) context.unsupported("round with this precision");
  const double* real = value.get<double>();
  if (real == nullptr) return Value::integer(integer_of(context, value, "round"));
  if (!std::isfinite(*real)) return value;
  // printf rounds the exact decimal value half to even, as Python does.
  const std::string text = fmt::format("{:.{}f}", *real, precision);
  double rounded = 0;
  std::from_chars(text.data(), text.data() + text.size(), rounded);
  return Value::real(rounded);
}

Value indent_filter(Context& context, const MarkedString& text, Arguments& args) {
  const Value* width = args.next("width");
  const bool first = args.flag("first", false);
  const bool blank = args.flag("blank", false);
  args.done();
  MarkedString indention("    ", Origin::kTemplate);
  if (width != nullptr && width->is_string()) {
    indention = width->as_string();
  } else if (width != nullptr) {
    const int64_t spaces = std::max<int64_t>(integer_of(context, *width, "indent"), 0);
    if (spaces > 1000) context.error("indent: width is too large");
    indention = {std::string(static_cast<size_t>(spaces), ' '), Origin::kTemplate};
  }
  MarkedString closed = text;
  closed.append("\n", Origin::kTemplate);
  const std::vector<MarkedString> lines = lines_of(closed);
  context.charge_text(text.size() + lines.size() * indention.size());
  MarkedString out;
  if (first) out.append(indention);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.append("\n", Origin::kTemplate);
    if (i > 0 && (blank || !lines[i].empty())) out.append(indention);
    out.append(lines[i]);
  }
  return Value::string(std::move(out));
}

// Filters whose input is made text first.
Value text_filter(Context& context, std::string_view name, const Value& value, Arguments& args) {
  const MarkedString text = to_text(context, value);
  context.charge_text(text.size());
  if (name == "trim") {
    const Value* chars = args.next("chars");
    args.done();
    const bool by_set = chars != nullptr && chars->is_string();
    return Value::string(stripped(text, by_set ? &chars->text() : nullptr, true, true));
  }
  if (name == "replace") {
    const MarkedString old = to_text(context, args.need("old"));
    const MarkedString by = to_text(context, args.need("new"));
    const Value* count = args.next("count");
    args.done();
    const bool all = count == nullptr || count->is<None>();
    return Value::string(
        replaced(context, text, old, by, all ? -1 : integer_of(context, *count, "replace")));
  }
  if (name == "indent") return indent_filter(context, text, args);
  args.done();
  if (name == "string") return Value::string(text);
  return Value::string(cased(context, text, name));
}

Value join_filter(Context& context, const Value& value, Arguments& args) {
  const Value* separator = args.next("d");
  const Value* attribute = args.next("attribute");
  args.done();
  std::vector<Value> items = iterate(context, value);
  if (attribute != nullptr && !attribute->is<None>())
    for (Value& item : items) item = item_of(context, item, *attribute);
  const MarkedString between = separator == nullptr ? MarkedString() : to_text(context, *separator);
  return Value::string(joined(context, between, items, false));
}

Value items_filter(Context& context, const Value& value, Arguments& args) {
  args.done();
  std::vector<Value> items;
  if (value.is_undefined()) return make_iterator(context, {});
  if (value.dict() == nullptr) context.error("items: can only get items from a mapping");
  for (const auto& [key, member] : value.dict()->entries)
    items.push_back(make_list(context, {key, member}, ListKind::kTuple, value.origin()));
  return make_iterator(context, std::move(items));
}

bool takes_safe(std::string_view name) {
  return name == "safe" || name == "string" || name == "length" || name == "count" ||
         name == "tojson" || name == "default" || name == "d";
}

}  // namespace

bool is_filter(std::string_view name) {
  return std::find(kFilters.begin(), kFilters.end(), name) != kFilters.end() ||
         is_sequence_filter(name);
}

Value apply_filter(Context& context, std::string_view name, const Value& value, Arguments& args) {
  context.charge(1);
  if (value.safe() && !takes_safe(name))
    context.unsupported(fmt::format("filter {} on text marked safe", name));
  if (is_sequence_filter(name)) return apply_sequence_filter(context, name, value, args);
  if (name == "tojson") return to_json_filter(context, value, args);
  if (name == "default" || name == "d") {
    const Value* fallback = args.next("default_value");
    const bool boolean = args.flag("boolean", false);
    args.done();
    const bool absent = value.is_undefined() || (boolean && !truthy(value));
    return !absent ? value : fallback != nullptr ? *fallback : Value::string("");
  }
  if (name == "safe") {
    args.done();
    return Value::string(to_text(context, value)).as_safe();
  }
  if (name == "string" && value.is_string()) {
    args.done();
    return value;
  }
  if (name == "length" || name == "count") {
    args.done();
    return Value::integer(length(context, value));
  }
  if (name == "join") return join_filter(context, value, args);
  if (name == "items") return items_filter(context, value, args);
  if (name == "int") return int_filter(context, value, args);
  if (name == "float") return float_filter(value, args);
  if (name == "abs") return abs_filter(context, value, args);
  if (name == "round") return round_filter(context, value, args);
  if (is_filter(name)) return text_filter(context, name, value, args);
  context.unsupported(fmt::format("filter '{}'", name));
}

// "upper", "lower", "capitalize"; "title" of the filter: words begin behind white space and
// opening brackets; "str.title" of Python: words begin behind anything but letters.
MarkedString cased(Context& context, const MarkedString& text, std::string_view how) {
  context.charge_text(text.size());
  MarkedString out;
  bool starts_word = true;
  const std::string& bytes = text.text();
  for (size_t at = 0; at < bytes.size();) {
    const size_t length = std::max<size_t>(utf8_length(bytes, at), 1);
    const int32_t c = utf8_decode(bytes, at, length);
    LetterCase letter_case = LetterCase::kLower;
    if (how == "upper" || (starts_word && how == "title")) {
      letter_case = LetterCase::kUpper;
    } else if (starts_word && (how == "capitalize" || how == "str.title")) {
      letter_case = LetterCase::kTitle;
    }
    std::string mapped;
    append_cased(mapped, c, letter_case);
    out.append(mapped, text.origin_at(at));
    starts_word = how == "title" ? is_python_space(c) || c == '-' || c == '(' || c == '{' ||
                                       c == '[' || c == '<'
                  : how == "str.title" ? !is_letter(c)
                                       : false;
    at += length;
  }
  return out;
}

MarkedString stripped(const MarkedString& text,
                      const std::string* characters,
                      bool left,
                      bool right) {
  const std::string& bytes = text.text();
  const auto goes = [&](size_t at, size_t size) {
    if (characters == nullptr) return is_python_space(utf8_decode(bytes, at, size));
    return characters->find(bytes.substr(at, size)) != std::string::npos;
  };
  size_t begin = 0;
  size_t end = bytes.size();
  while (left && begin < end) {
    const size_t size = std::max<size_t>(utf8_length(bytes, begin), 1);
    if (!goes(begin, size)) break;
    begin += size;
  }
  while (right && end > begin) {
    size_t at = end - 1;
    while (at > begin && (static_cast<unsigned char>(bytes[at]) & 0xC0) == 0x80) --at;
    if (!goes(at, end - at)) break;
    end = at;
  }
  return text.slice(begin, end);
}

MarkedString replaced(Context& context,
                      const MarkedString& text,
                      const MarkedString& old,
                      const MarkedString& by,
                      int64_t count) {
  MarkedString out;
  const std::string& bytes = text.text();
  size_t at = 0;
  while (count != 0) {
    // An empty `old` stands before each character and at the end.
    const size_t found = bytes.find(old.text(), at);
    if (found == std::string::npos) break;
    context.check_size(out.size() + (found - at) + by.size());
    out.append(text, at, found);
    out.append(by);
    context.charge(1);
    at = found + old.size();
    if (count > 0) --count;
    if (!old.empty()) continue;
    if (found >= bytes.size()) return out;
    at = found + std::max<size_t>(utf8_length(bytes, found), 1);
    out.append(text, found, at);
  }
  out.append(text, std::min(at, bytes.size()), bytes.size());
  return out;
}

std::vector<MarkedString> lines_of(const MarkedString& text) {
  std::vector<MarkedString> lines;
  const std::string& bytes = text.text();
  size_t begin = 0;
  for (size_t at = 0; at < bytes.size();) {
    size_t length = std::max<size_t>(utf8_length(bytes, at), 1);
    if (has_more_lines(utf8_decode(bytes, at, length))) {
      lines.push_back(text.slice(begin, at));
      if (bytes.compare(at, 2, "\r\n") == 0) length = 2;
      begin = at + length;
    }
    at += length;
  }
  if (begin < bytes.size()) lines.push_back(text.slice(begin, bytes.size()));
  return lines;
}

MarkedString joined(Context& context,
                    const MarkedString& separator,
                    const std::vector<Value>& items,
                    bool strings_only) {
  MarkedString out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (strings_only && !items[i].is_string())
      context.error(fmt::format("join: expected a string, found {}", type_name(items[i])));
    if (i > 0) out.append(separator);
    const MarkedString part = to_text(context, items[i]);
    context.charge_text(part.size() + separator.size());
    out.append(part);
    context.check_size(out.size());
  }
  return out;
}

}  // namespace glm::jinja
