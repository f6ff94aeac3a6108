// Values of a running template: construction, truth, equality, order and iteration as in Python.
// SPDX-License-Identifier: MIT
#include "io/jinja_value.h"

#include <algorithm>
#include <cmath>

#include "io/unicode.h"

namespace glm::jinja {

void Context::error(std::string_view message) const {
  fail(ExitCode::kUsage, "{}:{}: {}", source_, line, escaped(message, 400));
}

void Context::unsupported(std::string_view what) const {
  fail(ExitCode::kModelFile, "{}:{}: unsupported {}", source_, line, escaped(what));
}

void Context::charge(int64_t units) {
  steps_left_ -= units;
  if (steps_left_ < 0) error("the template takes too many steps");
}

void Context::check_size(uint64_t bytes) const {
  if (bytes > kMaxStringBytes) error("the template makes a text of more than 64 MiB");
}

void Context::charge_text(uint64_t bytes) {
  check_size(bytes);
  charge(static_cast<int64_t>(bytes / 32) + 1);
}

void Context::charge_items(uint64_t items) {
  if (items > kMaxItems) error("the template makes a list of more than a million items");
  charge(static_cast<int64_t>(items) * 4);
}

const Value* Dict::find(std::string_view key) const {
  const auto found = index.find(std::string(key));
  return found == index.end() ? nullptr : &entries[found->second].second;
}

Value Value::string(MarkedString text) {
  return Value(std::make_shared<const MarkedString>(std::move(text)));
}

const List* Value::list() const {
  const auto* held = get<std::shared_ptr<const List>>();
  return held == nullptr ? nullptr : held->get();
}
const Dict* Value::dict() const {
  const auto* held = get<std::shared_ptr<const Dict>>();
  return held == nullptr ? nullptr : held->get();
}
Iterator* Value::iterator() const {
  const auto* held = get<std::shared_ptr<Iterator>>();
  return held == nullptr ? nullptr : held->get();
}
const Loop* Value::loop() const {
  const auto* held = get<std::shared_ptr<const Loop>>();
  return held == nullptr ? nullptr : held->get();
}
const Function* Value::function() const {
  const auto* held = get<std::shared_ptr<const Function>>();
  return held == nullptr ? nullptr : held->get();
}
Namespace* Value::name_space() const {
  const auto* held = get<Namespace*>();
  return held == nullptr ? nullptr : *held;
}

Value Value::as_safe() const {
  Value copy = *this;
  copy.safe_ = true;
  return copy;
}

namespace {

int depth_of(Context& context, const std::vector<Value>& items) {
  context.charge_items(items.size());
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, value_depth(item));
  if (depth >= kMaxValueDepth) context.error("values are nested too deep");
  return depth + 1;
}

long double as_real(const Value& value) {
  if (const bool* flag = value.get<bool>()) return *flag ? 1 : 0;
  if (const int64_t* integer = value.get<int64_t>()) return static_cast<long double>(*integer);
  return *value.get<double>();
}

bool equal_lists(Context& context, const List& a, const List& b) {
  if (a.kind != b.kind || a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i)
    if (!equal(context, a.items[i], b.items[i])) return false;
  return true;
}

bool equal_dicts(Context& context, const Dict& a, const Dict& b) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    const Value* other = b.find(dict_key(context, key));
    if (other == nullptr || !equal(context, value, *other)) return false;
  }
  return true;
}

}  // namespace

Value make_list(Context& context, std::vector<Value> items, ListKind kind, Origin origin) {
  auto list = std::make_shared<List>();
  list->kind = kind;
  list->depth = depth_of(context, items);
  list->items = std::move(items);
  return Value(std::shared_ptr<const List>(std::move(list)), origin);
}

Value make_iterator(Context& context, std::vector<Value> items) {
  auto iterator = std::make_shared<Iterator>();
  iterator->depth = depth_of(context, items);
  iterator->items = std::move(items);
  return Value(std::move(iterator));
}

