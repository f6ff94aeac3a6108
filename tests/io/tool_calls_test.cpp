// Tool calls and reasoning in answers: every format, in whatever pieces it comes, and what models
// and their adversaries write instead. SPDX-License-Identifier: MIT
#include "io/tool_calls.h"

#include <gtest/gtest.h>

#include "io/answer_parts.h"
#include "tests/support/repeated.h"

namespace glm {
namespace {

const OrderedJson kTools = parse_tools(
    R"([{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object",
  "properties": {"city": {"type": "string"}, "days": {"type": "integer"},
                 "metric": {"type": "boolean"}, "when": {"type": ["string", "null"]}}}}},
 {"name": "now"}])",
    "tools.json");

std::string calls_of(std::string_view text, bool complete = true) {
  OrderedJson out = OrderedJson::array();
  for (const ToolCall& call : parse_tool_calls(text, kTools, complete).calls)
    out.push_back(tool_call_json(call));
  return out.dump();
}

constexpr const char* kOslo = R"([{"name":"get_weather","arguments":{"city":"Oslo","days":2}}])";

TEST(ToolCalls, EveryFormatGivesTheSameJson) {
  EXPECT_EQ(
      calls_of("<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n"
               "<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>"),
      kOslo);
  EXPECT_EQ(calls_of("<tool_call>get_weather<arg_key>city</arg_key><arg_value>Oslo</arg_value>"
                     "<arg_key>days</arg_key><arg_value>2</arg_value></tool_call>"),
            kOslo);
  EXPECT_EQ(calls_of("<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\", "
                     "\"days\": 2}}\n</tool_call>"),
            kOslo);
  EXPECT_EQ(calls_of("<tool_call>\n{\"name\": \"get_weather\", \"arguments\": \"{\\\"city\\\": "
                     "\\\"Oslo\\\", \\\"days\\\": 2}\"}\n</tool_call>"),
            kOslo);
  EXPECT_EQ(calls_of("\n<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n"
                     "<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>"),
            kOslo);
  EXPECT_EQ(calls_of("get_weather\n{\"city\": \"Oslo\", \"days\": 2}"), kOslo);
}

TEST(ToolCalls, TextAroundCallsStays) {
  const CallsInText found = parse_tool_calls(
      "Let me look.\n<tool_call>now\n</tool_call>\n<tool_call>now</tool_call> and so on ",
      kTools,
      true);
  EXPECT_EQ(found.calls.size(), 2u);
  EXPECT_EQ(found.text, "Let me look.\n\n and so on");
  EXPECT_FALSE(found.malformed);
  EXPECT_EQ(found.calls[0].arguments, OrderedJson::object());
}

std::string value_of(const std::string& key, const std::string& value) {
  const auto found =
      parse_tool_calls("<tool_call>get_weather<arg_key>" + key + "</arg_key><arg_value>" + value +
                           "</arg_value></tool_call>",
                       kTools,
                       true);
  return found.calls.empty() ? "none" : found.calls[0].arguments[key].dump();
}

TEST(ToolCalls, ValuesFollowTheTypesOfTheTool) {
  EXPECT_EQ(value_of("city", "12"), "\"12\"");
  EXPECT_EQ(value_of("city", " two\nlines "), "\" two\\nlines \"");
  EXPECT_EQ(value_of("days", " 12 "), "12");
  EXPECT_EQ(value_of("days", "many"), "\"many\"");
  EXPECT_EQ(value_of("other", "{\"a\": [1, null]}"), "{\"a\":[1,null]}");
  EXPECT_EQ(value_of("other", "{broken"), "\"{broken\"");
  EXPECT_EQ(value_of("metric", "True"), "true");
  EXPECT_EQ(value_of("other", "True"), "\"True\"");
  EXPECT_EQ(value_of("when", "null"), "null");
  EXPECT_EQ(value_of("city", "a </tool_call> in a value"), "\"a </tool_call> in a value\"");
  EXPECT_EQ(value_of("city", "北京"), "\"北京\"");
}

