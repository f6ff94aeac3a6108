// What templates call by name: filters, tests, methods, and access to attributes and items.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/jinja_value.h"

namespace glm::jinja {

// The arguments of one call, taken parameter by parameter in the order of the callee's signature.
class Arguments {
 public:
  Arguments(Context& context, std::string callee) : context_(context), callee_(std::move(callee)) {}

  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The next positional argument, else the one of that name, else null.
  const Value* next(std::string_view name);
  const Value& need(std::string_view name);
  bool flag(std::string_view name, bool fallback);
  int64_t integer(std::string_view name, int64_t fallback);
  const MarkedString& need_string(std::string_view name);
  // Moves what is left of the positional arguments, and the named ones, to a call of `callee`.
  Arguments rest(std::string callee);
  bool has_more() const { return taken_ < positional.size(); }
  // Errors on arguments that nothing took.
  void done();
  const std::string& callee() const { return callee_; }

 private:
  Context& context_;
  std::string callee_;
  size_t taken_ = 0;
  std::vector<std::string> used_names_;
};

bool is_filter(std::string_view name);
Value apply_filter(Context& context, std::string_view name, const Value& value, Arguments& args);

bool is_test(std::string_view name);
bool apply_test(Context& context, std::string_view name, const Value& value, Arguments& args);

// value.name and value[key] as Jinja looks them up; what is absent is undefined, but an attribute
// of an undefined value is an error.
Value attribute_of(Context& context, const Value& value, std::string_view name);
Value item_of(Context& context, const Value& value, const Value& key);
// value[begin:end:step]; bounds are integers, none or absent (null).
Value slice_of(
    Context& context, const Value& value, const Value* begin, const Value* end, const Value* step);
Value call_method(Context& context, const Function& method, Arguments& args);

// Operators of Python on two values: + - * / // % **.
Value operate(Context& context, std::string_view name, const Value& a, const Value& b);

// Text operations shared by filters and methods.
MarkedString cased(Context& context, const MarkedString& text, std::string_view how);
MarkedString stripped(const MarkedString& text,
                      const std::string* characters,
                      bool left,
                      bool right);
MarkedString replaced(Context& context,
                      const MarkedString& text,
                      const MarkedString& old,
                      const MarkedString& by,
                      int64_t count);
std::vector<MarkedString> lines_of(const MarkedString& text);
MarkedString joined(Context& context,
                    const MarkedString& separator,
                    const std::vector<Value>& items,
                    bool strings_only);

// Filters on sequences (jinja_sequence_filters.cpp).
bool is_sequence_filter(std::string_view name);
Value apply_sequence_filter(Context& context,
                            std::string_view name,
                            const Value& value,
                            Arguments& args);

}  // namespace glm::jinja
