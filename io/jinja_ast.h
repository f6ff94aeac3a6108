// The tree of a parsed chat template. SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "io/jinja_value.h"

namespace glm::jinja {

struct Expression;
struct Statement;
using ExpressionPtr = std::unique_ptr<Expression>;
using StatementPtr = std::unique_ptr<Statement>;
using Block = std::vector<StatementPtr>;

enum class ExpressionKind : uint8_t {
  kLiteral,    // literal
  kName,       // name
  kList,       // operands
  kTuple,      // operands
  kDict,       // operands: key, value, key, value, ...
  kUnary,      // name: "not", "-", "+"
  kBinary,     // name: "+", "-", "*", "/", "//", "%", "**"
  kConcat,     // operands joined as text
  kCompare,    // operands a, b, c, ...; operators between them
  kAnd,        // two operands
  kOr,         // two operands
  kCondition,  // value, condition, and the other value where there is one
  kAttribute,  // operand . name
  kItem,       // operand [ operand ]
  kSlice,      // operand, then begin, end, step; absent ones are null
  kCall,       // callee, then arguments; keywords
  kFilter,     // operand (null: the body of a set block), then arguments; keywords; name
  kTest,       // operand, then arguments; keywords; name
};

struct Expression {
  ExpressionKind kind = ExpressionKind::kLiteral;
  int line = 0;
  int depth = 1;  // of the tree below; bounded by the parser
  std::string name;
  Value literal;
  std::vector<ExpressionPtr> operands;
  std::vector<std::string> operators;
  std::vector<std::pair<std::string, ExpressionPtr>> keywords;
};

enum class StatementKind : uint8_t {
  kText,      // text
  kOutput,    // expression
  kIf,        // branches; otherwise
  kFor,       // target in expression if condition: body; otherwise
  kSet,       // target = expression
  kSetBlock,  // target = body, through expression (a chain of filters) where there is one
  kMacro,     // text (name), parameters, body
  kScope,     // body in a scope of its own (generation blocks)
  kBreak,
  kContinue,
};

struct Branch {
  ExpressionPtr condition;
  Block body;
};

struct Parameter {
  std::string name;
  ExpressionPtr fallback;
};

struct Statement {
  StatementKind kind = StatementKind::kText;
  int line = 0;
  std::string text;
  ExpressionPtr target;  // a name, a tuple of targets, or an attribute of a name
  ExpressionPtr expression;
  ExpressionPtr condition;
  Block body;
  Block otherwise;
  std::vector<Branch> branches;
  std::vector<Parameter> parameters;
};

}  // namespace glm::jinja
