// Filters on sequences. Those that are generators in Python are iterators here: true whatever they
// hold, without a length, and used up by one pass. SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>

#include "io/jinja_filters.h"
#include "io/jinja_print.h"

namespace glm::jinja {
namespace {

constexpr std::array<std::string_view, 16> kSequenceFilters = {"first",
                                                               "last",
                                                               "list",
                                                               "map",
                                                               "select",
                                                               "reject",
                                                               "selectattr",
                                                               "rejectattr",
                                                               "unique",
                                                               "sort",
                                                               "dictsort",
                                                               "reverse",
                                                               "sum",
                                                               "min",
                                                               "max",
                                                               "attr"};

// The attribute at a path like "function.name" or 0.
Value attribute_path(Context& context, Value item, const Value& path, const Value* fallback) {
  if (!path.is_string()) {
    item = item_of(context, item, path);
    return item.is_undefined() && fallback != nullptr ? *fallback : item;
  }
  std::string_view rest = path.text();
  while (true) {
    const size_t dot = rest.find('.');
    const std::string_view part = rest.substr(0, dot);
    const bool is_index =
        !part.empty() && part.size() < 10 &&
        std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    item = item_of(context,
                   item,
                   is_index ? Value::integer(std::stoll(std::string(part))) : Value::string(part));
    if (item.is_undefined() && fallback != nullptr) item = *fallback;
    if (dot == std::string_view::npos) return item;
    rest = rest.substr(dot + 1);
  }
}

Value map_filter(Context& context, const Value& value, Arguments& args) {
  const std::vector<Value> items = iterate(context, value);
  std::vector<Value> out;
  if (!args.has_more()) {
    const Value attribute = args.need("attribute");
    const Value* fallback = args.next("default");
    args.done();
    for (const Value& item : items)
      out.push_back(attribute_path(context, item, attribute, fallback));
    return make_iterator(context, std::move(out));
  }
  const std::string name = args.need_string("filter").text();
  if (!is_filter(name)) context.unsupported(fmt::format("filter '{}'", name));
  const Arguments others = args.rest(name);
  for (const Value& item : items) {
    Arguments own = others;
    out.push_back(apply_filter(context, name, item, own));
  }
  return make_iterator(context, std::move(out));
}

Value select_filter(Context& context, std::string_view name, const Value& value, Arguments& args) {
  const std::vector<Value> items = iterate(context, value);
  const bool by_attribute = name == "selectattr" || name == "rejectattr";
  const bool wanted = name == "select" || name == "selectattr";
  Value attribute = {};
  if (by_attribute) attribute = args.need("attribute");
  std::string test;
  if (args.has_more()) {
    test = args.need_string("test").text();
    if (!is_test(test)) context.unsupported(fmt::format("test '{}'", test));
  }
  const Arguments others = args.rest(test);
  std::vector<Value> out;
  for (const Value& item : items) {
    const Value tested = by_attribute ? attribute_path(context, item, attribute, nullptr) : item;
    Arguments own = others;
    const bool holds = test.empty() ? truthy(tested) : apply_test(context, test, tested, own);
    if (holds == wanted) out.push_back(item);
  }
  return make_iterator(context, std::move(out));
}

// What items are compared by: an attribute, in lower case unless told otherwise.
struct SortKey {
  Context& context;
  bool case_sensitive = false;
  Value attribute = {};
  bool has_attribute = false;

  Value of(const Value& item) const {
    Value key = has_attribute ? attribute_path(context, item, attribute, nullptr) : item;
    if (!case_sensitive && key.is_string())
      key = Value::string(cased(context, key.as_string(), "lower"));
    return key;
  }
  void take_attribute(Arguments& args) {
    const Value* given = args.next("attribute");
    has_attribute = given != nullptr && !given->is<None>();
    if (!has_attribute) return;
    attribute = *given;
    if (attribute.is_string() && attribute.text().find(',') != std::string::npos)
      context.unsupported("sorting by several attributes");
  }
};

std::vector<Value> sorted(Context& context,
                          const std::vector<Value>& items,
                          const std::vector<Value>& keys,
                          bool reverse) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return reverse ? compare(context, keys[b], keys[a]) < 0
                   : compare(context, keys[a], keys[b]) < 0;
  });
  std::vector<Value> out;
  out.reserve(items.size());
  for (const size_t index : order) out.push_back(items[index]);
  return out;
}

std::vector<Value> keys_of(const std::vector<Value>& items, const SortKey& key) {
  std::vector<Value> keys;
  keys.reserve(items.size());
  for (const Value& item : items) keys.push_back(key.of(item));
  return keys;
}

Value sort_filter(Context& context, const Value& value, Arguments& args) {
  const bool reverse = args.flag("reverse", false);
  SortKey key{context};
  key.case_sensitive = args.flag("case_sensitive", false);
  key.take_attribute(args);
  args.done();
  const std::vector<Value> items = iterate(context, value);
  return make_list(context, sorted(context, items, keys_of(items, key), reverse));
}

