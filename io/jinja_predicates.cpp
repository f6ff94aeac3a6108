// Tests: what stands behind "is". SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <cmath>

#include "io/jinja_filters.h"
#include "io/jinja_print.h"

namespace glm::jinja {
namespace {

constexpr std::array<std::string_view, 37> kTests = {
    "defined", "undefined", "none",     "string", "number",   "integer", "float", "boolean",
    "mapping", "iterable",  "sequence", "true",   "false",    "odd",     "even",  "divisibleby",
    "in",      "eq",        "equalto",  "==",     "ne",       "!=",      "gt",    "greaterthan",
    ">",       "ge",        ">=",       "lt",     "lessthan", "<",       "le",    "<=",
    "sameas",  "callable",  "upper",    "lower",  "filter"};

bool is_kind(std::string_view name, const Value& value) {
  if (name == "defined") return !value.is_undefined();
  if (name == "undefined") return value.is_undefined();
  if (name == "none") return value.is<None>();
  if (name == "string") return value.is_string();
  if (name == "number") return value.is_number();
  if (name == "integer") return value.is<int64_t>();
  if (name == "float") return value.is<double>();
  if (name == "boolean") return value.is<bool>();
  if (name == "true") return value.is<bool>() && truthy(value);
  if (name == "false") return value.is<bool>() && !truthy(value);
  if (name == "mapping") return value.dict() != nullptr;
  if (name == "callable") return value.function() != nullptr;
  // An undefined value has the methods of an empty sequence.
  const bool sized = value.is_undefined() || value.is_string() || value.dict() != nullptr;
  if (name == "sequence")
    return sized || (value.list() != nullptr && value.list()->kind != ListKind::kView);
  return sized || value.list() != nullptr || value.iterator() != nullptr || value.loop() != nullptr;
}

bool relation(Context& context, std::string_view name, const Value& a, const Value& b) {
  if (name == "eq" || name == "equalto" || name == "==") return equal(context, a, b);
  if (name == "ne" || name == "!=") return !equal(context, a, b);
  if (name == "in") return contains(context, b, a);
  if (name == "sameas") {
    if (a.is_string() || a.is<int64_t>() || a.is<double>())
      context.unsupported("test sameas on text or numbers");
    return a.list() == b.list() && a.dict() == b.dict() && type_name(a) == type_name(b) &&
           equal(context, a, b);
  }
  const int order = compare(context, a, b);
  if (name == "gt" || name == "greaterthan" || name == ">") return order > 0;
  if (name == "ge" || name == ">=") return order >= 0;
  if (name == "lt" || name == "lessthan" || name == "<") return order < 0;
  return order <= 0;
}

bool divides(Context& context, const Value& value, const Value& divisor, int64_t remainder) {
  const Value rest = operate(context, "%", value, divisor);
  return equal(context, rest, Value::integer(remainder));
}

}  // namespace

bool is_test(std::string_view name) {
  return std::find(kTests.begin(), kTests.end(), name) != kTests.end();
}

bool apply_test(Context& context, std::string_view name, const Value& value, Arguments& args) {
  context.charge(1);
  if (name == "odd" || name == "even") {
    args.done();
    return divides(context, value, Value::integer(2), name == "odd" ? 1 : 0);
  }
  if (name == "divisibleby") {
    const Value divisor = args.need("num");
    args.done();
    return divides(context, value, divisor, 0);
  }
  if (name == "upper" || name == "lower") {
    args.done();
    const MarkedString text = to_text(context, value);
    const bool has_case =
        cased(context, text, "upper").text() != cased(context, text, "lower").text();
    return has_case && cased(context, text, name).text() == text.text();
  }
  if (name == "filter") {
    args.done();
    return value.is_string() && is_filter(value.text());
  }
  const auto* const last_kind = std::find(kTests.begin(), kTests.end(), "false");
  if (std::find(kTests.begin(), last_kind + 1, name) != last_kind + 1 || name == "callable") {
    args.done();
    return is_kind(name, value);
  }
  const Value other = args.need("other");
  args.done();
  return relation(context, name, value, other);
}

}  // namespace glm::jinja
