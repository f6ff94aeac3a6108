// What follows an operand in chat templates: attributes, items, calls, filters and tests.
// SPDX-License-Identifier: MIT
#include "io/jinja_filters.h"
#include "io/jinja_parser.h"

namespace glm::jinja {

ExpressionPtr Parser::postfix(ExpressionPtr node) {
  while (true) {
    if (is_operator(".") || is_operator("[")) {
      node = subscript(std::move(node));
    } else if (is_operator("(")) {
      ExpressionPtr call = new_expression(ExpressionKind::kCall);
      call->operands.push_back(std::move(node));
      arguments(*call);
      node = finished(std::move(call));
    } else {
      return node;
    }
  }
}

ExpressionPtr Parser::filters_and_tests(ExpressionPtr node) {
  while (true) {
    if (is_operator("|")) {
      node = filter(std::move(node));
    } else if (is_name("is")) {
      node = test(std::move(node));
    } else if (is_operator("(")) {
      error("unsupported call of the result of a filter or test");
    } else {
      return node;
    }
  }
}

ExpressionPtr Parser::subscript(ExpressionPtr node) {
  if (!skip_operator(".")) return item(std::move(node));
  if (current().kind == TokenKind::kInteger) {
    ExpressionPtr index = number();
    return binary(ExpressionKind::kItem, "", std::move(node), std::move(index));
  }
  ExpressionPtr attribute = new_expression(ExpressionKind::kAttribute);
  attribute->name = take_name();
  attribute->operands.push_back(std::move(node));
  return finished(std::move(attribute));
}

ExpressionPtr Parser::item(ExpressionPtr node) {
  ExpressionPtr result = new_expression(ExpressionKind::kItem);
  expect_operator("[");
  result->operands.push_back(std::move(node));
  if (!is_operator(":")) {
    ExpressionPtr index = condition();
    if (skip_operator("]")) {
      result->operands.push_back(std::move(index));
      return finished(std::move(result));
    }
    result->operands.push_back(std::move(index));
  } else {
    result->operands.push_back(nullptr);
  }
  result->kind = ExpressionKind::kSlice;
  for (int part = 0; part < 2; ++part) {
    ExpressionPtr bound;
    if (skip_operator(":") && !is_operator(":") && !is_operator("]")) bound = condition();
    result->operands.push_back(std::move(bound));
  }
  if (is_operator(",")) error("unsupported subscript with a comma");
  expect_operator("]");
  return finished(std::move(result));
}

void Parser::arguments(Expression& call) {
  expect_operator("(");
  bool first = true;
  while (!is_operator(")")) {
    if (!first) {
      expect_operator(",");
      if (is_operator(")")) break;
    }
    first = false;
    if (is_operator("*") || is_operator("**")) error("unsupported * or ** in a call");
    if (current().kind == TokenKind::kName && tokens_[at_ + 1].kind == TokenKind::kOperator &&
        tokens_[at_ + 1].text == "=") {
      std::string name = take_name();
      ++at_;
      for (const auto& keyword : call.keywords)
        if (keyword.first == name) error(fmt::format("argument {} stands twice", name));
      call.keywords.emplace_back(std::move(name), condition());
    } else {
      if (!call.keywords.empty()) error("a positional argument behind a named one");
      call.operands.push_back(condition());
    }
  }
  expect_operator(")");
}

ExpressionPtr Parser::filter(ExpressionPtr node) {
  expect_operator("|");
  ExpressionPtr result = new_expression(ExpressionKind::kFilter);
  result->name = take_name();
  if (!is_filter(result->name)) error(fmt::format("unsupported filter '{}'", result->name));
  result->operands.push_back(std::move(node));
  if (is_operator("(")) arguments(*result);
  return finished(std::move(result));
}

ExpressionPtr Parser::test(ExpressionPtr node) {
  expect_name("is");
  const bool negated = skip_name("not");
  ExpressionPtr result = new_expression(ExpressionKind::kTest);
  result->name = take_name();
  if (!is_test(result->name)) error(fmt::format("unsupported test '{}'", result->name));
  result->operands.push_back(std::move(node));
  const TokenKind kind = current().kind;
  if (is_operator("(")) {
    arguments(*result);
  } else if (is_operator("[") || is_operator("{") || kind == TokenKind::kString ||
             kind == TokenKind::kInteger || kind == TokenKind::kFloat ||
             (kind == TokenKind::kName && !is_name("else") && !is_name("or") && !is_name("and") &&
              !is_name("if") && !is_name("is") && !is_name("in") && !is_name("not") &&
              !is_name("recursive"))) {
    result->operands.push_back(postfix(primary()));
  }
  result = finished(std::move(result));
  if (!negated) return result;
  ExpressionPtr negation_node = new_expression(ExpressionKind::kUnary);
  negation_node->name = "not";
  negation_node->operands.push_back(std::move(result));
  return finished(std::move(negation_node));
}

}  // namespace glm::jinja