Value make_dict(Context& context, std::vector<std::pair<Value, Value>> entries, Origin origin) {
  auto dict = std::make_shared<Dict>();
  context.charge(static_cast<int64_t>(entries.size()));
  int depth = 0;
  for (auto& [key, value] : entries) {
    depth = std::max({depth, value_depth(value), value_depth(key)});
    const auto [found, fresh] = dict->index.emplace(dict_key(context, key), dict->entries.size());
    if (fresh) {
      dict->entries.emplace_back(std::move(key), std::move(value));
    } else {
      dict->entries[found->second].second = std::move(value);
    }
  }
  if (depth >= kMaxValueDepth) context.error("values are nested too deep");
  dict->depth = depth + 1;
  return Value(std::shared_ptr<const Dict>(std::move(dict)), origin);
}

Value make_method(const Value& self, std::string_view name) {
  auto function = std::make_shared<Function>();
  function->kind = FunctionKind::kMethod;
  function->name = name;
  function->self = self;
  return Value(std::shared_ptr<const Function>(std::move(function)));
}

std::string_view type_name(const Value& value) {
  if (value.is<Undefined>()) return "Undefined";
  if (value.is<None>()) return "NoneType";
  if (value.is<bool>()) return "bool";
  if (value.is<int64_t>()) return "int";
  if (value.is<double>()) return "float";
  if (value.is_string()) return "str";
  if (value.dict() != nullptr) return "dict";
  if (value.iterator() != nullptr) return "generator";
  if (value.name_space() != nullptr) return "Namespace";
  if (value.loop() != nullptr) return "LoopContext";
  if (value.function() != nullptr) return "function";
  switch (value.list()->kind) {
    case ListKind::kList:
      return "list";
    case ListKind::kTuple:
      return "tuple";
    case ListKind::kRange:
      return "range";
    case ListKind::kView:
      return "dict view";
  }
  return "object";
}

bool truthy(const Value& value) {
  if (value.is<Undefined>() || value.is<None>()) return false;
  if (value.is_number()) return as_real(value) != 0;
  if (value.is_string()) return !value.as_string().empty();
  if (const List* list = value.list()) return !list->items.empty();
  if (const Dict* dict = value.dict()) return !dict->entries.empty();
  return true;
}

int value_depth(const Value& value) {
  if (const List* list = value.list()) return list->depth;
  if (const Dict* dict = value.dict()) return dict->depth;
  if (const Iterator* iterator = value.iterator()) return iterator->depth;
  if (const Loop* loop = value.loop()) return loop->depth;
  if (const Function* function = value.function()) return 1 + value_depth(function->self);
  return 0;
}

std::string dict_key(Context& context, const Value& key) {
  if (key.is_string()) return key.text();
  if (key.is<None>()) return std::string("\0none", 5);
  if (key.is_number()) return std::string("\0n", 2) + fmt::format("{}", as_real(key));
  if (key.list() != nullptr && key.list()->kind == ListKind::kTuple) {
    std::string joined("\0t", 2);
    for (const Value& item : key.list()->items) {
      const std::string part = dict_key(context, item);
      joined += fmt::format("{}:", part.size()) + part;
    }
    return joined;
  }
  if (key.is_undefined()) return std::string("\0undefined", 10);
  context.error(fmt::format("unhashable type: '{}'", type_name(key)));
}

bool equal(Context& context, const Value& a, const Value& b) {
  context.charge(1);
  if (a.is_number() && b.is_number()) return as_real(a) == as_real(b);
  if (a.is_string() && b.is_string()) return a.text() == b.text();
  if (a.is<None>() && b.is<None>()) return true;
  if (a.is_undefined() && b.is_undefined()) return true;
  if (a.list() != nullptr && b.list() != nullptr)
    return a.list() == b.list() || equal_lists(context, *a.list(), *b.list());
  if (a.dict() != nullptr && b.dict() != nullptr)
    return a.dict() == b.dict() || equal_dicts(context, *a.dict(), *b.dict());
  return (a.name_space() != nullptr && a.name_space() == b.name_space()) ||
         (a.iterator() != nullptr && a.iterator() == b.iterator()) ||
         (a.loop() != nullptr && a.loop() == b.loop()) ||
         (a.function() != nullptr && a.function() == b.function());
}