Value dictsort_filter(Context& context, const Value& value, Arguments& args) {
  SortKey key{context};
  key.case_sensitive = args.flag("case_sensitive", false);
  const Value* by = args.next("by");
  const bool reverse = args.flag("reverse", false);
  args.done();
  const bool by_value = by != nullptr && by->is_string() && by->text() == "value";
  if (value.dict() == nullptr) context.error("dictsort: expected a mapping");
  std::vector<Value> items;
  std::vector<Value> keys;
  for (const auto& [name, member] : value.dict()->entries) {
    items.push_back(make_list(context, {name, member}, ListKind::kTuple, value.origin()));
    keys.push_back(key.of(by_value ? member : name));
  }
  return make_list(context, sorted(context, items, keys, reverse));
}

Value extreme(Context& context, const Value& value, Arguments& args, bool largest) {
  SortKey key{context};
  key.case_sensitive = args.flag("case_sensitive", false);
  key.take_attribute(args);
  args.done();
  const std::vector<Value> items = iterate(context, value);
  if (items.empty()) return Value::undefined("no item, the sequence was empty");
  const std::vector<Value> keys = keys_of(items, key);
  size_t best = 0;
  for (size_t i = 1; i < items.size(); ++i) {
    const int order = compare(context, keys[i], keys[best]);
    if (largest ? order > 0 : order < 0) best = i;
  }
  return items[best];
}

Value unique_filter(Context& context, const Value& value, Arguments& args) {
  SortKey key{context};
  key.case_sensitive = args.flag("case_sensitive", false);
  key.take_attribute(args);
  args.done();
  std::unordered_map<std::string, bool> seen;
  std::vector<Value> out;
  for (const Value& item : iterate(context, value))
    if (seen.emplace(dict_key(context, key.of(item)), true).second) out.push_back(item);
  return make_iterator(context, std::move(out));
}

Value sum_filter(Context& context, const Value& value, Arguments& args) {
  const Value* attribute = args.next("attribute");
  const Value* start = args.next("start");
  args.done();
  Value total = start == nullptr ? Value::integer(0) : *start;
  if (total.is_string()) context.error("sum: cannot sum strings");
  for (const Value& item : iterate(context, value))
    total = operate(context,
                    "+",
                    total,
                    attribute == nullptr || attribute->is<None>()
                        ? item
                        : attribute_path(context, item, *attribute, nullptr));
  return total;
}

Value reverse_filter(Context& context, const Value& value) {
  if (value.is_string()) {
    const Value step = Value::integer(-1);
    return slice_of(context, value, nullptr, nullptr, &step);
  }
  std::vector<Value> items = iterate(context, value);
  std::reverse(items.begin(), items.end());
  // A generator cannot be reversed in place: Python makes it a list first.
  return value.iterator() != nullptr ? make_list(context, std::move(items))
                                     : make_iterator(context, std::move(items));
}

Value first_filter(Context& context, const Value& value) {
  if (Iterator* iterator = value.iterator())
    return iterator->position < iterator->items.size() ? iterator->items[iterator->position++]
                                                       : Value::undefined("first item");
  const std::vector<Value> items = iterate(context, value);
  return items.empty() ? Value::undefined("first item") : items.front();
}

Value last_filter(Context& context, const Value& value) {
  if (value.iterator() != nullptr) context.error("last: a generator cannot be reversed");
  const std::vector<Value> items = iterate(context, value);
  return items.empty() ? Value::undefined("last item") : items.back();
}

}  // namespace

bool is_sequence_filter(std::string_view name) {
  return std::find(kSequenceFilters.begin(), kSequenceFilters.end(), name) !=
         kSequenceFilters.end();
}

Value apply_sequence_filter(Context& context,
                            std::string_view name,
                            const Value& value,
                            Arguments& args) {
  if (name == "map") return map_filter(context, value, args);
  if (name == "sort") return sort_filter(context, value, args);
  if (name == "dictsort") return dictsort_filter(context, value, args);
  if (name == "unique") return unique_filter(context, value, args);
  if (name == "sum") return sum_filter(context, value, args);
  if (name == "min" || name == "max") return extreme(context, value, args, name == "max");
  if (name == "select" || name == "reject" || name == "selectattr" || name == "rejectattr")
    return select_filter(context, name, value, args);
  if (name == "attr") {
    const std::string attribute = args.need_string("name").text();
    args.done();
    if (value.dict() != nullptr) context.unsupported("filter attr on a mapping");
    return attribute_of(context, value, attribute);
  }
  args.done();
  if (name == "first") return first_filter(context, value);
  if (name == "last") return last_filter(context, value);
  if (name == "reverse") return reverse_filter(context, value);
  return make_list(context, iterate(context, value));
}

}  // namespace glm::jinja
