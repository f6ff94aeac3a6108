// Python's str(), repr() and json.dumps(). SPDX-License-Identifier: MIT
#include "io/jinja_print.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "io/unicode.h"

namespace glm::jinja {
namespace {

std::string scalar_text(const Value& value) {
  if (value.is<None>()) return "None";
  if (const bool* flag = value.get<bool>()) return *flag ? "True" : "False";
  if (const int64_t* integer = value.get<int64_t>()) return fmt::format("{}", *integer);
  return float_repr(*value.get<double>());
}

void append_repr_string(MarkedString& out, const MarkedString& value) {
  const std::string& text = value.text();
  const bool has_single = text.find('\'') != std::string::npos;
  const char quote = has_single && text.find('"') == std::string::npos ? '"' : '\'';
  const std::string mark(1, quote);
  out.append(mark, value.origin_at(0));
  for (size_t at = 0; at < text.size();) {
    const size_t length = std::max<size_t>(utf8_length(text, at), 1);
    const int32_t c = utf8_decode(text, at, length);
    const Origin origin = value.origin_at(at);
    if (c == quote || c == '\\') {
      out.append("\\", origin);
      out.append(std::string_view(text).substr(at, 1), origin);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out.append(c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t", origin);
    } else if (is_printable(c)) {
      out.append(std::string_view(text).substr(at, length), origin);
    } else if (c < 0x100) {
      out.append(fmt::format("\\x{:02x}", c), origin);
    } else {
      out.append(c < 0x10000 ? fmt::format("\\u{:04x}", c) : fmt::format("\\U{:08x}", c), origin);
    }
    at += length;
  }
  out.append(mark, value.origin_at(text.empty() ? 0 : text.size() - 1));
}

void append_repr_list(Context& context, MarkedString& out, const Value& value) {
  const List& list = *value.list();
  if (list.kind == ListKind::kRange || list.kind == ListKind::kView)
    context.unsupported(fmt::format("text of a {}", type_name(value)));
  const bool is_tuple = list.kind == ListKind::kTuple;
  out.append(is_tuple ? "(" : "[", value.origin());
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out.append(", ", value.origin());
    append_repr(context, out, list.items[i]);
  }
  if (is_tuple && list.items.size() == 1) out.append(",", value.origin());
  out.append(is_tuple ? ")" : "]", value.origin());
}

class JsonWriter {
 public:
  JsonWriter(Context& context, const JsonStyle& style) : context_(context), style_(style) {}

  void write(const Value& value);
  MarkedString take() { return std::move(out_); }

 private:
  void write_string(const MarkedString& value);
  void write_character(std::string_view bytes, int32_t c, Origin origin);
  void write_list(const Value& value);
  void write_dict(const Value& value);
  void write_key(const Value& key);
  void new_line(Origin origin);
  void separator(Origin origin);

  Context& context_;
  const JsonStyle& style_;
  MarkedString out_;
  int level_ = 0;
};

void JsonWriter::new_line(Origin origin) {
  if (!style_.has_indent) return;
  std::string text = "\n";
  context_.check_size(static_cast<uint64_t>(level_) * style_.indent.size() + out_.size());
  for (int i = 0; i < level_; ++i) text += style_.indent;
  out_.append(text, origin);
}

void JsonWriter::separator(Origin origin) {
  out_.append(style_.item_separator);
  new_line(origin);
}

void JsonWriter::write_character(std::string_view bytes, int32_t c, Origin origin) {
  static constexpr std::string_view kNamed = "\"\\\n\r\t\b\f";
  static constexpr std::string_view kLetters = "\"\\nrtbf";
  const size_t named = c < 0x80 ? kNamed.find(static_cast<char>(c)) : std::string_view::npos;
  if (named != std::string_view::npos) {
    out_.append(fmt::format("\\{}", kLetters[named]), origin);
  } else if (c < 0x20 || (style_.ensure_ascii && c >= 0x7F && c < 0x10000)) {
    out_.append(fmt::format("\\u{:04x}", c), origin);
  } else if (style_.ensure_ascii && c >= 0x10000) {
    const int32_t rest = c - 0x10000;
    out_.append(fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF)),
                origin);
  } else {
    out_.append(bytes, origin);
  }
}

void JsonWriter::write_string(const MarkedString& value) {
  const std::string& text = value.text();
  context_.check_size(out_.size() + text.size());
  context_.charge_text(text.size());
  out_.append("\"", value.origin_at(0));
  for (size_t at = 0; at < text.size();) {
    const size_t length = std::max<size_t>(utf8_length(text, at), 1);
    write_character(std::string_view(text).substr(at, length),
                    utf8_decode(text, at, length),
                    value.origin_at(at));
    at += length;
  }
  out_.append("\"", value.origin_at(text.empty() ? 0 : text.size() - 1));
}

