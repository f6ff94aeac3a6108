// Parsing a chat template. What the interpreter does not know is refused here, by line and name.
// SPDX-License-Identifier: MIT
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "io/jinja_ast.h"
#include "io/jinja_lexer.h"

namespace glm::jinja {

class Parser {
 public:
  Parser(std::string_view text, const std::string& source)
      : source_(source), tokens_(tokenize(text, source)) {}

  // Throws Error(kModelFile) "source:line: ...".
  Block parse();

 private:
  // Counts the levels of nesting below it.
  struct Level {
    explicit Level(Parser& parser);
    ~Level() { --parser_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    Parser& parser_;
  };

  [[noreturn]] void error(std::string_view message) const;
  const Token& current() const { return tokens_[at_]; }
  bool is_operator(std::string_view name) const;
  bool is_name(std::string_view name) const;
  bool skip_operator(std::string_view name);
  bool skip_name(std::string_view name);
  void expect_operator(std::string_view name);
  void expect_name(std::string_view name);
  std::string take_name();
  void expect(TokenKind kind, std::string_view what);
  std::string shown() const;  // the current token, for messages

  // Statements (jinja_statements.cpp). A body ends before a tag with one of the names.
  Block body_until(std::initializer_list<std::string_view> ends);
  StatementPtr statement();
  StatementPtr new_statement(StatementKind kind) const;
  StatementPtr if_statement();
  StatementPtr for_statement();
  StatementPtr set_statement();
  StatementPtr macro_statement();
  StatementPtr generation_statement();
  ExpressionPtr assign_target(bool with_attributes);
  ExpressionPtr target_part(bool with_attributes);
  void close_tag();  // the end of the tag
  void end_body(std::string_view name);

  // Expressions (jinja_parser.cpp), from the loosest to the tightest.
  ExpressionPtr new_expression(ExpressionKind kind) const;
  ExpressionPtr finished(ExpressionPtr node) const;
  ExpressionPtr binary(ExpressionKind kind, std::string name, ExpressionPtr a, ExpressionPtr b);
  ExpressionPtr tuple(bool with_condition);
  bool at_tuple_end() const;
  ExpressionPtr condition();
  ExpressionPtr either();
  ExpressionPtr both();
  ExpressionPtr negation();
  ExpressionPtr comparison();
  ExpressionPtr sum();
  ExpressionPtr concatenation();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr unary(bool with_filter);
  ExpressionPtr primary();
  ExpressionPtr name_or_constant();
  ExpressionPtr number();
  ExpressionPtr list_display();
  ExpressionPtr dict_display();
  // What follows an operand (jinja_postfix.cpp).
  ExpressionPtr postfix(ExpressionPtr node);
  ExpressionPtr filters_and_tests(ExpressionPtr node);
  ExpressionPtr subscript(ExpressionPtr node);
  ExpressionPtr item(ExpressionPtr node);
  ExpressionPtr filter(ExpressionPtr node);
  ExpressionPtr test(ExpressionPtr node);
  void arguments(Expression& call);

  std::string source_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  int loops_ = 0;   // around the current statement, for break and continue
  int macros_ = 0;  // around the current statement
};

}  // namespace glm::jinja
