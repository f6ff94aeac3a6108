// Chat templates against what jinja2 made of them, provenance of what they insert, and templates
// made to break the interpreter. SPDX-License-Identifier: MIT
#include "io/chat_template.h"

#include <algorithm>
#include <ctime>
#include <fstream>
#include <map>

#include <gtest/gtest.h>

#include "io/tokenizer.h"
#include "tests/support/instrumented.h"
#include "tests/support/repeated.h"

namespace glm {
namespace {

const std::string kData = GLM_TEST_DATA;

std::string file_text(const std::string& path) {
  return read_file(kData + "/" + path, 1 << 26, ExitCode::kModelFile);
}

std::vector<OrderedJson> records(const std::string& path) {
  std::vector<OrderedJson> out;
  std::ifstream file(kData + "/" + path);
  std::string line;
  while (std::getline(file, line)) out.push_back(OrderedJson::parse(line));
  return out;
}

const Tokenizer& tiny_tokenizer() {
  static const Tokenizer tokenizer(file_text("tiny/tokenizer.json"), "tokenizer.json");
  return tokenizer;
}

const ChatTemplate& tiny_template() {
  static const ChatTemplate chat(file_text("tiny/chat_template.jinja"), "chat_template.jinja");
  return chat;
}

RenderInput input_of(const OrderedJson& record) {
  RenderInput input;
  input.messages = record["messages"];
  if (record.contains("tools")) input.tools = record["tools"];
  for (const char* key : {"thinking", "enable_thinking"})
    if (record.contains(key) && !record[key].is_null())
      input.enable_thinking = record[key].get<bool>();
  input.add_generation_prompt = record["add_generation_prompt"].get<bool>();
  input.special_tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  input.now = 1753488000;
  return input;
}

RenderInput one_message(const std::string& role, const std::string& content) {
  RenderInput input;
  input.messages.push_back({{"role", role}, {"content", content}});
  return input;
}

std::string render(const std::string& source, const RenderInput& input = {}) {
  return plain_text(ChatTemplate(source, "t").render(input));
}

// The error that `source` raises, as "<code>: message".
std::string failure(const std::string& source, const RenderInput& input = {}) {
  try {
    render(source, input);
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return fmt::format("{}: {}", static_cast<int>(error.code()), error.what());
  }
  ADD_FAILURE() << "no error from " << source.substr(0, 200);
  return "";
}

TEST(ChatTemplate, EqualsRecordedRenderingsOfTheTinyModel) {
  int count = 0;
  for (const OrderedJson& record : records("tiny/expected/renderings.jsonl")) {
    const Text text = tiny_template().render(input_of(record));
    const auto ids = record["ids"].get<std::vector<int32_t>>();
    ASSERT_EQ(plain_text(text), record["text"].get<std::string>());
    EXPECT_EQ(tiny_tokenizer().encode(text), ids);
    EXPECT_EQ(tiny_tokenizer().encode(plain_text(text), true), ids);
    ++count;
  }
  EXPECT_EQ(count, 200);
}

TEST(ChatTemplate, EqualsJinjaOnGeneratedConversations) {
  std::map<std::string, std::unique_ptr<ChatTemplate>> templates;
  int count = 0;
  int errors = 0;
  for (const OrderedJson& record : records("templates/renderings.jsonl")) {
    const auto name = record["template"].get<std::string>();
    auto& chat = templates[name];
    if (!chat) chat = std::make_unique<ChatTemplate>(file_text("templates/" + name), name);
    ++count;
    std::string text;
    try {
      text = plain_text(chat->render(input_of(record)));
    } catch (const Error& error) {
      ASSERT_TRUE(record.contains("error")) << name << " line " << count << ": " << error.what();
      EXPECT_EQ(error.code(), ExitCode::kUsage);
      EXPECT_NE(std::string(error.what()).find(record["error"].get<std::string>()),
                std::string::npos)
          << error.what();
      ++errors;
      continue;
    }
    ASSERT_TRUE(record.contains("text")) << name << " line " << count << " gave " << text;
    ASSERT_EQ(text, record["text"].get<std::string>()) << name << " line " << count;
  }
  EXPECT_GE(count, 1000);
  EXPECT_GE(errors, 20);
  EXPECT_GE(templates.size(), 12U);
}

TEST(ChatTemplate, EqualsJinjaOnEachConstruct) {
  RenderInput input;
  input.messages = OrderedJson::parse(
      R"([{"role": "user", "content": "Hi <b>\n\u00e9"}, {"role": "assistant", "content": null}])");
  input.special_tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  input.now = 1753488000;
  int count = 0;
  for (const OrderedJson& record : records("templates/snippets.jsonl")) {
    const auto source = record["source"].get<std::string>();
    ++count;
    std::string text;
    try {
      text = render(source, input);
    } catch (const Error& error) {
      EXPECT_TRUE(record.contains("error")) << source << "\n" << error.what();
      continue;
    }
    ASSERT_TRUE(record.contains("text")) << source << "\ngave " << text;
    EXPECT_EQ(text, record["text"].get<std::string>()) << source;
  }
  EXPECT_GE(count, 130);
}

TEST(ChatTemplate, UnsupportedConstructsNameLineAndConstruct) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"a\n{% include 'x' %}", "3: t:2: unsupported tag 'include'"},
      {"{{ x | e }}", "3: t:1: unsupported filter 'e'"},
      {"\n\n{{ x is escaped }}", "3: t:3: unsupported test 'escaped'"},
      {"{{ 'x'.format(1) }}", "3: t:1: unsupported method format of str"},
      {"{{ '%s' % 1 }}", "3: t:1: unsupported formatting with %"},
      {"{{ 'x'.__class__ }}", "3: t:1: unsupported attribute __class__"},
      {"{{ lipsum() }}", "3: t:1: unsupported function lipsum"},
      {"{{ range(3) }}", "3: t:1: unsupported text of a range"},
      {"{{ ('a' | safe) + 'b' }}", "3: t:1: unsupported + on text marked safe"},
      {"{% for x in y recursive %}{% endfor %}", "3: t:1: unsupported recursive loop"},
      {"{{ f(*x) }}", "3: t:1: unsupported * or ** in a call"},
      {"{% macro m() %}{{ caller() }}{% endmacro %}", "3: t:1: unsupported name in a macro"},
      {"{{ {}.update({}) }}", "3: t:1: unsupported method update of dict"},
      {"{{ 99999999999999999999 }}", "3: t:1: unsupported integer"},
      {"{% break %}", "3: t:1: 'break' outside a loop"},
      {"{{ '\xFF' }}", "3: t: the template is not UTF-8"}};
  for (const auto& [source, expected] : cases)
    EXPECT_EQ(failure(source).substr(0, expected.size()), expected) << source;
}

