// Statements of a running template. SPDX-License-Identifier: MIT
#include "io/jinja_eval.h"

#include <algorithm>

#include "io/jinja_print.h"

namespace glm::jinja {
namespace {

constexpr int kMaxDepth = 1200;

}  // namespace

void Scope::set(const std::string& name, Value value) {
  for (auto& [key, held] : names) {
    if (key != name) continue;
    held = std::move(value);
    return;
  }
  names.emplace_back(name, std::move(value));
}

const Value* Scope::find(const std::string& name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent.get())
    for (const auto& entry : scope->names)
      if (entry.first == name) return &entry.second;
  return nullptr;
}

Interpreter::Level::Level(Interpreter& interpreter) : interpreter_(interpreter) {
  if (++interpreter.depth_ > kMaxDepth) {
    --interpreter.depth_;
    interpreter.context_.error("the template recurses too deep");
  }
  interpreter.context_.charge(1);
}

// A scope of its own until the end of a C++ scope.
struct Interpreter::Enter {
  Enter(Interpreter& interpreter, std::shared_ptr<Scope> parent)
      : interpreter_(interpreter), outer_(std::move(interpreter.scope_)) {
    interpreter.scope_ = std::make_shared<Scope>();
    interpreter.scope_->parent = parent ? std::move(parent) : outer_;
  }
  ~Enter() { interpreter_.scope_ = std::move(outer_); }
  Enter(const Enter&) = delete;
  Enter& operator=(const Enter&) = delete;

  Interpreter& interpreter_;
  std::shared_ptr<Scope> outer_;
};

Interpreter::Interpreter(std::string source, std::optional<int64_t> now, int64_t steps)
    : context_(std::move(source), steps), now_(now), scope_(std::make_shared<Scope>()) {}

MarkedString Interpreter::run(const Block& block) {
  MarkedString out;
  execute(block, out);
  return out;
}

Interpreter::Flow Interpreter::execute(const Block& block, MarkedString& out) {
  for (const StatementPtr& statement : block) {
    const Flow flow = execute(*statement, out);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::execute(const Statement& statement, MarkedString& out) {
  const Level level(*this);
  context_.line = statement.line;
  switch (statement.kind) {
    case StatementKind::kText:
      context_.charge_text(statement.text.size());
      context_.check_size(out.size() + statement.text.size());
      out.append(statement.text, Origin::kTemplate);
      return Flow::kNormal;
    case StatementKind::kOutput:
      write(evaluate(*statement.expression), out);
      return Flow::kNormal;
    case StatementKind::kIf:
      return execute_if(statement, out);
    case StatementKind::kFor:
      return execute_for(statement, out);
    case StatementKind::kSet:
      assign(*statement.target, evaluate(*statement.expression));
      return Flow::kNormal;
    case StatementKind::kSetBlock:
      execute_set_block(statement);
      return Flow::kNormal;
    case StatementKind::kMacro:
      define_macro(statement);
      return Flow::kNormal;
    case StatementKind::kScope: {
      const Enter enter(*this, nullptr);
      return execute(statement.body, out);
    }
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNormal;
}

void Interpreter::write(const Value& value, MarkedString& out) {
  if (value.is_string()) {
    context_.charge_text(value.text().size());
    context_.check_size(out.size() + value.text().size());
    out.append(value.as_string());
    return;
  }
  const MarkedString text = to_text(context_, value);
  context_.charge_text(text.size());
  context_.check_size(out.size() + text.size());
  out.append(text);
}

Interpreter::Flow Interpreter::execute_if(const Statement& statement, MarkedString& out) {
  for (const Branch& branch : statement.branches)
    if (truthy(evaluate(*branch.condition))) return execute(branch.body, out);
  return execute(statement.otherwise, out);
}

std::vector<Value> Interpreter::loop_items(const Statement& statement) {
  std::vector<Value> items = iterate(context_, evaluate(*statement.expression));
  if (!statement.condition) return items;
  std::vector<Value> kept;
  for (Value& item : items) {
    const Enter enter(*this, nullptr);
    assign(*statement.target, item);
    if (truthy(evaluate(*statement.condition))) kept.push_back(std::move(item));
  }
  return kept;
}

Interpreter::Flow Interpreter::execute_for(const Statement& statement, MarkedString& out) {
  const auto loop = std::make_shared<Loop>();
  loop->items = loop_items(statement);
  for (const Value& item : loop->items) loop->depth = std::max(loop->depth, 1 + value_depth(item));
  if (loop->items.empty()) {
    const Enter enter(*this, nullptr);
    return execute(statement.otherwise, out);
  }
  for (; loop->index < loop->items.size(); ++loop->index) {
    context_.charge(1);
    const Enter enter(*this, nullptr);
    scope_->set("loop", Value(std::shared_ptr<const Loop>(loop)));
    assign(*statement.target, loop->items[loop->index]);
    if (execute(statement.body, out) == Flow::kBreak) break;
  }
  return Flow::kNormal;
}

void Interpreter::execute_set_block(const Statement& statement) {
  MarkedString text;
  {
    const Enter enter(*this, nullptr);
    execute(statement.body, text);
  }
  Value value = Value::string(std::move(text));
  if (statement.expression) {
    Value outer = std::exchange(block_value_, value);
    value = evaluate(*statement.expression);
    block_value_ = std::move(outer);
  }
  assign(*statement.target, value);
}

void Interpreter::define_macro(const Statement& statement) {
  auto function = std::make_shared<Function>();
  function->kind = FunctionKind::kMacro;
  function->name = statement.text;
  function->macro = &statement;
  function->scope = scope_;
  scope_->set(statement.text, Value(std::shared_ptr<const Function>(std::move(function))));
}

void Interpreter::assign(const Expression& target, const Value& value) {
  if (target.kind == ExpressionKind::kName) {
    scope_->set(target.name, value);
  } else if (target.kind == ExpressionKind::kTuple) {
    const std::vector<Value> items = iterate(context_, value);
    if (items.size() != target.operands.size())
      context_.error(
          fmt::format("expected {} values, found {}", target.operands.size(), items.size()));
    for (size_t i = 0; i < items.size(); ++i) assign(*target.operands[i], items[i]);
  } else {
    Namespace* space = evaluate(*target.operands[0]).name_space();
    if (space == nullptr) context_.error("cannot assign attribute on non-namespace object");
    for (auto& [key, held] : space->members) {
      if (key != target.name) continue;
      held = value;
      return;
    }
    space->members.emplace_back(target.name, value);
  }
}

Value Interpreter::call_macro(const Function& function, Arguments& args) {
  const Level level(*this);
  const Statement& macro = *function.macro;
  std::shared_ptr<Scope> defined_in = function.scope.lock();
  if (!defined_in) context_.unsupported("call of a macro outside the block that defines it");
  const int line = context_.line;
  MarkedString out;
  {
    const Enter enter(*this, std::move(defined_in));
    // Defaults may name earlier parameters, so each is bound before the next is evaluated.
    for (const Parameter& parameter : macro.parameters) {
      const Value* given = args.next(parameter.name);
      scope_->set(parameter.name,
                  given != nullptr     ? *given
                  : parameter.fallback ? evaluate(*parameter.fallback)
                                       : Value::undefined(parameter.name));
    }
    args.done();
    execute(macro.body, out);
  }
  context_.line = line;
  return Value::string(std::move(out));
}

}  // namespace glm::jinja
