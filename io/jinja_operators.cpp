// Arithmetic, attribute and item access, slices, and the arguments of calls.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <cmath>

#include "io/jinja_filters.h"

namespace glm::jinja {

const Value* Arguments::next(std::string_view name) {
  if (taken_ < positional.size()) return &positional[taken_++];
  for (const auto& [key, value] : named) {
    if (key != name) continue;
    used_names_.push_back(key);
    return &value;
  }
  return nullptr;
}

const Value& Arguments::need(std::string_view name) {
  const Value* value = next(name);
  if (value == nullptr) context_.error(fmt::format("{}: argument {} is missing", callee_, name));
  return *value;
}

bool Arguments::flag(std::string_view name, bool fallback) {
  const Value* value = next(name);
  return value == nullptr ? fallback : truthy(*value);
}

int64_t Arguments::integer(std::string_view name, int64_t fallback) {
  const Value* value = next(name);
  return value == nullptr ? fallback : integer_of(context_, *value, callee_);
}

const MarkedString& Arguments::need_string(std::string_view name) {
  const Value& value = need(name);
  if (!value.is_string())
    context_.error(fmt::format("{}: {} must be a string, not {}", callee_, name, type_name(value)));
  return value.as_string();
}

Arguments Arguments::rest(std::string callee) {
  Arguments others(context_, std::move(callee));
  for (; taken_ < positional.size(); ++taken_) others.positional.push_back(positional[taken_]);
  for (const auto& entry : named) {
    if (std::find(used_names_.begin(), used_names_.end(), entry.first) != used_names_.end())
      continue;
    others.named.push_back(entry);
    used_names_.push_back(entry.first);
  }
  return others;
}

void Arguments::done() {
  if (taken_ < positional.size()) context_.error(fmt::format("{}: too many arguments", callee_));
  for (const auto& entry : named)
    if (std::find(used_names_.begin(), used_names_.end(), entry.first) == used_names_.end())
      context_.error(fmt::format("{}: unknown argument {}", callee_, entry.first));
}

namespace {

[[noreturn]] void bad_operands(Context& context,
                               std::string_view name,
                               const Value& a,
                               const Value& b) {
  if (a.is_undefined()) context.error(fmt::format("'{}' is undefined", a.get<Undefined>()->name));
  if (b.is_undefined()) context.error(fmt::format("'{}' is undefined", b.get<Undefined>()->name));
  context.error(fmt::format(
      "unsupported operand types for {}: '{}' and '{}'", name, type_name(a), type_name(b)));
}

double as_double(const Value& value) {
  if (const bool* flag = value.get<bool>()) return *flag ? 1 : 0;
  if (const int64_t* integer = value.get<int64_t>()) return static_cast<double>(*integer);
  return *value.get<double>();
}

int64_t as_integer(const Value& value) {
  const bool* flag = value.get<bool>();
  return flag != nullptr ? *flag : *value.get<int64_t>();
}

int64_t integer_power(Context& context, int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (exponent > 0) {
    if (exponent & 1 && __builtin_mul_overflow(result, base, &result))
      context.error("an integer exceeds 64 bits");
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base))
      context.error("an integer exceeds 64 bits");
  }
  return result;
}

Value integer_operation(Context& context, std::string_view name, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if (name == "+") {
    overflow = __builtin_add_overflow(a, b, &result);
  } else if (name == "-") {
    overflow = __builtin_sub_overflow(a, b, &result);
  } else if (name == "*") {
    overflow = __builtin_mul_overflow(a, b, &result);
  } else if (name == "**") {
    if (b < 0) {
      if (a == 0) context.error("division by zero");
      return Value::real(std::pow(static_cast<double>(a), static_cast<double>(b)));
    }
    result = integer_power(context, a, b);
  } else {
    if (b == 0) context.error("division by zero");
    if (name == "/") return Value::real(static_cast<double>(a) / static_cast<double>(b));
    if (b == -1) {
      overflow = name == "//" && __builtin_sub_overflow(int64_t{0}, a, &result);
    } else {
      const int64_t remainder = a % b;
      const bool adjust = remainder != 0 && (remainder < 0) != (b < 0);
      result = name == "//" ? a / b - adjust : remainder + (adjust ? b : 0);
    }
  }
  if (overflow) context.error("an integer exceeds 64 bits");
  return Value::integer(result);
}

Value real_operation(Context& context, std::string_view name, double a, double b) {
  if (name == "+") return Value::real(a + b);
  if (name == "-") return Value::real(a - b);
  if (name == "*") return Value::real(a * b);
  if (name == "**") {
    if (a == 0 && b < 0) context.error("division by zero");
    if (a < 0 && b != std::floor(b)) context.unsupported("complex number");
    return Value::real(std::pow(a, b));
  }
  if (b == 0) context.error("division by zero");
  if (name == "/") return Value::real(a / b);
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  if (name == "%") return Value::real(remainder == 0 ? std::copysign(0.0, b) : remainder);
  return Value::real(std::round((a - remainder) / b));
}