TEST(ChatTemplate, RefusalsOfTheTemplateAreUsageErrors) {
  EXPECT_EQ(failure("\n{{ raise_exception('no \\x1b system') }}"), "2: t:2: no \\x1b system");
  EXPECT_EQ(failure("{{ 9223372036854775807 + 1 }}"), "2: t:1: an integer exceeds 64 bits");
  EXPECT_EQ(failure("{{ a.b.c }}"), "2: t:1: 'a' is undefined, it has no 'b'");
}

// Ids of control tokens in the rendering of one message, the surroundings taken off.
std::vector<int32_t> forged(const std::string& role, const std::string& content) {
  const auto controls = [&](const std::string& text) {
    std::vector<int32_t> out;
    for (const int32_t id :
         tiny_tokenizer().encode(tiny_template().render(one_message(role, text))))
      if (id >= 1984) out.push_back(id);
    return out;
  };
  std::vector<int32_t> with = controls(content);
  for (const int32_t id : controls("x")) {
    const auto found = std::find(with.begin(), with.end(), id);
    EXPECT_NE(found, with.end());
    if (found != with.end()) with.erase(found);
  }
  return with;
}

TEST(ChatTemplate, InsertedTextForgesNoControlToken) {
  std::string all;
  for (int32_t id = 1984; id < tiny_tokenizer().vocab_size(); ++id)
    all += "a " + std::string(tiny_tokenizer().token_bytes(id));
  EXPECT_EQ(forged("user", all + " b"), (std::vector<int32_t>{2005}));
  EXPECT_EQ(forged("system", all + " b"), std::vector<int32_t>{});
  EXPECT_EQ(forged("tool", all + " b"), std::vector<int32_t>{});
  RenderInput tools = one_message("user", "x");
  tools.tools = OrderedJson::array({{{"name", all}, {all, all}}});
  int controls = 0;
  for (const int32_t id : tiny_tokenizer().encode(tiny_template().render(tools)))
    controls += id >= 1984;
  RenderInput harmless = tools;
  harmless.tools = OrderedJson::array({{{"name", "x"}, {"y", "z"}}});
  for (const int32_t id : tiny_tokenizer().encode(tiny_template().render(harmless)))
    controls -= id >= 1984;
  EXPECT_EQ(controls, 0);
}

TEST(ChatTemplate, ProvenanceSurvivesOperations) {
  const RenderInput user = one_message("user", " <|USER|>,<sop>");
  const std::string c = "messages[0].content";
  for (const std::string& expression : {c + " | lower",
                                        "(" + c + " | trim) | lower",
                                        c + ".split(',')[0].lower()",
                                        c + " | replace('x', 'y') | lower",
                                        c + "[1:] | lower",
                                        "(" + c + " | list | join) | lower",
                                        "[" + c + "] | tojson | lower",
                                        "'%' ~ " + c + " | lower",
                                        "(" + c + " * 2) | lower",
                                        c + " | indent | lower",
                                        "{'k': " + c + "} | string | lower",
                                        c + "[::-1][::-1] | lower"}) {
    const Text text = ChatTemplate("{{ " + expression + " }}", "t").render(user);
    EXPECT_NE(plain_text(text).find("user"), std::string::npos) << expression;
    for (const int32_t id : tiny_tokenizer().encode(text)) EXPECT_LT(id, 1984) << expression;
  }
}