// What is no whole call stays text, to the byte.
TEST(ToolCalls, MalformedCallsStayText) {
  for (const std::string text :
       {"<tool_call>",
        "<tool_call></tool_call>",
        "<tool_call>\n</tool_call>",
        "<tool_call>two words</tool_call>",
        "<tool_call>now<arg_key>a</arg_key></tool_call>",
        "<tool_call>now<arg_key>a</arg_key><arg_value>1</tool_call>",
        "<tool_call>now<arg_key>a</arg_key><arg_value>1<arg_value>2</arg_value></tool_call>",
        "<tool_call>now<arg_key>a</arg_key><arg_value>1</arg_value><arg_key>a</arg_key>"
        "<arg_value>2</arg_value></tool_call>",
        "<tool_call>now<arg_value>1</arg_value></tool_call>",
        "<tool_call>{\"name\": \"now\"</tool_call>",
        "<tool_call>{\"name\": 3}</tool_call>",
        "<tool_call>{\"name\": \"now\", \"arguments\": [1]}</tool_call>",
        "<tool_call>{\"name\": \"now\", \"arguments\": \"[1]\"}</tool_call>",
        "<tool_call>{\"name\": \"now\", \"name\": \"get_weather\"}</tool_call>",
        "<tool_call>[{\"name\": \"now\"}]</tool_call>",
        "<tool_call><function=now></tool_call>",
        "<tool_call><function=></function></tool_call>",
        "<tool_call><function=now><parameter=a>1</function></tool_call>",
        "<tool_call>now</tool_call",
        "<tool_call>unknown",
        "<tool_call>now trailing words"}) {
    const CallsInText found = parse_tool_calls(text, kTools, true);
    EXPECT_TRUE(found.calls.empty()) << text;
    EXPECT_TRUE(found.malformed) << text;
    EXPECT_EQ(found.text, text);
  }
  for (const std::string text :
       {"", "now\n{broken", "unknown\n{}", "now\n[]", "no call", "</tool_call>"})
    EXPECT_EQ(parse_tool_calls(text, kTools, true).text, text);
}

TEST(ToolCalls, OneBadCallDoesNotHideTheNext) {
  EXPECT_EQ(calls_of("<tool_call>a b<tool_call>now</tool_call>"),
            R"([{"name":"now","arguments":{}}])");
  EXPECT_EQ(calls_of("<tool_call>{\"name\": <tool_call>now</tool_call>"),
            R"([{"name":"now","arguments":{}}])");
  EXPECT_EQ(calls_of("<tool_call>{\"name\": \"x\n<tool_call>now</tool_call>"),
            R"([{"name":"now","arguments":{}}])");
  EXPECT_EQ(
      calls_of("<tool_call>f<arg_key>k</arg_key><arg_value>v<tool_call>get_weather<arg_key>city"
               "</arg_key><arg_value>Oslo</arg_value></tool_call>"),
      R"([{"name":"get_weather","arguments":{"city":"Oslo"}}])");
}

// Whether a missing end is the model's way of ending or a cut decides.
TEST(ToolCalls, TheLastTagMayBeMissingWhereTheModelEnded) {
  for (const std::string text :
       {"<tool_call>now",
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Oslo</arg_value>\n",
        "<tool_call>{\"name\": \"now\"}",
        "<tool_call><function=now></function>"}) {
    EXPECT_EQ(parse_tool_calls(text, kTools, true).calls.size(), 1u) << text;
    EXPECT_EQ(parse_tool_calls(text, kTools, false).text, text);
  }
  EXPECT_EQ(calls_of("get_weather\n{\"city\": \"Oslo\"}", false), "[]");
}

TEST(ToolCalls, ListsThatWereNotJudgedDoNoHarm) {
  const OrderedJson odd = OrderedJson::parse(
      R"([3, "now", {}, {"function": 3}, {"name": 3}, {"name": "now", "parameters": [1]}])");
  EXPECT_EQ(
      parse_tool_calls("<tool_call>now<arg_key>a</arg_key><arg_value>1</arg_value>", odd, true)
          .calls.size(),
      1u);
  EXPECT_TRUE(parse_tool_calls("<tool_call>now", nullptr, true).calls.empty());
}

// A quadratic reader would need hours for these.
TEST(ToolCalls, HugeAnswersAreReadInLinearTime) {
  const size_t n = 20'000;
  for (const std::string& text :
       {repeated("<tool_call>", n),
        repeated("<tool_call>{", n),
        repeated("<tool_call>{\"", n),
        repeated("<tool_call>{\"a\": [", n),
        repeated("<tool_call>f<arg_key>", n) + "</arg_key>",
        repeated("<tool_call>f<arg_key>k</arg_key><arg_value>", n),
        repeated("<tool_call>f<arg_key>k</arg_key><arg_value>", n) + "</arg_value>x",
        repeated("<tool_call>f<arg_key>k</arg_key><arg_value></arg_value>", n),
        repeated("<tool_call><function=f><parameter=a>", n) + "</parameter>",
        repeated("<tool_call><function=f><parameter=a>parameter", n),
        "<tool_call>now" + repeated("<arg_key>k</arg_key><arg_value>1</arg_value>", n),
        "<tool_call>{\"name\": \"now\", \"arguments\": " + repeated("{\"a\": ", n),
        "<tool_call>" + repeated("f", n)}) {
    EXPECT_TRUE(parse_tool_calls(text, kTools, true).calls.empty()) << text.substr(0, 60);
    EXPECT_EQ(parse_tool_calls(text, kTools, false).text, text);
  }
  EXPECT_EQ(parse_tool_calls(repeated("<tool_call>now</tool_call>", n), kTools, true).calls.size(),
            256u);
  const std::string value(1'000'000, 'x');
  EXPECT_EQ(value_of("city", value).size(), value.size() + 2);
}

