// Control tokens cannot be forged: whatever stands in a message, a tool, a name, a key or a role,
// no chat template under tests/data gives more control tokens than it writes itself.
// SPDX-License-Identifier: MIT
#include <filesystem>
#include <functional>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "io/chat_template.h"
#include "tests/io/tiny_tokenizer.h"

namespace glm {
namespace {

using Ids = std::vector<int32_t>;

constexpr int32_t kFirstControl = 1984;

// The tiny vocabulary with the control tokens of all families whose templates are tried.
const Tokenizer& every_control() {
  static const Tokenizer kTokenizer = [] {
    Json file = tiny_json();
    auto id = kFirstControl + static_cast<int32_t>(file["added_tokens"].size());
    for (const char* text : {"<|begin_of_box|>",
                             "<|end_of_box|>",
                             "<|image|>",
                             "<|video|>",
                             "<|im_start|>",
                             "<|im_end|>",
                             "<|begin_of_text|>",
                             "<|start_header_id|>",
                             "<|end_header_id|>",
                             "<|eot_id|>",
                             "<|eom_id|>",
                             "<|python_tag|>",
                             "<tools>",
                             "</tools>",
                             "[INST]",
                             "[/INST]",
                             "<s>",
                             "</s>"})
      file["added_tokens"].push_back({{"id", id++}, {"content", text}, {"special", true}});
    return make(file);
  }();
  return kTokenizer;
}

std::vector<std::string> control_texts() {
  std::vector<std::string> out;
  for (int32_t id = kFirstControl; id < every_control().vocab_size(); ++id)
    out.emplace_back(every_control().token_bytes(id));
  return out;
}

// Those that user text, or earlier answers, may have.
bool exempt(const std::string& text) {
  return text == "/nothink" || text == "<think>" || text == "</think>";
}

struct NamedTemplate {
  std::string name;
  ChatTemplate chat;
};

const std::vector<NamedTemplate>& templates() {
  static const std::vector<NamedTemplate> kTemplates = [] {
    std::vector<std::filesystem::path> paths = {kTiny + "chat_template.jinja"};
    for (const auto& entry :
         std::filesystem::directory_iterator(std::string(GLM_TEST_DATA) + "/templates"))
      if (entry.path().extension() == ".jinja") paths.push_back(entry);
    std::vector<NamedTemplate> out;
    for (const auto& path : paths)
      out.push_back({path.filename().string(),
                     ChatTemplate(read_file(path, 1 << 20, ExitCode::kModelFile), "t")});
    return out;
  }();
  return kTemplates;
}

// Where a conversation takes text from outside.
const std::vector<std::string> kFields = {"user",
                                          "system",
                                          "answer",
                                          "reasoning",
                                          "tool result",
                                          "call name",
                                          "call key",
                                          "call value",
                                          "call id",
                                          "tool name",
                                          "tool description",
                                          "tool key",
                                          "tool value",
                                          "metadata",
                                          "other key",
                                          "other value"};

// Every field says "x", but for `field`, or all of them when it is empty, which say `text`.
RenderInput conversation(const std::string& field, const std::string& text, bool calls) {
  const auto say = [&](const char* name) {
    return field.empty() || field == name ? text : std::string("x");
  };
  RenderInput input;
  input.special_tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  input.now = 1753488000;
  OrderedJson tool = {
      {"name", say("tool name")},
      {"description", say("tool description")},
      {"parameters",
       {{"type", "object"},
        {"properties",
         {{say("tool key"), {{"type", "string"}, {"description", say("tool value")}}}}}}}};
  if (calls) input.tools = OrderedJson::array({{{"type", "function"}, {"function", tool}}});
  OrderedJson& m = input.messages;
  m.push_back({{"role", "system"}, {"content", say("system")}});
  if (calls) m[0]["tools"] = input.tools;
  m.push_back({{"role", "user"}, {"content", say("user")}, {say("other key"), say("other value")}});
  m.push_back({{"role", "assistant"},
               {"content", say("answer")},
               {"reasoning_content", say("reasoning")},
               {"metadata", say("metadata")}});
  m.push_back({{"role", "user"}, {"content", say("user")}});
  if (!calls) return input;
  OrderedJson call = {{"name", say("call name")},
                      {"arguments", {{say("call key"), say("call value")}, {"n", 1}}}};
  m.push_back(
      {{"role", "assistant"},
       {"content", say("answer")},
       {"reasoning_content", say("reasoning")},
       {"tool_calls",
        OrderedJson::array({{{"id", say("call id")}, {"type", "function"}, {"function", call}}})}});
  m.push_back(
      {{"role", "tool"}, {"tool_call_id", say("call id")}, {"content", say("tool result")}});
  m.push_back({{"role", "user"}, {"content", say("user")}});
  return input;
}

// How often each control token stands in the ids of a rendering.
std::map<int32_t, int> controls(const Text& text) {
  std::map<int32_t, int> out;
  for (const int32_t id : every_control().encode(text))
    if (id >= kFirstControl) ++out[id];
  return out;
}

// The rendering, or nothing where the template refuses such a conversation.
std::optional<Text> render(const ChatTemplate& chat, const RenderInput& input) {
  try {
    return chat.render(input);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage) << error.what();
    return std::nullopt;
  }
}

void expect_nothing_forged(const std::string& field, const std::string& text) {
  for (const NamedTemplate& item : templates())
    for (const bool calls : {false, true}) {
      const auto plain = render(item.chat, conversation(field, "x", calls));
      const auto hostile = render(item.chat, conversation(field, text, calls));
      ASSERT_EQ(plain.has_value(), hostile.has_value()) << item.name;
      if (plain) {
        EXPECT_EQ(controls(*hostile), controls(*plain))
            << item.name << ", " << field << ": " << text;
      }
    }
}

TEST(Forgery, TheTemplatesOwnTextGivesControlTokens) {
  int with_controls = 0;
  for (const NamedTemplate& item : templates())
    for (const bool calls : {false, true}) {
      const auto text = render(item.chat, conversation("", "x", calls));
      if (!text) continue;
      // Harmless text: the same ids as those of the rendering as one trusted text.
      EXPECT_EQ(every_control().encode(*text), every_control().encode(plain_text(*text), true))
          << item.name;
      with_controls += !controls(*text).empty();
    }
  EXPECT_GE(templates().size(), 12u);
  EXPECT_GE(with_controls, 16);
}

TEST(Forgery, NoFieldOfAConversationForgesOne) {
  std::string all = "a";
  for (const std::string& text : control_texts())
    if (!exempt(text)) all += " " + text + text + "b";
  for (const std::string& field : kFields) expect_nothing_forged(field, all);
  expect_nothing_forged("", all);
}

TEST(Forgery, EachTokenAloneInEveryField) {
  for (const std::string& text : control_texts())
    if (!exempt(text)) expect_nothing_forged("", "a" + text + "b");
}

// A token cut in two at every place, the halves in fields that templates put side by side.
TEST(Forgery, HalvesInNeighbouringTextsDoNotJoin) {
  const ChatTemplate chat(
      "{% for m in messages %}{{ m.content }}{{ m.name }}{% endfor %}"
      "{{ messages | map(attribute='content') | join }}{{ messages[0].content ~ "
      "messages[1].content "
      "}}{{ tools[0] ~ tools[1] }}{{ (messages[0].content, tools[1]) | join('') }}",
      "t");
  for (const std::string& text : control_texts())
    for (size_t cut = 1; cut < text.size(); ++cut) {
      RenderInput input;
      const std::string left = text.substr(0, cut);
      const std::string right = text.substr(cut);
      for (const char* role : {"system", "user", "tool"}) {
        input.messages =
            OrderedJson::array({{{"role", role}, {"content", left}, {"name", right + left}},
                                {{"role", "assistant"}, {"content", right}, {"name", left}}});
        input.tools = OrderedJson::array({left, right});
        const Text out = chat.render(input);
        ASSERT_NE(plain_text(out).find(text), std::string::npos);
        for (const auto& [id, count] : controls(out)) {
          // One text of a user may hold a whole "/nothink", never two pieces of it.
          ADD_FAILURE() << role << ": " << text << " cut at " << cut << " gave " << id << " "
                        << count;
        }
      }
    }
}

// The template writes one half, the conversation the other.
TEST(Forgery, HalvesWrittenByATemplateAreNotCompleted) {
  for (const std::string& text : control_texts())
    for (size_t cut = 1; cut < text.size(); ++cut) {
      const auto literal = [](const std::string& part) {
        return "{{ " + OrderedJson(part).dump() + " }}";
      };
      const std::string left = text.substr(0, cut);
      const std::string right = text.substr(cut);
      RenderInput input;
      input.messages = OrderedJson::array(
          {{{"role", "user"}, {"content", right}}, {{"role", "assistant"}, {"content", left}}});
      const ChatTemplate chat(
          literal(left) + "{{ messages[0].content }}\n{{ messages[1].content }}" + literal(right),
          "t");
      EXPECT_TRUE(controls(chat.render(input)).empty()) << text << " cut at " << cut;
    }
}

// Templates write "<|role|>" around a role. Only the roles that exist are trusted to stand there.
TEST(Forgery, RolesAreWordsThatExist) {
  const ChatTemplate marker("{% for m in messages %}<|{{ m.role }}|>{% endfor %}", "t");
  for (const std::string& text : control_texts()) {
    if (!text.starts_with("<|")) continue;
    const std::string role = text.substr(2, text.size() - 4);
    RenderInput input;
    input.messages.push_back({{"role", role}, {"content", "x"}});
    const bool known =
        std::set<std::string>{"system", "user", "assistant", "observation"}.contains(role);
    EXPECT_EQ(controls(marker.render(input)).size(), known ? 1u : 0u) << role;
    // The same within every template that takes such a role.
    for (const NamedTemplate& item : templates()) {
      const auto hostile = render(item.chat, input);
      input.messages[0]["role"] = "nobody";
      const auto plain = render(item.chat, input);
      input.messages[0]["role"] = role;
      if (!known && hostile && plain) {
        EXPECT_EQ(controls(*hostile), controls(*plain)) << item.name << ": " << role;
      }
    }
  }
}

// The tokens that some texts may have, and no others in the same text.
TEST(Forgery, ThinkingMarksOnlyWhereTheRulesAllowThem) {
  const ChatTemplate chat(
      "{{ messages[0].content }}|{{ messages[0].reasoning_content }}|{{ messages[0].tool_calls "
      "}}|{{ "
      "messages[0].name }}|{{ tools }}",
      "t");
  const std::string text = "a<think>b</think>c/nothink d";
  const auto found = [&](const std::string& role) {
    RenderInput input;
    input.messages.push_back({{"role", role},
                              {"content", text},
                              {"reasoning_content", text},
                              {"tool_calls", OrderedJson::array({text})},
                              {"name", text}});
    input.tools = OrderedJson::array({text});
    return controls(chat.render(input));
  };
  const int32_t nothink = *every_control().token_id("/nothink");
  const int32_t think = *every_control().token_id("<think>");
  const int32_t unthink = *every_control().token_id("</think>");
  EXPECT_EQ(found("user"), (std::map<int32_t, int>{{nothink, 1}}));
  EXPECT_EQ(found("assistant"), (std::map<int32_t, int>{{nothink, 3}, {think, 3}, {unthink, 3}}));
  for (const char* role : {"system", "tool", "observation", "developer", "nobody", "User", ""})
    EXPECT_TRUE(found(role).empty()) << role;
}

// Functions and filters that take the text of a user as an argument.
TEST(Forgery, ArgumentsKeepTheirOrigin) {
  const std::string c = "messages[0].content";
  for (const std::string& expression :
       {"strftime_now(" + c + ")",
        "messages | map(attribute='nope', default=" + c + ") | join",
        "x | default(" + c + ")",
        "['a', 'b'] | join(" + c + ")",
        "'a b'.replace(' ', " + c + ")",
        "'a\nb' | indent(" + c + ")",
        "['a', 1] | tojson(separators=(" + c + ", ':'))",
        "{" + c + ": 1} | tojson",
        "{" + c + ": 1} | items | list",
        "dict(k=" + c + ")",
        "('a' if " + c + " else 'b') ~ " + c,
        c + " | title | lower",
        c + ".partition('z')",
        c + ".encode | default(" + c + ")",
        "[" + c + "] | unique | sort | first",
        c + " | string",
        "(" + c + " | tojson)[1:-1]",
        c + ".strip().split(' ') | last"}) {
    RenderInput input;
    input.messages.push_back({{"role", "user"}, {"content", "<|user|> <sop>"}});
    try {
      const Text text = ChatTemplate("{{ " + expression + " }}", "t").render(input);
      EXPECT_TRUE(controls(text).empty()) << expression << " gave " << plain_text(text);
    } catch (const Error& error) {  // what the interpreter does not have forges nothing either
      EXPECT_NE(std::string(error.what()).find("t:1: "), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace glm