Value repeated(Context& context, const Value& value, int64_t count) {
  count = std::max<int64_t>(count, 0);
  if (value.is_string()) {
    const MarkedString& text = value.as_string();
    if (count > 0 && text.size() > kMaxStringBytes / static_cast<uint64_t>(count))
      context.check_size(kMaxStringBytes + 1);
    context.charge_text(text.size() * static_cast<uint64_t>(count));
    MarkedString out;
    if (!text.empty())
      for (int64_t i = 0; i < count; ++i) out.append(text);
    return Value::string(std::move(out));
  }
  const List& list = *value.list();
  const int64_t total =
      checked_mul(count, static_cast<int64_t>(list.items.size()), "list", ExitCode::kUsage);
  context.charge_items(static_cast<uint64_t>(total));
  std::vector<Value> items;
  if (!list.items.empty())
    for (int64_t i = 0; i < count; ++i)
      items.insert(items.end(), list.items.begin(), list.items.end());
  return make_list(context, std::move(items), list.kind, value.origin());
}

bool is_plain_list(const Value& value) {
  return value.list() != nullptr &&
         (value.list()->kind == ListKind::kList || value.list()->kind == ListKind::kTuple);
}

Value sequence_sum(Context& context, const Value& a, const Value& b) {
  if (a.is_string() && b.is_string()) {
    context.charge_text(a.text().size() + b.text().size());
    MarkedString out = a.as_string();
    out.append(b.as_string());
    return Value::string(std::move(out));
  }
  context.charge_items(a.list()->items.size() + b.list()->items.size());
  std::vector<Value> items = a.list()->items;
  items.insert(items.end(), b.list()->items.begin(), b.list()->items.end());
  return make_list(context, std::move(items), a.list()->kind, a.origin());
}

}  // namespace

Value operate(Context& context, std::string_view name, const Value& a, const Value& b) {
  if (a.safe() || b.safe()) context.unsupported(fmt::format("{} on text marked safe", name));
  if (a.is_number() && b.is_number()) {
    if (a.is<double>() || b.is<double>())
      return real_operation(context, name, as_double(a), as_double(b));
    return integer_operation(context, name, as_integer(a), as_integer(b));
  }
  if (name == "+") {
    if ((a.is_string() && b.is_string()) ||
        (is_plain_list(a) && is_plain_list(b) && a.list()->kind == b.list()->kind))
      return sequence_sum(context, a, b);
  } else if (name == "*") {
    const bool left_sequence = a.is_string() || is_plain_list(a);
    const Value& sequence = left_sequence ? a : b;
    const Value& count = left_sequence ? b : a;
    if ((sequence.is_string() || is_plain_list(sequence)) &&
        (count.is<int64_t>() || count.is<bool>()))
      return repeated(context, sequence, as_integer(count));
  } else if (name == "%" && a.is_string()) {
    context.unsupported("formatting with %");
  }
  bad_operands(context, name, a, b);
}