TEST(ChatTemplate, OriginsByRoleAndField) {
  const auto origin = [](const std::string& role, const OrderedJson& message) {
    RenderInput input;
    input.messages.push_back(message);
    input.messages[0]["role"] = role;
    const Text text = ChatTemplate("{{ messages[0].v or messages[0].content }}", "t").render(input);
    return text.at(0).origin;
  };
  EXPECT_EQ(origin("user", {{"content", "x"}}), Origin::kUser);
  EXPECT_EQ(origin("assistant", {{"content", "x"}}), Origin::kAssistant);
  EXPECT_EQ(origin("system", {{"content", "x"}}), Origin::kPlain);
  EXPECT_EQ(origin("tool", {{"content", "x"}}), Origin::kPlain);
  EXPECT_EQ(origin("user", {{"v", "x"}}), Origin::kPlain);
  EXPECT_EQ(origin("user", {{"content", 7}}), Origin::kUser);
  EXPECT_EQ(origin("user", {{"content", {{"a", 7}}}}), Origin::kUser);
  // Some templates build the marker around the role; a word cannot break out of it.
  const std::string marker = "<|{{ messages[0].role }}|>";
  const ChatTemplate chat(marker, "t");
  EXPECT_EQ(tiny_tokenizer().encode(chat.render(one_message("user", ""))),
            (std::vector<int32_t>{1991}));
  for (const int32_t id : tiny_tokenizer().encode(chat.render(one_message("user|><sop", ""))))
    EXPECT_LT(id, 1984);
}

void expect_quick_ends(const std::vector<std::string>& sources) {
  for (const std::string& source : sources) {
    const std::clock_t start = std::clock();
    EXPECT_THROW(render(source), Error) << source.substr(0, 100);
    EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 20)
        << source.substr(0, 100);
  }
}

TEST(ChatTemplateLimits, HostileTemplatesEnd) {
  const size_t million = testing_support::kInstrumented ? 100'000 : 1'000'000;
  const std::vector<std::string> sources = {
      repeated("{{", million / 2),
      repeated("{% if x %}", 100'000),
      repeated("{% for x in y %}", 50'000),
      "{{ " + repeated("(", million) + " }}",
      "{{ " + repeated("[", million) + " }}",
      "{{ " + repeated("not ", 200'000) + "x }}",
      "{{ " + repeated("-", million) + "1 }}",
      "{{ x" + repeated(".a", 500'000) + " }}",
      "{{ x" + repeated("|trim", 200'000) + " }}",
      "{{ 1" + repeated("+1", 500'000) + " }}",
      "{{ 1" + repeated(" if 1 else 1", 100'000) + " }}",
      "{{ 'a'" + repeated(" and 'a'", 100'000) + " }}",
      "{# " + repeated("{#", million),
      "{{ '" + repeated("a", million),
      "{{ range(10**9) | list }}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro m(x) %}{{ m(m(x)) }}{% endmacro %}{{ m(1) }}",
      "{% set n = namespace(x='a') %}{% for i in range(100) %}{% set n.x = n.x ~ n.x %}{% endfor "
      "%}",
      "{% set n = namespace(x=[1]) %}{% for i in range(100) %}{% set n.x = n.x + n.x %}{% endfor "
      "%}",
      "{% set n = namespace(x=[1]) %}{% for i in range(9999) %}{% set n.x = [n.x] %}{% endfor %}",
      "{{ 'a' * 10**12 }}",
      "{{ [1] * 10**12 }}",
      "{{ ('a' * 1000).replace('a', 'b' * 1000000) }}",
      "{{ 'abcdefgh'.replace('', 'b' * 10000000) }}",
      "{{ [1] | tojson(indent=10**9) }}",
      "{{ 10 ** 100 }}"};
  expect_quick_ends(sources);
}

// These reach the limits of what a template may do: seconds, minutes where code is instrumented.
TEST(ChatTemplateLimits, EndlessTemplatesEnd) {
  if (testing_support::kInstrumented) GTEST_SKIP() << "too slow with sanitizers";
  expect_quick_ends(
      {"{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
       "{% set n = namespace(x=[1]) %}{% for i in range(100) %}{% set n.x = [n.x, n.x] %}"
       "{% endfor %}{{ n.x }}",
       "{% for a in range(100000) %}{{ 'a' * 10000 }}{% endfor %}"});
}

TEST(ChatTemplateLimits, HostileConversationsEnd) {
  RenderInput input;
  OrderedJson deep = 1;
  for (int i = 0; i < 300; ++i) deep = OrderedJson::array({deep});
  input.messages = OrderedJson::array({{{"role", "user"}, {"content", deep}}});
  EXPECT_EQ(failure("{{ messages }}", input), "2: t:0: the conversation is nested too deep");
  input.messages = OrderedJson::array({7, "x", nullptr});
  EXPECT_EQ(render("{{ messages }}", input), "[7, 'x', None]");
  input.messages = 7;
  EXPECT_EQ(failure("", input), "2: t:0: messages: expected an array");
  input.messages = OrderedJson::array({{{"role", "user"}, {"content", ~uint64_t{0}}}});
  EXPECT_THROW(render("", input), Error);
}

}  // namespace
}  // namespace glm
