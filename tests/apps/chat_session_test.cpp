// The commands of a chat and what becomes of its messages, with a host that answers at once.
// SPDX-License-Identifier: MIT
#include "apps/chat_session.h"

#include <gtest/gtest.h>

#include "tests/io/temp_folder.h"

namespace glm {
namespace {

class EchoHost final : public ChatHost {
 public:
  ChatAnswer answer(const OrderedJson& messages, const OrderedJson& tools) override {
    asked = messages;
    offered = tools;
    if (refuse != ExitCode::kOk) fail(refuse, "no room");
    return next;
  }
  void say(const std::string& line) override { said.push_back(line); }

  std::string last_said() const { return said.empty() ? "" : said.back(); }

  ChatAnswer next{{"why", "An answer.", {}, false}, ChatAnswer::End::kStop};
  ExitCode refuse = ExitCode::kOk;
  OrderedJson asked, offered;
  std::vector<std::string> said;
};

class Chat : public ::testing::Test {
 protected:
  // Roles and contents, "user:Hi|assistant:An answer."
  std::string talk() const {
    std::string out;
    for (const OrderedJson& m : session_.messages())
      out += (out.empty() ? "" : "|") + m["role"].get<std::string>() + ":" +
             m["content"].get<std::string>();
    return out;
  }
  std::string file(const std::string& name, const std::string& text) const {
    write_bytes(folder_ / name, text);
    return folder_ / name;
  }

  TempFolder folder_{"chat"};
  EchoHost host_;
  ChatSession session_{host_, std::nullopt, nullptr};
};

TEST_F(Chat, TurnsGrowTheConversation) {
  EXPECT_TRUE(session_.line("Hi"));
  EXPECT_TRUE(session_.line(""));
  EXPECT_TRUE(session_.line("  \t"));
  EXPECT_TRUE(session_.line("Bye\r"));
  EXPECT_EQ(talk(), "user:Hi|assistant:An answer.|user:Bye|assistant:An answer.");
  EXPECT_EQ(session_.messages()[1]["reasoning_content"], "why");
  EXPECT_EQ(host_.asked.size(), 3u);
  EXPECT_EQ(session_.n_turns(), 2);
  EXPECT_TRUE(host_.said.empty());
  EXPECT_FALSE(session_.line("/quit"));
  EXPECT_FALSE(session_.line("/exit"));
}

TEST_F(Chat, AMessageMaySpanLines) {
  session_.line("one\\");
  EXPECT_TRUE(session_.continues());
  session_.line("/two\\");
  session_.line("three");
  EXPECT_EQ(host_.asked[0]["content"], "one\n/two\nthree");
  session_.line("dropped\\");
  session_.abandon();
  EXPECT_FALSE(session_.continues());
  session_.line("//path");
  EXPECT_EQ(host_.asked[2]["content"], "/path");
}

TEST_F(Chat, SystemMessageAndReset) {
  session_.line("/system Be brief.");
  session_.line("Hi");
  EXPECT_EQ(talk(), "system:Be brief.|user:Hi|assistant:An answer.");
  session_.line("/system  Be long. ");
  EXPECT_EQ(talk(), "system:Be long.|user:Hi|assistant:An answer.");
  session_.line("/reset");
  EXPECT_EQ(talk(), "system:Be long.");
  session_.line("/system");
  EXPECT_EQ(talk(), "");
  ChatSession given(host_, "From the start.", nullptr);
  given.line("Hi");
  EXPECT_EQ(host_.asked[0]["content"], "From the start.");
}

TEST_F(Chat, HelpNamesEveryCommand) {
  session_.line("/help");
  for (const std::string name :
       {"/help", "/reset", "/system", "/save", "/load", "/tools", "/result", "/quit"})
    EXPECT_NE(host_.last_said().find(name), std::string::npos) << name;
}

TEST_F(Chat, SavedConversationsComeBack) {
  const std::string path = folder_ / "talk.json";
  session_.line("/tools " + file("tools.json", R"([{"name": "now"}])"));
  EXPECT_EQ(host_.last_said(), "tools: now");
  session_.line("/system Be brief.");
  host_.next.parts.calls = {{"now", OrderedJson::object()}};
  session_.line("What time is it, \"Grüße\"?");
  session_.line("/save " + path);
  EXPECT_EQ(host_.last_said(), "3 messages written to " + path);
  session_.line("/save " + path);  // its own kind may be replaced

  EchoHost other;
  ChatSession loaded(other, std::nullopt, nullptr);
  loaded.line("/load " + path);
  EXPECT_EQ(other.last_said(), "3 messages read from " + path);
  EXPECT_EQ(loaded.messages(), session_.messages());
  loaded.line("/result noon");
  EXPECT_EQ(other.asked.back()["role"], "tool");
  EXPECT_EQ(other.asked.back()["content"], "noon");
  EXPECT_EQ(other.offered.size(), 1u);
  EXPECT_EQ(other.asked[2]["tool_calls"][0]["function"]["name"], "now");
}

TEST_F(Chat, ArgumentsOfLoadedCallsBecomeObjects) {
  session_.line("/load " + file("wire.json", R"([{"role": "user", "content": "x"},
    {"role": "assistant", "content": null,
     "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]}])"));
  EXPECT_EQ(session_.messages()[1]["tool_calls"][0]["function"]["arguments"]["a"], 1);
  EXPECT_EQ(session_.messages()[1]["content"], "");
}

// One line each; the conversation stays as it was.
TEST_F(Chat, BadInputIsSaidAndTheSessionGoesOn) {
  session_.line("Hi");
  const std::string before = talk();
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"/nonsense", "unknown command /nonsense"},
      {"/ help", "unknown command /"},
      {"/load " + (folder_ / "missing.json").string(), "missing.json"},
      {"/load " + folder_.path().string(), "regular file"},
      {"/load", "needs the name"},
      {"/save", "needs the name"},
      {"/save /proc/none/talk.json", "No such file"},
      {"/save " + file("notes.txt", "my notes"), "is no conversation"},
      {"/tools " + file("broken.json", "{"), "broken.json"},
      {"/tools " + file("odd.json", "{\"a\": 1}"), "expected a list of tools"},
      {"/load " + file("l1.json", "[1]"), "message 1"},
      {"/load " + file("l2.json", "{}"), "expected a list of messages"},
      {"/load " + file("l3.json", R"([{"role": "root", "content": ""}])"), "root"},
      {"/load " + file("l4.json", R"([{"role": "user", "content": 3}])"), "content"},
      {"/load " + file("l5.json", R"([{"role": "assistant", "tool_calls": 3}])"), "tool_calls"},
      {"/load " + file("l6.json", R"([{"role": "assistant", "tool_calls": [{}]}])"), "name"},
      {"/load " + file("l7.json", R"([{"role": "assistant", "tool_calls": [{"name": "f",
                        "arguments": "[1"}]}])"),
       "arguments"},
      {"/result 3", "called no tool"},
      {"bad \xFF bytes", "UTF-8"}};
  for (const auto& [line, text] : cases) {
    host_.said.clear();
    EXPECT_TRUE(session_.line(line)) << line;
    ASSERT_EQ(host_.said.size(), 1u) << line;
    EXPECT_NE(host_.said[0].find(text), std::string::npos) << line << ": " << host_.said[0];
    EXPECT_EQ(host_.said[0].find('\n'), std::string::npos) << line;
    EXPECT_EQ(talk(), before) << line;
  }
}

