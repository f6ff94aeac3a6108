// Values of a running template: what Python has, as far as chat templates use it. Immutable but for
// namespaces and iterators. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "core/base/check.h"
#include "io/marked_string.h"

namespace glm::jinja {

struct Statement;
struct Scope;
class Value;

// Where an evaluation stands and what it may still use.
class Context {
 public:
  Context(std::string source, int64_t steps) : source_(std::move(source)), steps_left_(steps) {}

  int line = 0;

  // The template cannot take this input: Error(kUsage) "source:line: ...".
  [[noreturn]] void error(std::string_view message) const;
  // A construct outside the interpreter: Error(kModelFile) "source:line: unsupported ...".
  [[noreturn]] void unsupported(std::string_view what) const;
  // Accounts for work or memory of `units`; Error(kUsage) when the budget is used up.
  void charge(int64_t units);
  // Refuses strings above the limit of the output, before they are built.
  void check_size(uint64_t bytes) const;
  // The same, and accounts for building it.
  void charge_text(uint64_t bytes);
  // Accounts for a list of so many items, before it is built.
  void charge_items(uint64_t items);

 private:
  std::string source_;
  int64_t steps_left_;
};

inline constexpr uint64_t kMaxStringBytes = uint64_t{64} << 20;
inline constexpr uint64_t kMaxItems = 1'000'000;
inline constexpr int kMaxValueDepth = 200;

struct Undefined {
  std::string name;  // for messages
};
struct None {};

// What Python would call the container; it decides on printing and JSON.
enum class ListKind : uint8_t { kList, kTuple, kRange, kView };

struct List {
  ListKind kind = ListKind::kList;
  std::vector<Value> items;
  int depth = 1;
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;  // in order of insertion
  std::unordered_map<std::string, size_t> index;
  int depth = 1;

  const Value* find(std::string_view key) const;
};

// A generator: each item can be had once.
struct Iterator {
  std::vector<Value> items;
  size_t position = 0;
  int depth = 1;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> members;
};

struct Loop {
  std::vector<Value> items;
  size_t index = 0;
  int depth = 1;
};

enum class FunctionKind : uint8_t { kGlobal, kMethod, kMacro };
struct Function;

class Value {
 public:
  using Data = std::variant<Undefined,
                            None,
                            bool,
                            int64_t,
                            double,
                            std::shared_ptr<const MarkedString>,
                            std::shared_ptr<const List>,
                            std::shared_ptr<const Dict>,
                            std::shared_ptr<Iterator>,
                            Namespace*,  // owned by the interpreter
                            std::shared_ptr<const Loop>,
                            std::shared_ptr<const Function>>;

  Value() = default;
  Value(Data data, Origin origin = Origin::kTemplate) : data_(std::move(data)), origin_(origin) {}
  static Value undefined(std::string_view name) { return Value(Undefined{std::string(name)}); }
  static Value none() { return Value(None{}); }
  static Value boolean(bool value) { return Value(value); }
  static Value integer(int64_t value) { return Value(value); }
  static Value real(double value) { return Value(value); }
  static Value string(MarkedString text);
  static Value string(std::string_view text) { return string({text, Origin::kTemplate}); }

  template <class T>
  bool is() const {
    return std::holds_alternative<T>(data_);
  }
  template <class T>
  const T* get() const {
    return std::get_if<T>(&data_);
  }
  bool is_undefined() const { return is<Undefined>(); }
  bool is_string() const { return is<std::shared_ptr<const MarkedString>>(); }
  bool is_number() const { return is<bool>() || is<int64_t>() || is<double>(); }
  const MarkedString& as_string() const {
    return *std::get<std::shared_ptr<const MarkedString>>(data_);
  }
  const std::string& text() const { return as_string().text(); }
  const List* list() const;
  const Dict* dict() const;
  Iterator* iterator() const;
  const Loop* loop() const;
  const Function* function() const;
  Namespace* name_space() const;
  Origin origin() const { return origin_; }
  // Made by `safe`: text that must not meet an operation which would escape in Python.
  bool safe() const { return safe_; }
  Value as_safe() const;

 private:
  Data data_;
  Origin origin_ = Origin::kTemplate;  // of scalars and containers; strings carry their own
  bool safe_ = false;
};

struct Function {
  FunctionKind kind = FunctionKind::kGlobal;
  std::string name;
  Value self;                        // kMethod
  const Statement* macro = nullptr;  // kMacro
  std::weak_ptr<Scope> scope;        // kMacro: where it was defined
};

Value make_list(Context& context,
                std::vector<Value> items,
                ListKind kind = ListKind::kList,
                Origin origin = Origin::kTemplate);
Value make_iterator(Context& context, std::vector<Value> items);
// Later entries with an equal key replace earlier ones in place.
Value make_dict(Context& context,
                std::vector<std::pair<Value, Value>> entries,
                Origin origin = Origin::kTemplate);
Value make_method(const Value& self, std::string_view name);

// Python's name of the type, for messages.
std::string_view type_name(const Value& value);
bool truthy(const Value& value);
// Distance to the deepest value inside; 0 for scalars.
int value_depth(const Value& value);
// Identity of a key in a dict; errors for what Python cannot hash.
std::string dict_key(Context& context, const Value& key);
bool equal(Context& context, const Value& a, const Value& b);
// -1, 0, 1; errors where Python has no order.
int compare(Context& context, const Value& a, const Value& b);
bool contains(Context& context, const Value& container, const Value& item);
// The items of an iterable; an iterator is used up.
std::vector<Value> iterate(Context& context, const Value& value);
// len(); errors where Python has none.
int64_t length(Context& context, const Value& value);
// Integer value of an int or bool argument; errors otherwise.
int64_t integer_of(Context& context, const Value& value, std::string_view what);

// Byte positions of the characters, and the end.
std::vector<size_t> character_offsets(std::string_view text);

}  // namespace glm::jinja
