// Statements of chat templates. SPDX-License-Identifier: MIT
#include <algorithm>

#include "io/jinja_parser.h"

namespace glm::jinja {

Block Parser::parse() {
  Block block = body_until({});
  if (current().kind != TokenKind::kEnd) error(fmt::format("unexpected {}", shown()));
  return block;
}

StatementPtr Parser::new_statement(StatementKind kind) const {
  auto statement = std::make_unique<Statement>();
  statement->kind = kind;
  statement->line = current().line;
  return statement;
}

Block Parser::body_until(std::initializer_list<std::string_view> ends) {
  const Level level(*this);
  Block block;
  while (current().kind != TokenKind::kEnd) {
    if (current().kind == TokenKind::kText) {
      StatementPtr text = new_statement(StatementKind::kText);
      text->text = tokens_[at_++].text;
      block.push_back(std::move(text));
    } else if (current().kind == TokenKind::kVariableBegin) {
      ++at_;
      StatementPtr output = new_statement(StatementKind::kOutput);
      output->expression = tuple(true);
      expect(TokenKind::kVariableEnd, "the end of the tag");
      block.push_back(std::move(output));
    } else {
      expect(TokenKind::kBlockBegin, "a tag");
      for (const std::string_view end : ends)
        if (is_name(end)) return block;
      block.push_back(statement());
    }
  }
  if (ends.size() > 0) error(fmt::format("expected '{}', found {}", *ends.begin(), shown()));
  return block;
}

void Parser::close_tag() { expect(TokenKind::kBlockEnd, "the end of the tag"); }

void Parser::end_body(std::string_view name) {
  expect_name(name);
  close_tag();
}

StatementPtr Parser::statement() {
  if (is_name("if")) return if_statement();
  if (is_name("for")) return for_statement();
  if (is_name("set")) return set_statement();
  if (is_name("macro")) return macro_statement();
  if (is_name("generation")) return generation_statement();
  if (is_name("break") || is_name("continue")) {
    if (loops_ == 0) error(fmt::format("{} outside a loop", shown()));
    StatementPtr jump =
        new_statement(is_name("break") ? StatementKind::kBreak : StatementKind::kContinue);
    ++at_;
    close_tag();
    return jump;
  }
  error(fmt::format("unsupported tag {}", shown()));
}

StatementPtr Parser::if_statement() {
  StatementPtr node = new_statement(StatementKind::kIf);
  expect_name("if");
  while (true) {
    Branch branch;
    branch.condition = tuple(false);
    close_tag();
    branch.body = body_until({"endif", "elif", "else"});
    node->branches.push_back(std::move(branch));
    if (skip_name("elif")) continue;
    if (skip_name("else")) {
      close_tag();
      node->otherwise = body_until({"endif"});
    }
    end_body("endif");
    return node;
  }
}

StatementPtr Parser::for_statement() {
  StatementPtr node = new_statement(StatementKind::kFor);
  expect_name("for");
  node->target = assign_target(false);
  expect_name("in");
  node->expression = tuple(false);
  if (skip_name("if")) node->condition = condition();
  if (is_name("recursive")) error("unsupported recursive loop");
  close_tag();
  ++loops_;
  node->body = body_until({"endfor", "else"});
  --loops_;
  if (skip_name("else")) {
    close_tag();
    node->otherwise = body_until({"endfor"});
  }
  end_body("endfor");
  return node;
}

StatementPtr Parser::set_statement() {
  StatementPtr node = new_statement(StatementKind::kSet);
  expect_name("set");
  node->target = assign_target(true);
  if (skip_operator("=")) {
    node->expression = tuple(true);
    close_tag();
    return node;
  }
  node->kind = StatementKind::kSetBlock;
  while (is_operator("|")) node->expression = filter(std::move(node->expression));
  close_tag();
  node->body = body_until({"endset"});
  end_body("endset");
  return node;
}

StatementPtr Parser::macro_statement() {
  StatementPtr node = new_statement(StatementKind::kMacro);
  expect_name("macro");
  node->text = take_name();
  expect_operator("(");
  while (!is_operator(")")) {
    if (!node->parameters.empty()) expect_operator(",");
    Parameter parameter;
    parameter.name = take_name();
    if (skip_operator("=")) {
      parameter.fallback = condition();
    } else if (!node->parameters.empty() && node->parameters.back().fallback) {
      error("a parameter without a default behind one with a default");
    }
    node->parameters.push_back(std::move(parameter));
  }
  expect_operator(")");
  close_tag();
  const int outer_loops = loops_;
  loops_ = 0;
  ++macros_;
  node->body = body_until({"endmacro"});
  --macros_;
  loops_ = outer_loops;
  end_body("endmacro");
  return node;
}

StatementPtr Parser::generation_statement() {
  StatementPtr node = new_statement(StatementKind::kScope);
  expect_name("generation");
  close_tag();
  const int outer_loops = loops_;
  loops_ = 0;
  node->body = body_until({"endgeneration"});
  loops_ = outer_loops;
  end_body("endgeneration");
  return node;
}

ExpressionPtr Parser::assign_target(bool with_attributes) {
  const Level level(*this);
  ExpressionPtr first = target_part(with_attributes);
  if (!is_operator(",")) return first;
  ExpressionPtr node = new_expression(ExpressionKind::kTuple);
  node->operands.push_back(std::move(first));
  while (skip_operator(",") && !is_name("in") && !is_operator("="))
    node->operands.push_back(target_part(with_attributes));
  return finished(std::move(node));
}

ExpressionPtr Parser::target_part(bool with_attributes) {
  if (skip_operator("(")) {
    ExpressionPtr inner = assign_target(with_attributes);
    expect_operator(")");
    return inner;
  }
  ExpressionPtr name = new_expression(ExpressionKind::kName);
  name->name = take_name();
  for (const char* reserved : {"true", "True", "false", "False", "none", "None", "loop"})
    if (name->name == reserved) error(fmt::format("cannot assign to {}", reserved));
  if (!with_attributes || !skip_operator(".")) return name;
  ExpressionPtr attribute = new_expression(ExpressionKind::kAttribute);
  attribute->name = take_name();
  attribute->operands.push_back(std::move(name));
  return finished(std::move(attribute));
}

}  // namespace glm::jinja