TEST_F(Chat, ARefusedMessageIsTakenBack) {
  session_.line("Hi");
  for (const ExitCode code : {ExitCode::kUsage, ExitCode::kModelFile}) {
    host_.refuse = code;
    EXPECT_TRUE(session_.line("Too long"));
    EXPECT_EQ(host_.last_said(), "no room");
    EXPECT_EQ(talk(), "user:Hi|assistant:An answer.");
  }
  host_.refuse = ExitCode::kCommunication;  // not the user's fault: the job ends
  EXPECT_THROW(session_.line("More"), Error);
}

TEST_F(Chat, StoppedAnswersStayAsFarAsTheyCame) {
  host_.next = {{"", "Half an", {}, false}, ChatAnswer::End::kInterrupted};
  session_.line("Hi");
  EXPECT_EQ(talk(), "user:Hi|assistant:Half an");
  host_.next = {{"only thoughts", "", {}, false}, ChatAnswer::End::kInterrupted};
  session_.line("More");
  EXPECT_EQ(talk(), "user:Hi|assistant:Half an");
  EXPECT_NE(host_.last_said().find("taken back"), std::string::npos);
  host_.next = {{"", "Cut", {}, true}, ChatAnswer::End::kLength};
  host_.said.clear();
  session_.line("Again");
  ASSERT_EQ(host_.said.size(), 2u);
  EXPECT_NE(host_.said[0].find("cut off"), std::string::npos);
  EXPECT_NE(host_.said[1].find("malformed"), std::string::npos);
}

TEST_F(Chat, AnEndlessMessageIsRefused) {
  const std::string part(4 << 20, 'x');
  for (int i = 0; i < 20 && host_.said.empty(); ++i) session_.line(part + "\\");
  EXPECT_NE(host_.last_said().find("64 MiB"), std::string::npos);
  EXPECT_FALSE(session_.continues());
}

}  // namespace
}  // namespace glm