int compare(Context& context, const Value& a, const Value& b) {
  context.charge(1);
  if (a.is_number() && b.is_number()) {
    const long double x = as_real(a);
    const long double y = as_real(b);
    return x < y ? -1 : x > y ? 1 : 0;
  }
  // The order of UTF-8 is the order of code points.
  if (a.is_string() && b.is_string()) {
    const int order = a.text().compare(b.text());
    return order < 0 ? -1 : order > 0 ? 1 : 0;
  }
  const List* x = a.list();
  const List* y = b.list();
  if (x != nullptr && y != nullptr && x->kind == y->kind &&
      (x->kind == ListKind::kList || x->kind == ListKind::kTuple)) {
    for (size_t i = 0; i < std::min(x->items.size(), y->items.size()); ++i)
      if (!equal(context, x->items[i], y->items[i]))
        return compare(context, x->items[i], y->items[i]);
    return x->items.size() < y->items.size() ? -1 : x->items.size() > y->items.size() ? 1 : 0;
  }
  context.error(fmt::format("no order between '{}' and '{}'", type_name(a), type_name(b)));
}

bool contains(Context& context, const Value& container, const Value& item) {
  if (container.is_string()) {
    if (!item.is_string())
      context.error(fmt::format("'in <string>' requires string, not {}", type_name(item)));
    context.charge(static_cast<int64_t>(container.text().size() / 64));
    return container.text().find(item.text()) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) return dict->find(dict_key(context, item)) != nullptr;
  if (const List* list = container.list()) {
    for (const Value& element : list->items)
      if (equal(context, element, item)) return true;
    return false;
  }
  for (const Value& element : iterate(context, container))
    if (equal(context, element, item)) return true;
  return false;
}

std::vector<Value> iterate(Context& context, const Value& value) {
  std::vector<Value> items;
  if (value.is_undefined()) return items;
  if (const List* list = value.list()) {
    items = list->items;
  } else if (const Dict* dict = value.dict()) {
    for (const auto& entry : dict->entries) items.push_back(entry.first);
  } else if (Iterator* iterator = value.iterator()) {
    items.assign(iterator->items.begin() + static_cast<std::ptrdiff_t>(iterator->position),
                 iterator->items.end());
    iterator->position = iterator->items.size();
  } else if (value.is_string()) {
    const std::vector<size_t> offsets = character_offsets(value.text());
    context.charge(static_cast<int64_t>(offsets.size()));
    for (size_t i = 0; i + 1 < offsets.size(); ++i)
      items.push_back(Value::string(value.as_string().slice(offsets[i], offsets[i + 1])));
  } else {
    context.error(fmt::format("'{}' object is not iterable", type_name(value)));
  }
  context.charge(static_cast<int64_t>(items.size()));
  return items;
}

int64_t length(Context& context, const Value& value) {
  if (value.is_undefined()) return 0;
  if (value.is_string()) return static_cast<int64_t>(character_offsets(value.text()).size()) - 1;
  if (const List* list = value.list()) return static_cast<int64_t>(list->items.size());
  if (const Dict* dict = value.dict()) return static_cast<int64_t>(dict->entries.size());
  if (const Loop* loop = value.loop()) return static_cast<int64_t>(loop->items.size());
  context.error(fmt::format("object of type '{}' has no len()", type_name(value)));
}

int64_t integer_of(Context& context, const Value& value, std::string_view what) {
  if (const int64_t* integer = value.get<int64_t>()) return *integer;
  if (const bool* flag = value.get<bool>()) return *flag ? 1 : 0;
  context.error(fmt::format("{}: expected an integer, found {}", what, type_name(value)));
}

std::vector<size_t> character_offsets(std::string_view text) {
  std::vector<size_t> offsets;
  offsets.reserve(text.size() + 1);
  for (size_t at = 0; at < text.size(); at += std::max<size_t>(utf8_length(text, at), 1))
    offsets.push_back(at);
  offsets.push_back(text.size());
  return offsets;
}

}  // namespace glm::jinja