TEST(ToolCalls, ListsOfToolsAreJudged) {
  EXPECT_EQ(parse_tools(R"({"tools": [{"name": "f"}]})", "t").size(), 1u);
  for (const std::string text : {"",
                                 "[]",
                                 "{}",
                                 "3",
                                 "[3]",
                                 "[{}]",
                                 R"([{"name": 3}])",
                                 R"([{"name": "a b"}])",
                                 R"([{"function": {}}])",
                                 R"({"tools": []})",
                                 R"([{"name": "f"}, {"name": "f", "parameters": []}])",
                                 "[{\"name\""}) {
    try {
      parse_tools(text, "tools.json");
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUsage);
      EXPECT_NE(std::string(error.what()).find("tools.json"), std::string::npos) << error.what();
    }
  }
}

struct Split {
  std::string reasoning, content, calls, shown;
};

Split split(std::string_view text, size_t step, bool inside, bool with_calls) {
  AnswerSplitter splitter(inside, with_calls);
  Split out;
  const auto take = [&out](const AnswerSplitter::Piece& piece) {
    out.reasoning += piece.reasoning;
    out.content += piece.content;
    out.shown += piece.reasoning + piece.content;
  };
  for (size_t at = 0; at < text.size(); at += step) take(splitter.push(text.substr(at, step)));
  take(splitter.finish());
  EXPECT_EQ(out.reasoning, splitter.reasoning());
  EXPECT_EQ(out.content, splitter.content());
  out.calls = splitter.calls();
  return out;
}

TEST(AnswerParts, PiecesOfAnySizeGiveTheSame) {
  for (size_t step = 1; step < 40; ++step) {
    const Split a = split(
        "\n<think>\nwell</b>\n</think>\n\nSo < this.\n<tool_call>f</tool_call>", step, false, true);
    EXPECT_EQ(a.reasoning, "well</b>\n");
    EXPECT_EQ(a.content, "So < this.\n");
    EXPECT_EQ(a.calls, "<tool_call>f</tool_call>");
    const Split b = split("well</think>So.<tool_call>", step, true, false);
    EXPECT_EQ(b.reasoning, "well");
    EXPECT_EQ(b.content, "So.<tool_call>");
    const Split c = split("\n<thin", step, false, true);
    EXPECT_EQ(c.content, "<thin");
    const Split d = split("<think>never ends </thin", step, false, true);
    EXPECT_EQ(d.reasoning, "never ends </thin");
    EXPECT_EQ(d.content, "");
    const Split e = split("a <think>b</think> <tool_", step, false, true);
    EXPECT_EQ(e.content, "a <think>b</think> <tool_");
  }
}

TEST(AnswerParts, MessagesHaveWhatTheAnswerHas) {
  EXPECT_EQ(message_json(parse_answer("\n<think></think>\nParis.\n", false, nullptr, true)).dump(),
            R"({"role":"assistant","content":"Paris."})");
  EXPECT_EQ(
      message_json(parse_answer("why</think><tool_call>now</tool_call>", true, kTools, true))
          .dump(),
      R"({"role":"assistant","content":"","reasoning_content":"why","tool_calls":[{"type":"function","function":{"name":"now","arguments":{}}}]})");
  const AnswerParts none = parse_answer("<tool_call>now</tool_call>", false, nullptr, true);
  EXPECT_EQ(none.content, "<tool_call>now</tool_call>");
  EXPECT_TRUE(none.calls.empty());
  EXPECT_TRUE(parse_answer("<tool_call>now", false, kTools, false).malformed_call);
}

TEST(AnswerParts, ManyPiecesStayLinear) {
  AnswerSplitter splitter(false, true);
  for (int i = 0; i < 20'000; ++i) splitter.push("<tool_call>");
  splitter.finish();
  EXPECT_EQ(splitter.calls().size(), 11u * 20'000u);
}

}  // namespace
}  // namespace glm
