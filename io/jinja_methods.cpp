// Methods of strings, lists, dicts and the loop object, as Python has them.
// SPDX-License-Identifier: MIT
#include <algorithm>

#include "io/jinja_filters.h"
#include "io/jinja_print.h"
#include "io/unicode.h"

namespace glm::jinja {
namespace {

using Pieces = std::vector<MarkedString>;

Value list_of(Context& context, Pieces pieces) {
  std::vector<Value> items;
  items.reserve(pieces.size());
  for (MarkedString& piece : pieces) items.push_back(Value::string(std::move(piece)));
  return make_list(context, std::move(items));
}

bool is_space_at(std::string_view text, size_t at, size_t& length) {
  length = std::max<size_t>(utf8_length(text, at), 1);
  return is_python_space(utf8_decode(text, at, length));
}

// split() without a separator: runs of white space.
Pieces split_spaces(const MarkedString& value, int64_t limit) {
  Pieces out;
  const std::string& text = value.text();
  size_t at = 0;
  size_t length = 0;
  while (true) {
    while (at < text.size() && is_space_at(text, at, length)) at += length;
    if (at >= text.size()) return out;
    if (limit >= 0 && static_cast<int64_t>(out.size()) == limit) {
      out.push_back(value.slice(at, text.size()));
      return out;
    }
    const size_t begin = at;
    while (at < text.size() && !is_space_at(text, at, length)) at += length;
    out.push_back(value.slice(begin, at));
  }
}

Pieces split_by(const MarkedString& value, const std::string& separator, int64_t limit) {
  Pieces out;
  size_t begin = 0;
  while (limit < 0 || static_cast<int64_t>(out.size()) < limit) {
    const size_t found = value.text().find(separator, begin);
    if (found == std::string::npos) break;
    out.push_back(value.slice(begin, found));
    begin = found + separator.size();
  }
  out.push_back(value.slice(begin, value.size()));
  return out;
}

Pieces rsplit_by(const MarkedString& value, const std::string& separator, int64_t limit) {
  Pieces out;
  size_t end = value.size();
  while (limit < 0 || static_cast<int64_t>(out.size()) < limit) {
    if (end < separator.size()) break;
    const size_t found = value.text().rfind(separator, end - separator.size());
    if (found == std::string::npos) break;
    out.push_back(value.slice(found + separator.size(), end));
    end = found;
  }
  out.push_back(value.slice(0, end));
  std::reverse(out.begin(), out.end());
  return out;
}

Value split(Context& context, const MarkedString& text, Arguments& args, bool from_right) {
  const Value* separator = args.next("sep");
  const int64_t limit = args.integer("maxsplit", -1);
  args.done();
  if (separator == nullptr || separator->is<None>()) {
    if (from_right && limit >= 0) context.unsupported("rsplit of white space with a limit");
    return list_of(context, split_spaces(text, limit));
  }
  if (!separator->is_string())
    context.error(fmt::format("split: must be a string, not {}", type_name(*separator)));
  if (separator->text().empty()) context.error("split: empty separator");
  return list_of(context,
                 from_right ? rsplit_by(text, separator->text(), limit)
                            : split_by(text, separator->text(), limit));
}

// The part of the text that the optional arguments start and end select, in bytes.
std::pair<size_t, size_t> range_of(const std::string& text, Arguments& args) {
  const Value* begin = args.next("start");
  const Value* end = args.next("end");
  if (begin == nullptr && end == nullptr) return {0, text.size()};
  const std::vector<size_t> offsets = character_offsets(text);
  const auto size = static_cast<int64_t>(offsets.size()) - 1;
  const auto position = [&](const Value* value, int64_t fallback) {
    const int64_t* given = value == nullptr ? nullptr : value->get<int64_t>();
    int64_t index = given == nullptr ? fallback : *given;
    if (index < 0) index = std::max<int64_t>(index + size, 0);
    return index;
  };
  const int64_t first = position(begin, 0);
  if (first > size) return {text.size() + 1, text.size()};
  return {offsets[static_cast<size_t>(first)],
          offsets[static_cast<size_t>(std::min(position(end, size), size))]};
}

bool has_affix(Context& context, const std::string& text, Arguments& args, bool at_start) {
  const Value& affix = args.need("prefix");
  const std::pair<size_t, size_t> range = range_of(text, args);
  const size_t begin = range.first;  // Clang 14 does not capture structured bindings
  const size_t end = range.second;
  args.done();
  const auto matches = [&](const Value& candidate) {
    if (!candidate.is_string())
      context.error(
          fmt::format("{}: expected a string, found {}", args.callee(), type_name(candidate)));
    const std::string& part = candidate.text();
    if (begin > end || end - begin < part.size()) return false;
    return text.compare(at_start ? begin : end - part.size(), part.size(), part) == 0;
  };
  const List* several = affix.list();
  if (several == nullptr || several->kind != ListKind::kTuple) return matches(affix);
  return std::any_of(several->items.begin(), several->items.end(), matches);
}

int64_t characters_before(const std::string& text, size_t at) {
  return static_cast<int64_t>(character_offsets(std::string_view(text).substr(0, at)).size()) - 1;
}

Value find(Context& context, const std::string& text, Arguments& args, std::string_view name) {
  const std::string part = args.need_string("sub").text();
  const auto [begin, end] = range_of(text, args);
  args.done();
  size_t found = std::string::npos;
  if (begin <= end) {
    const std::string_view view = std::string_view(text).substr(0, end);
    found = name == "rfind" ? view.rfind(part) : view.find(part, begin);
    if (found != std::string::npos && found < begin) found = std::string::npos;
  }
  if (found == std::string::npos) {
    if (name == "index") context.error("index: substring not found");
    return Value::integer(-1);
  }
  return Value::integer(characters_before(text, found));
}

int64_t count(const std::string& text, Arguments& args) {
  const std::string part = args.need_string("sub").text();
  const auto [begin, end] = range_of(text, args);
  args.done();
  if (begin > end) return 0;
  const std::string_view view = std::string_view(text).substr(begin, end - begin);
  if (part.empty()) return static_cast<int64_t>(character_offsets(view).size());
  int64_t found = 0;
  for (size_t at = view.find(part); at != std::string_view::npos;
       at = view.find(part, at + part.size()))
    ++found;
  return found;
}

Value strip(const MarkedString& text, Arguments& args, std::string_view name) {
  const Value* given = args.next("chars");
  std::string characters;
  if (given != nullptr && given->is_string()) characters = given->text();
  const bool by_set = given != nullptr && given->is_string();
  args.done();
  return Value::string(
      stripped(text, by_set ? &characters : nullptr, name != "rstrip", name != "lstrip"));
}

bool all_characters(const std::string& text, bool (*predicate)(int32_t)) {
  for (size_t at = 0; at < text.size();) {
    const size_t length = std::max<size_t>(utf8_length(text, at), 1);
    if (!predicate(utf8_decode(text, at, length))) return false;
    at += length;
  }
  return !text.empty();
}

Value without_affix(const MarkedString& text, Arguments& args, bool at_start) {
  const std::string affix = args.need_string("affix").text();
  args.done();
  const size_t size = text.size();
  if (size < affix.size() ||
      text.text().compare(at_start ? 0 : size - affix.size(), affix.size(), affix) != 0)
    return Value::string(text);
  return Value::string(at_start ? text.slice(affix.size(), size)
                                : text.slice(0, size - affix.size()));
}

Value string_method(Context& context,
                    const MarkedString& text,
                    const std::string& name,
                    Arguments& args) {
  context.charge_text(text.size());
  if (name == "split" || name == "rsplit") return split(context, text, args, name == "rsplit");
  if (name == "strip" || name == "lstrip" || name == "rstrip") return strip(text, args, name);
  if (name == "startswith" || name == "endswith")
    return Value::boolean(has_affix(context, text.text(), args, name == "startswith"));
  if (name == "find" || name == "rfind" || name == "index")
    return find(context, text.text(), args, name);
  if (name == "count") return Value::integer(count(text.text(), args));
  if (name == "removeprefix" || name == "removesuffix")
    return without_affix(text, args, name == "removeprefix");
  if (name == "replace") {
    const MarkedString old = args.need_string("old");
    const MarkedString by = args.need_string("new");
    const int64_t limit = args.integer("count", -1);
    args.done();
    return Value::string(replaced(context, text, old, by, limit));
  }
  if (name == "join") {
    const std::vector<Value> items = iterate(context, args.need("iterable"));
    args.done();
    return Value::string(joined(context, text, items, true));
  }
  if (name == "splitlines" && args.has_more()) context.unsupported("splitlines with an argument");
  args.done();
  if (name == "splitlines") return list_of(context, lines_of(text));
  if (name == "isdigit") return Value::boolean(all_characters(text.text(), is_decimal_digit));
  if (name == "isspace") return Value::boolean(all_characters(text.text(), is_python_space));
  return Value::string(cased(context, text, name == "title" ? "str.title" : name));
}

Value dict_method(Context& context, const Value& self, const std::string& name, Arguments& args) {
  const Dict& dict = *self.dict();
  if (name == "get") {
    const Value& key = args.need("key");
    const Value* fallback = args.next("default");
    args.done();
    const Value* found = dict.find(dict_key(context, key));
    return found != nullptr ? *found : fallback != nullptr ? *fallback : Value::none();
  }
  args.done();
  if (name == "copy") return self;
  std::vector<Value> items;
  for (const auto& [key, value] : dict.entries) {
    if (name == "keys") items.push_back(key);
    if (name == "values") items.push_back(value);
    if (name == "items")
      items.push_back(make_list(context, {key, value}, ListKind::kTuple, self.origin()));
  }
  return make_list(context, std::move(items), ListKind::kView, self.origin());
}

Value list_method(Context& context, const Value& self, const std::string& name, Arguments& args) {
  const Value item = args.need("value");
  args.done();
  int64_t found = 0;
  for (size_t i = 0; i < self.list()->items.size(); ++i) {
    if (!equal(context, self.list()->items[i], item)) continue;
    if (name == "index") return Value::integer(static_cast<int64_t>(i));
    ++found;
  }
  if (name == "index") context.error("index: the item is not in the list");
  return Value::integer(found);
}

}  // namespace

Value call_method(Context& context, const Function& method, Arguments& args) {
  const Value& self = method.self;
  if (self.safe()) context.unsupported(fmt::format("{} on text marked safe", method.name));
  if (self.is_string()) return string_method(context, self.as_string(), method.name, args);
  if (self.dict() != nullptr) return dict_method(context, self, method.name, args);
  if (self.list() != nullptr) return list_method(context, self, method.name, args);
  if (args.positional.empty()) context.error("loop.cycle: no arguments");
  return args.positional[self.loop()->index % args.positional.size()];
}

}  // namespace glm::jinja