void JsonWriter::write_list(const Value& value) {
  const List& list = *value.list();
  if (list.kind == ListKind::kRange || list.kind == ListKind::kView)
    context_.error(fmt::format("object of type {} is not JSON serializable", type_name(value)));
  out_.append("[", value.origin());
  ++level_;
  for (size_t i = 0; i < list.items.size(); ++i) {
    i == 0 ? new_line(value.origin()) : separator(value.origin());
    write(list.items[i]);
  }
  --level_;
  if (!list.items.empty()) new_line(value.origin());
  out_.append("]", value.origin());
}

void JsonWriter::write_key(const Value& key) {
  if (key.is_string()) return write_string(key.as_string());
  if (key.list() != nullptr || key.is_undefined())
    context_.error(fmt::format("keys of JSON must be text, not {}", type_name(key)));
  out_.append("\"", key.origin());
  write(key);
  out_.append("\"", key.origin());
}

void JsonWriter::write_dict(const Value& value) {
  std::vector<const std::pair<Value, Value>*> entries;
  for (const auto& entry : value.dict()->entries) entries.push_back(&entry);
  if (style_.sort_keys)
    std::stable_sort(entries.begin(), entries.end(), [&](const auto* a, const auto* b) {
      return compare(context_, a->first, b->first) < 0;
    });
  out_.append("{", value.origin());
  ++level_;
  for (size_t i = 0; i < entries.size(); ++i) {
    i == 0 ? new_line(value.origin()) : separator(value.origin());
    write_key(entries[i]->first);
    out_.append(style_.key_separator);
    write(entries[i]->second);
  }
  --level_;
  if (!entries.empty()) new_line(value.origin());
  out_.append("}", value.origin());
}

void JsonWriter::write(const Value& value) {
  context_.charge(1);
  context_.check_size(out_.size());
  if (value.is_string()) {
    write_string(value.as_string());
  } else if (value.list() != nullptr) {
    write_list(value);
  } else if (value.dict() != nullptr) {
    write_dict(value);
  } else if (value.is<None>()) {
    out_.append("null", value.origin());
  } else if (const bool* flag = value.get<bool>()) {
    out_.append(*flag ? "true" : "false", value.origin());
  } else if (const double* real = value.get<double>(); real != nullptr && !std::isfinite(*real)) {
    out_.append(std::isnan(*real) ? "NaN" : *real > 0 ? "Infinity" : "-Infinity", value.origin());
  } else if (value.is_number()) {
    out_.append(scalar_text(value), value.origin());
  } else {
    context_.error(fmt::format("object of type {} is not JSON serializable", type_name(value)));
  }
}

}  // namespace

std::string float_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::array<char, 64> buffer{};
  const auto end = std::to_chars(
      buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::scientific);
  const std::string spelled(buffer.data(), end.ptr);
  const size_t mark = spelled.find('e');
  const int exponent = std::stoi(spelled.substr(mark + 1));
  const std::string sign = spelled[0] == '-' ? "-" : "";
  std::string digits = spelled.substr(sign.size(), mark - sign.size());
  digits.erase(std::remove(digits.begin(), digits.end(), '.'), digits.end());
  if (exponent < -4 || exponent >= 16) {
    const std::string fraction = digits.size() > 1 ? "." + digits.substr(1) : "";
    return fmt::format(
        "{}{}{}e{}{:02}", sign, digits[0], fraction, exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0)
    return sign + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  const auto whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() <= whole) return sign + digits + std::string(whole - digits.size(), '0') + ".0";
  return sign + digits.substr(0, whole) + "." + digits.substr(whole);
}

void append_repr(Context& context, MarkedString& out, const Value& value) {
  context.charge(1);
  context.check_size(out.size());
  if (value.is_undefined()) {
    out.append("Undefined", Origin::kTemplate);
  } else if (value.is_string()) {
    context.charge_text(value.text().size());
    append_repr_string(out, value.as_string());
  } else if (value.list() != nullptr) {
    append_repr_list(context, out, value);
  } else if (const Dict* dict = value.dict()) {
    out.append("{", value.origin());
    for (size_t i = 0; i < dict->entries.size(); ++i) {
      if (i > 0) out.append(", ", value.origin());
      append_repr(context, out, dict->entries[i].first);
      out.append(": ", value.origin());
      append_repr(context, out, dict->entries[i].second);
    }
    out.append("}", value.origin());
  } else if (value.is<None>() || value.is_number()) {
    out.append(scalar_text(value), value.origin());
  } else {
    context.unsupported(fmt::format("text of a {}", type_name(value)));
  }
}

MarkedString to_text(Context& context, const Value& value) {
  if (value.is_undefined()) return {};
  if (value.is_string()) return value.as_string();
  MarkedString out;
  append_repr(context, out, value);
  return out;
}

MarkedString to_json(Context& context, const Value& value, const JsonStyle& style) {
  JsonWriter writer(context, style);
  writer.write(value);
  return writer.take();
}

}  // namespace glm::jinja