namespace {

constexpr std::array<std::string_view, 22> kStringMethods = {
    "split",      "rsplit",       "strip",        "lstrip", "rstrip",  "startswith",
    "endswith",   "replace",      "upper",        "lower",  "title",   "count",
    "find",       "rfind",        "index",        "join",   "isdigit", "capitalize",
    "splitlines", "removeprefix", "removesuffix", "isspace"};
constexpr std::array<std::string_view, 28> kOtherStringMethods = {
    "encode",    "format",       "format_map", "expandtabs", "translate",   "maketrans",
    "center",    "ljust",        "rjust",      "zfill",      "casefold",    "swapcase",
    "partition", "rpartition",   "rindex",     "isalnum",    "isalpha",     "isascii",
    "isdecimal", "isidentifier", "islower",    "isnumeric",  "isprintable", "istitle",
    "isupper",   "escape",       "striptags",  "unescape"};
constexpr std::array<std::string_view, 5> kDictMethods = {"items", "keys", "values", "get", "copy"};
constexpr std::array<std::string_view, 6> kOtherDictMethods = {
    "pop", "popitem", "setdefault", "update", "clear", "fromkeys"};
constexpr std::array<std::string_view, 2> kListMethods = {"index", "count"};
constexpr std::array<std::string_view, 9> kOtherListMethods = {
    "append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse", "copy"};

template <class Names>
bool has(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Value loop_attribute(Context& context, const Value& value, std::string_view name) {
  const Loop& loop = *value.loop();
  const auto index = static_cast<int64_t>(loop.index);
  const auto count = static_cast<int64_t>(loop.items.size());
  if (name == "index") return Value::integer(index + 1);
  if (name == "index0") return Value::integer(index);
  if (name == "revindex") return Value::integer(count - index);
  if (name == "revindex0") return Value::integer(count - index - 1);
  if (name == "first") return Value::boolean(index == 0);
  if (name == "last") return Value::boolean(index + 1 == count);
  if (name == "length") return Value::integer(count);
  if (name == "depth") return Value::integer(1);
  if (name == "depth0") return Value::integer(0);
  if (name == "cycle") return make_method(value, name);
  if (name == "previtem")
    return index > 0 ? loop.items[loop.index - 1] : Value::undefined("loop.previtem");
  if (name == "nextitem")
    return index + 1 < count ? loop.items[loop.index + 1] : Value::undefined("loop.nextitem");
  context.unsupported(fmt::format("loop.{}", name));
}

}  // namespace

Value attribute_of(Context& context, const Value& value, std::string_view name) {
  if (value.is_undefined())
    context.error(
        fmt::format("'{}' is undefined, it has no '{}'", value.get<Undefined>()->name, name));
  if (name.substr(0, 2) == "__") context.unsupported(fmt::format("attribute {}", name));
  const auto unsupported = [&] {
    context.unsupported(fmt::format("method {} of {}", name, type_name(value)));
  };
  if (value.is_string()) {
    if (has(kStringMethods, name)) return make_method(value, name);
    if (has(kOtherStringMethods, name)) unsupported();
  } else if (const Dict* dict = value.dict()) {
    if (has(kDictMethods, name)) return make_method(value, name);
    if (has(kOtherDictMethods, name)) unsupported();
    if (const Value* found = dict->find(name)) return *found;
  } else if (value.list() != nullptr) {
    if (has(kListMethods, name) && is_plain_list(value)) return make_method(value, name);
    if (has(kOtherListMethods, name) || has(kListMethods, name)) unsupported();
  } else if (const Namespace* space = value.name_space()) {
    for (const auto& [key, member] : space->members)
      if (key == name) return member;
  } else if (value.loop() != nullptr) {
    return loop_attribute(context, value, name);
  } else if (value.function() != nullptr) {
    context.unsupported(fmt::format("attribute {} of a function", name));
  }
  return Value::undefined(name);
}

Value item_of(Context& context, const Value& value, const Value& key) {
  if (value.is_undefined())
    context.error(fmt::format("'{}' is undefined, it has no items", value.get<Undefined>()->name));
  const bool is_index = key.is<int64_t>() || key.is<bool>();
  if (const Dict* dict = value.dict()) {
    if (const Value* found = dict->find(dict_key(context, key))) return *found;
  } else if (is_index && (value.is_string() ||
                          (value.list() != nullptr && value.list()->kind != ListKind::kView))) {
    int64_t index = as_integer(key);
    const int64_t size = length(context, value);
    if (index < 0) index += size;
    if (index < 0 || index >= size) return Value::undefined(fmt::format("item {}", index));
    if (value.list() != nullptr) return value.list()->items[static_cast<size_t>(index)];
    context.charge_text(value.text().size());
    const std::vector<size_t> offsets = character_offsets(value.text());
    const auto at = static_cast<size_t>(index);
    return Value::string(value.as_string().slice(offsets[at], offsets[at + 1]));
  }
  if (key.is_string()) return attribute_of(context, value, key.text());
  return Value::undefined("item");
}

Value slice_of(
    Context& context, const Value& value, const Value* begin, const Value* end, const Value* step) {
  if (!value.is_string() && (value.list() == nullptr || value.list()->kind == ListKind::kView))
    context.error(fmt::format("'{}' cannot be sliced", type_name(value)));
  const auto bound = [&](const Value* given, int64_t fallback) {
    return given == nullptr || given->is<None>() ? fallback : integer_of(context, *given, "slice");
  };
  const int64_t size = length(context, value);
  const int64_t stride = bound(step, 1);
  if (stride == 0) context.error("slice step cannot be zero");
  const int64_t low = stride < 0 ? -1 : 0;  // where indices are clamped to
  const int64_t high = stride < 0 ? size - 1 : size;
  const auto clamped = [&](int64_t index) {
    if (index < 0) index = index < -size ? low : index + size;
    return std::clamp(index, low, std::max(low, high));
  };
  const bool has_begin = begin != nullptr && !begin->is<None>();
  const bool has_end = end != nullptr && !end->is<None>();
  const int64_t first = has_begin ? clamped(bound(begin, 0)) : (stride < 0 ? high : low);
  const int64_t last = has_end ? clamped(bound(end, 0)) : (stride < 0 ? low : high);
  std::vector<size_t> picked;
  const uint64_t jump =
      stride < 0 ? 0 - static_cast<uint64_t>(stride) : static_cast<uint64_t>(stride);
  const int64_t distance = stride < 0 ? first - last : last - first;
  for (uint64_t i = 0; distance > 0 && i < static_cast<uint64_t>(distance); i += jump) {
    const auto offset = static_cast<int64_t>(i);
    picked.push_back(static_cast<size_t>(stride < 0 ? first - offset : first + offset));
    if (jump > static_cast<uint64_t>(distance)) break;
  }
  context.charge(static_cast<int64_t>(picked.size()) + size / 8);
  if (value.list() != nullptr) {
    std::vector<Value> items;
    for (const size_t index : picked) items.push_back(value.list()->items[index]);
    return make_list(context, std::move(items), value.list()->kind, value.origin());
  }
  if (value.safe()) context.unsupported("slice of text marked safe");
  const std::vector<size_t> offsets = character_offsets(value.text());
  MarkedString out;
  for (const size_t index : picked)
    out.append(value.as_string(), offsets[index], offsets[index + 1]);
  return Value::string(std::move(out));
}

}  // namespace glm::jinja
