// Running a parsed chat template. SPDX-License-Identifier: MIT
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/jinja_ast.h"
#include "io/jinja_filters.h"

namespace glm::jinja {

// Names bound in a block; what is not found is looked for in the scope around it.
struct Scope {
  std::vector<std::pair<std::string, Value>> names;
  std::shared_ptr<Scope> parent;

  void set(const std::string& name, Value value);
  const Value* find(const std::string& name) const;
};

class Interpreter {
 public:
  // `now`: seconds since 1970 in UTC for strftime_now; without it the local time of the machine.
  Interpreter(std::string source, std::optional<int64_t> now, int64_t steps);

  Context& context() { return context_; }
  void define(const std::string& name, Value value) { scope_->set(name, std::move(value)); }
  // Throws Error(kUsage) "source:line: ..." for what the template cannot take or refuses, and
  // Error(kModelFile) for what the interpreter lacks.
  MarkedString run(const Block& block);

 private:
  enum class Flow : uint8_t { kNormal, kBreak, kContinue };
  struct Level {
    explicit Level(Interpreter& interpreter);
    ~Level() { --interpreter_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    Interpreter& interpreter_;
  };
  struct Enter;

  Flow execute(const Block& block, MarkedString& out);
  Flow execute(const Statement& statement, MarkedString& out);
  Flow execute_if(const Statement& statement, MarkedString& out);
  Flow execute_for(const Statement& statement, MarkedString& out);
  void execute_set_block(const Statement& statement);
  void define_macro(const Statement& statement);
  void write(const Value& value, MarkedString& out);
  std::vector<Value> loop_items(const Statement& statement);
  void assign(const Expression& target, const Value& value);

  Value evaluate(const Expression& node);
  Value evaluate_name(const Expression& node);
  Value evaluate_unary(const Expression& node);
  Value evaluate_concat(const Expression& node);
  bool evaluate_compare(const Expression& node);
  Value evaluate_condition(const Expression& node);
  Value evaluate_display(const Expression& node);
  Value evaluate_slice(const Expression& node);
  Value evaluate_call(const Expression& node);
  Value evaluate_filter(const Expression& node);
  bool evaluate_test(const Expression& node);
  Arguments arguments(const Expression& node, const std::string& callee);
  Value call_macro(const Function& macro, Arguments& args);
  Value call_global(const std::string& name, Arguments& args);
  Value make_range(Arguments& args);
  Value make_namespace(Arguments& args);
  Value format_now(Arguments& args);

  Context context_;
  std::optional<int64_t> now_;
  std::shared_ptr<Scope> scope_;
  std::deque<Namespace> namespaces_;
  Value block_value_;  // text of the set block whose filters are running
  int depth_ = 0;
};

}  // namespace glm::jinja
