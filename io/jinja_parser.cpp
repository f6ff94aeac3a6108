// Expressions of chat templates, by recursive descent with Jinja's precedence.
// SPDX-License-Identifier: MIT
#include "io/jinja_parser.h"

#include <algorithm>
#include <charconv>

namespace glm::jinja {
namespace {

constexpr int kMaxNesting = 100;
constexpr int kMaxTreeDepth = 400;

}  // namespace

Parser::Level::Level(Parser& parser) : parser_(parser) {
  if (++parser_.depth_ > kMaxNesting) {
    --parser_.depth_;
    parser_.error("nested too deep");
  }
}

void Parser::error(std::string_view message) const {
  fail(ExitCode::kModelFile, "{}:{}: {}", source_, current().line, escaped(message));
}

bool Parser::is_operator(std::string_view name) const {
  return current().kind == TokenKind::kOperator && current().text == name;
}
bool Parser::is_name(std::string_view name) const {
  return current().kind == TokenKind::kName && current().text == name;
}
bool Parser::skip_operator(std::string_view name) {
  if (!is_operator(name)) return false;
  ++at_;
  return true;
}
bool Parser::skip_name(std::string_view name) {
  if (!is_name(name)) return false;
  ++at_;
  return true;
}

std::string Parser::shown() const {
  switch (current().kind) {
    case TokenKind::kEnd:
      return "the end of the template";
    case TokenKind::kBlockEnd:
    case TokenKind::kVariableEnd:
      return "the end of the tag";
    case TokenKind::kText:
      return "text";
    default:
      return fmt::format("'{}'", current().text);
  }
}

void Parser::expect_operator(std::string_view name) {
  if (!skip_operator(name)) error(fmt::format("expected '{}', found {}", name, shown()));
}
void Parser::expect_name(std::string_view name) {
  if (!skip_name(name)) error(fmt::format("expected '{}', found {}", name, shown()));
}
void Parser::expect(TokenKind kind, std::string_view what) {
  if (current().kind != kind) error(fmt::format("expected {}, found {}", what, shown()));
  ++at_;
}
std::string Parser::take_name() {
  if (current().kind != TokenKind::kName) error(fmt::format("expected a name, found {}", shown()));
  return tokens_[at_++].text;
}

ExpressionPtr Parser::new_expression(ExpressionKind kind) const {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = current().line;
  return node;
}

// Notes the depth of a node whose operands are complete.
ExpressionPtr Parser::finished(ExpressionPtr node) const {
  int depth = 0;
  for (const ExpressionPtr& operand : node->operands)
    if (operand) depth = std::max(depth, operand->depth);
  for (const auto& keyword : node->keywords) depth = std::max(depth, keyword.second->depth);
  node->depth = depth + 1;
  if (node->depth > kMaxTreeDepth) error("an expression is nested too deep");
  return node;
}

ExpressionPtr Parser::binary(ExpressionKind kind,
                             std::string name,
                             ExpressionPtr a,
                             ExpressionPtr b) {
  ExpressionPtr node = new_expression(kind);
  node->name = std::move(name);
  node->line = a->line;
  node->operands.push_back(std::move(a));
  node->operands.push_back(std::move(b));
  return finished(std::move(node));
}

bool Parser::at_tuple_end() const {
  return current().kind == TokenKind::kVariableEnd || current().kind == TokenKind::kBlockEnd ||
         is_operator(")") || is_name("recursive");
}

ExpressionPtr Parser::tuple(bool with_condition) {
  ExpressionPtr node = new_expression(ExpressionKind::kTuple);
  bool is_tuple = false;
  while (!at_tuple_end()) {
    node->operands.push_back(with_condition ? condition() : either());
    if (!skip_operator(",")) break;
    is_tuple = true;
  }
  if (is_tuple) return finished(std::move(node));
  if (node->operands.empty()) error(fmt::format("expected an expression, found {}", shown()));
  return std::move(node->operands[0]);
}

ExpressionPtr Parser::condition() {
  const Level level(*this);
  ExpressionPtr value = either();
  while (is_name("if")) {
    ExpressionPtr node = new_expression(ExpressionKind::kCondition);
    ++at_;
    node->operands.push_back(std::move(value));
    node->operands.push_back(either());
    if (skip_name("else")) node->operands.push_back(condition());
    value = finished(std::move(node));
  }
  return value;
}

ExpressionPtr Parser::either() {
  ExpressionPtr left = both();
  while (skip_name("or")) left = binary(ExpressionKind::kOr, "or", std::move(left), both());
  return left;
}

ExpressionPtr Parser::both() {
  ExpressionPtr left = negation();
  while (skip_name("and")) left = binary(ExpressionKind::kAnd, "and", std::move(left), negation());
  return left;
}

ExpressionPtr Parser::negation() {
  if (!is_name("not")) return comparison();
  const Level level(*this);
  ExpressionPtr node = new_expression(ExpressionKind::kUnary);
  node->name = "not";
  ++at_;
  node->operands.push_back(negation());
  return finished(std::move(node));
}

ExpressionPtr Parser::comparison() {
  ExpressionPtr first = sum();
  ExpressionPtr node = new_expression(ExpressionKind::kCompare);
  while (true) {
    std::string name;
    for (const char* symbol : {"==", "!=", "<", "<=", ">", ">="})
      if (is_operator(symbol)) name = symbol;
    if (!name.empty()) {
      ++at_;
    } else if (skip_name("in")) {
      name = "in";
    } else if (is_name("not") && tokens_[at_ + 1].kind == TokenKind::kName &&
               tokens_[at_ + 1].text == "in") {
      at_ += 2;
      name = "not in";
    } else {
      break;
    }
    node->operators.push_back(std::move(name));
    node->operands.push_back(sum());
  }
  if (node->operators.empty()) return first;
  node->operands.insert(node->operands.begin(), std::move(first));
  return finished(std::move(node));
}

ExpressionPtr Parser::sum() {
  ExpressionPtr left = concatenation();
  while (is_operator("+") || is_operator("-")) {
    const std::string name = tokens_[at_++].text;
    left = binary(ExpressionKind::kBinary, name, std::move(left), concatenation());
  }
  return left;
}

ExpressionPtr Parser::concatenation() {
  ExpressionPtr first = product();
  if (!is_operator("~")) return first;
  ExpressionPtr node = new_expression(ExpressionKind::kConcat);
  node->operands.push_back(std::move(first));
  while (skip_operator("~")) node->operands.push_back(product());
  return finished(std::move(node));
}

ExpressionPtr Parser::product() {
  ExpressionPtr left = power();
  while (is_operator("*") || is_operator("/") || is_operator("//") || is_operator("%")) {
    const std::string name = tokens_[at_++].text;
    left = binary(ExpressionKind::kBinary, name, std::move(left), power());
  }
  return left;
}

ExpressionPtr Parser::power() {
  ExpressionPtr left = unary(true);
  while (skip_operator("**"))
    left = binary(ExpressionKind::kBinary, "**", std::move(left), unary(true));
  return left;
}

ExpressionPtr Parser::unary(bool with_filter) {
  ExpressionPtr node;
  if (is_operator("-") || is_operator("+")) {
    const Level level(*this);
    node = new_expression(ExpressionKind::kUnary);
    node->name = tokens_[at_++].text;
    node->operands.push_back(unary(false));
    node = finished(std::move(node));
  } else {
    node = primary();
  }
  node = postfix(std::move(node));
  return with_filter ? filters_and_tests(std::move(node)) : std::move(node);
}

ExpressionPtr Parser::primary() {
  const Level level(*this);
  const Token& token = current();
  if (token.kind == TokenKind::kName) return name_or_constant();
  if (token.kind == TokenKind::kInteger || token.kind == TokenKind::kFloat) return number();
  if (token.kind == TokenKind::kString) {
    ExpressionPtr node = new_expression(ExpressionKind::kLiteral);
    std::string value;
    while (current().kind == TokenKind::kString) value += tokens_[at_++].text;
    node->literal = Value::string(value);
    return node;
  }
  if (is_operator("[")) return list_display();
  if (is_operator("{")) return dict_display();
  if (skip_operator("(")) {
    if (is_operator(")")) {
      ExpressionPtr empty = new_expression(ExpressionKind::kTuple);
      ++at_;
      return empty;
    }
    ExpressionPtr node = tuple(true);
    expect_operator(")");
    return node;
  }
  error(fmt::format("expected an expression, found {}", shown()));
}

ExpressionPtr Parser::name_or_constant() {
  ExpressionPtr node = new_expression(ExpressionKind::kLiteral);
  const std::string name = take_name();
  if (name == "true" || name == "True") {
    node->literal = Value::boolean(true);
  } else if (name == "false" || name == "False") {
    node->literal = Value::boolean(false);
  } else if (name == "none" || name == "None") {
    node->literal = Value::none();
  } else {
    if (macros_ > 0 && (name == "caller" || name == "varargs" || name == "kwargs"))
      error(fmt::format("unsupported name in a macro: {}", name));
    node->kind = ExpressionKind::kName;
    node->name = name;
  }
  return node;
}

ExpressionPtr Parser::number() {
  ExpressionPtr node = new_expression(ExpressionKind::kLiteral);
  const Token& token = current();
  const char* end = token.text.data() + token.text.size();
  if (token.kind == TokenKind::kFloat) {
    double value = 0;
    const auto result = std::from_chars(token.text.data(), end, value);
    if (result.ec != std::errc{}) error("a number out of range");
    node->literal = Value::real(value);
  } else {
    int64_t value = 0;
    const auto result = std::from_chars(token.text.data(), end, value);
    if (result.ec != std::errc{}) error("unsupported integer of more than 64 bits");
    node->literal = Value::integer(value);
  }
  ++at_;
  return node;
}

ExpressionPtr Parser::list_display() {
  ExpressionPtr node = new_expression(ExpressionKind::kList);
  expect_operator("[");
  while (!is_operator("]")) {
    if (!node->operands.empty()) {
      expect_operator(",");
      if (is_operator("]")) break;
    }
    node->operands.push_back(condition());
  }
  expect_operator("]");
  return finished(std::move(node));
}

ExpressionPtr Parser::dict_display() {
  ExpressionPtr node = new_expression(ExpressionKind::kDict);
  expect_operator("{");
  while (!is_operator("}")) {
    if (!node->operands.empty()) {
      expect_operator(",");
      if (is_operator("}")) break;
    }
    node->operands.push_back(condition());
    expect_operator(":");
    node->operands.push_back(condition());
  }
  expect_operator("}");
  return finished(std::move(node));
}

}  // namespace glm::jinja
