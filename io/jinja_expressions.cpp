// Expressions of a running template, and the functions every template has.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <ctime>

#include "io/jinja_eval.h"
#include "io/jinja_print.h"

namespace glm::jinja {
namespace {

constexpr std::array<std::string_view, 5> kGlobals = {
    "range", "dict", "namespace", "raise_exception", "strftime_now"};
constexpr std::array<std::string_view, 3> kOtherGlobals = {"lipsum", "cycler", "joiner"};
constexpr int64_t kMaxRange = 100'000;  // as in Jinja's sandbox

}  // namespace

Value Interpreter::evaluate(const Expression& node) {
  const Level level(*this);
  context_.line = node.line;
  switch (node.kind) {
    case ExpressionKind::kLiteral:
      return node.literal;
    case ExpressionKind::kName:
      return evaluate_name(node);
    case ExpressionKind::kList:
    case ExpressionKind::kTuple:
    case ExpressionKind::kDict:
      return evaluate_display(node);
    case ExpressionKind::kUnary:
      return evaluate_unary(node);
    case ExpressionKind::kBinary: {
      const Value left = evaluate(*node.operands[0]);
      return operate(context_, node.name, left, evaluate(*node.operands[1]));
    }
    case ExpressionKind::kConcat:
      return evaluate_concat(node);
    case ExpressionKind::kCompare:
      return Value::boolean(evaluate_compare(node));
    case ExpressionKind::kAnd:
    case ExpressionKind::kOr: {
      Value left = evaluate(*node.operands[0]);
      return truthy(left) == (node.kind == ExpressionKind::kOr) ? left
                                                                : evaluate(*node.operands[1]);
    }
    case ExpressionKind::kCondition:
      return evaluate_condition(node);
    case ExpressionKind::kAttribute:
      return attribute_of(context_, evaluate(*node.operands[0]), node.name);
    case ExpressionKind::kItem: {
      const Value container = evaluate(*node.operands[0]);
      return item_of(context_, container, evaluate(*node.operands[1]));
    }
    case ExpressionKind::kSlice:
      return evaluate_slice(node);
    case ExpressionKind::kCall:
      return evaluate_call(node);
    case ExpressionKind::kFilter:
      return evaluate_filter(node);
    case ExpressionKind::kTest:
      return Value::boolean(evaluate_test(node));
  }
  return {};
}

Value Interpreter::evaluate_name(const Expression& node) {
  if (const Value* value = scope_->find(node.name)) return *value;
  if (std::find(kGlobals.begin(), kGlobals.end(), node.name) != kGlobals.end()) {
    auto function = std::make_shared<Function>();
    function->name = node.name;
    return Value(std::shared_ptr<const Function>(std::move(function)));
  }
  if (std::find(kOtherGlobals.begin(), kOtherGlobals.end(), node.name) != kOtherGlobals.end())
    context_.unsupported(fmt::format("function {}", node.name));
  return Value::undefined(node.name);
}

Value Interpreter::evaluate_unary(const Expression& node) {
  const Value value = evaluate(*node.operands[0]);
  if (node.name == "not") return Value::boolean(!truthy(value));
  if (!value.is_number())
    context_.error(fmt::format("bad operand for {}: '{}'", node.name, type_name(value)));
  if (const double* real = value.get<double>(); real != nullptr && node.name == "-")
    return Value::real(-*real);
  return operate(context_, node.name, Value::integer(0), value);
}

Value Interpreter::evaluate_concat(const Expression& node) {
  MarkedString out;
  for (const ExpressionPtr& operand : node.operands) write(evaluate(*operand), out);
  context_.charge_text(out.size());
  return Value::string(std::move(out));
}

bool Interpreter::evaluate_compare(const Expression& node) {
  Value left = evaluate(*node.operands[0]);
  for (size_t i = 0; i < node.operators.size(); ++i) {
    Value right = evaluate(*node.operands[i + 1]);
    const std::string& name = node.operators[i];
    bool holds = false;
    if (name == "==" || name == "!=") {
      holds = equal(context_, left, right) == (name == "==");
    } else if (name == "in" || name == "not in") {
      holds = contains(context_, right, left) == (name == "in");
    } else {
      const int order = compare(context_, left, right);
      holds = name == "<"    ? order < 0
              : name == "<=" ? order <= 0
              : name == ">"  ? order > 0
                             : order >= 0;
    }
    if (!holds) return false;
    left = std::move(right);
  }
  return true;
}

Value Interpreter::evaluate_condition(const Expression& node) {
  if (truthy(evaluate(*node.operands[1]))) return evaluate(*node.operands[0]);
  return node.operands.size() > 2 ? evaluate(*node.operands[2])
                                  : Value::undefined("the value of an if without else");
}

Value Interpreter::evaluate_display(const Expression& node) {
  if (node.kind == ExpressionKind::kDict) {
    std::vector<std::pair<Value, Value>> entries;
    for (size_t i = 0; i + 1 < node.operands.size(); i += 2) {
      Value key = evaluate(*node.operands[i]);
      entries.emplace_back(std::move(key), evaluate(*node.operands[i + 1]));
    }
    return make_dict(context_, std::move(entries));
  }
  std::vector<Value> items;
  for (const ExpressionPtr& operand : node.operands) items.push_back(evaluate(*operand));
  return make_list(context_,
                   std::move(items),
                   node.kind == ExpressionKind::kTuple ? ListKind::kTuple : ListKind::kList);
}

Value Interpreter::evaluate_slice(const Expression& node) {
  const Value value = evaluate(*node.operands[0]);
  std::array<Value, 3> bounds;
  std::array<const Value*, 3> given{};
  for (size_t i = 0; i < bounds.size(); ++i) {
    if (!node.operands[i + 1]) continue;
    bounds[i] = evaluate(*node.operands[i + 1]);
    given[i] = &bounds[i];
  }
  return slice_of(context_, value, given[0], given[1], given[2]);
}

Arguments Interpreter::arguments(const Expression& node, const std::string& callee) {
  Arguments args(context_, callee);
  for (size_t i = 1; i < node.operands.size(); ++i)
    args.positional.push_back(evaluate(*node.operands[i]));
  for (const auto& [name, value] : node.keywords) args.named.emplace_back(name, evaluate(*value));
  context_.line = node.line;
  return args;
}

Value Interpreter::evaluate_call(const Expression& node) {
  const Value callee = evaluate(*node.operands[0]);
  if (callee.is_undefined())
    context_.error(fmt::format("'{}' is undefined", callee.get<Undefined>()->name));
  const Function* function = callee.function();
  if (callee.loop() != nullptr) context_.unsupported("recursive loop");
  if (function == nullptr)
    context_.error(fmt::format("'{}' object is not callable", type_name(callee)));
  Arguments args = arguments(node, function->name);
  switch (function->kind) {
    case FunctionKind::kGlobal:
      return call_global(function->name, args);
    case FunctionKind::kMethod:
      return call_method(context_, *function, args);
    case FunctionKind::kMacro:
      return call_macro(*function, args);
  }
  return {};
}

Value Interpreter::evaluate_filter(const Expression& node) {
  const Value value = node.operands[0] ? evaluate(*node.operands[0]) : block_value_;
  Arguments args = arguments(node, node.name);
  return apply_filter(context_, node.name, value, args);
}

bool Interpreter::evaluate_test(const Expression& node) {
  const Value value = evaluate(*node.operands[0]);
  Arguments args = arguments(node, node.name);
  return apply_test(context_, node.name, value, args);
}

Value Interpreter::call_global(const std::string& name, Arguments& args) {
  if (name == "range") return make_range(args);
  if (name == "namespace") return make_namespace(args);
  if (name == "strftime_now") return format_now(args);
  if (name == "raise_exception") {
    const MarkedString message = to_text(context_, args.need("message"));
    args.done();
    context_.error(message.text());
  }
  std::vector<std::pair<Value, Value>> entries;
  if (args.has_more()) {
    const Value source = args.need("mapping");
    if (source.dict() == nullptr) context_.unsupported("dict() of a sequence");
    entries = source.dict()->entries;
  }
  const Arguments named = args.rest(name);
  args.done();
  for (const auto& [key, value] : named.named) entries.emplace_back(Value::string(key), value);
  return make_dict(context_, std::move(entries));
}

Value Interpreter::make_range(Arguments& args) {
  int64_t begin = 0;
  int64_t end = integer_of(context_, args.need("stop"), "range");
  if (args.has_more()) begin = std::exchange(end, args.integer("stop", 0));
  const int64_t step = args.integer("step", 1);
  args.done();
  if (step == 0) context_.error("range() step must not be zero");
  std::vector<Value> items;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (static_cast<int64_t>(items.size()) == kMaxRange)
      context_.error("range of more than 100000 numbers");
    items.push_back(Value::integer(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return make_list(context_, std::move(items), ListKind::kRange);
}

Value Interpreter::make_namespace(Arguments& args) {
  context_.charge(16);
  Namespace space;
  if (args.has_more()) {
    const Value source = args.need("mapping");
    if (source.dict() == nullptr) context_.unsupported("namespace() of a sequence");
    for (const auto& [key, value] : source.dict()->entries)
      space.members.emplace_back(to_text(context_, key).text(), value);
  }
  const Arguments named = args.rest("namespace");
  args.done();
  for (const auto& entry : named.named) space.members.push_back(entry);
  namespaces_.push_back(std::move(space));
  return Value(&namespaces_.back());
}

Value Interpreter::format_now(Arguments& args) {
  const MarkedString format = args.need_string("format");
  args.done();
  const std::time_t seconds = now_ ? static_cast<std::time_t>(*now_) : std::time(nullptr);
  std::tm parts{};
  now_ ? gmtime_r(&seconds, &parts) : localtime_r(&seconds, &parts);
  if (format.size() > 200) context_.error("strftime_now: the format is too long");
  std::array<char, 16384> buffer{};
  const size_t size = std::strftime(buffer.data(), buffer.size(), format.text().c_str(), &parts);
  // One origin for all: what comes of a byte of the format is not known.
  const Text runs = format.runs();
  const bool trusted = std::all_of(
      runs.begin(), runs.end(), [](const TextRun& run) { return run.origin == Origin::kTemplate; });
  return Value::string(MarkedString(std::string_view(buffer.data(), size),
                                    trusted ? Origin::kTemplate : Origin::kPlain));
}

}  // namespace glm::jinja
