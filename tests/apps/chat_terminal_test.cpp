// A chat on a terminal, alone and under mpirun: editing, history, Ctrl-C that stops the answer and
// not the program, and the modes of the terminal at the end. SPDX-License-Identifier: MIT
#include <csignal>

#include "tests/apps/programs.h"
#include "tests/support/pty_process.h"

namespace glm::testing_support {
namespace {

constexpr const char* kCtrlC = "\x03";
constexpr const char* kCtrlD = "\x04";
constexpr const char* kUp = "\x1b[A";
constexpr const char* kBackspace = "\x7f";

Args greedy() { return {"--model", model_file("tiny", "q40"), "--temperature", "0"}; }

// Tokens nearly at random, so that an answer goes on for seconds.
Args babbling() {
  return {"--model",
          model_file("tiny", "q40"),
          "--temperature",
          "100",
          "--top-p",
          "1",
          "--top-k",
          "0",
          "--ops",
          "ref",
          "--max-tokens",
          "200000000",
          "--seed",
          "5"};
}

// Something is being answered.
bool grows(PtyProcess& process, size_t n_bytes) {
  const size_t before = process.shown().size();
  for (int i = 0; i < 600 && process.shown().size() < before + n_bytes; ++i)
    process.wait_for("never shown", 0.05);
  return process.shown().size() >= before + n_bytes;
}

class ChatTerminalTest : public ::testing::TestWithParam<int> {
 protected:
  static PtyProcess start(Args args) {
    return PtyProcess(infer(GetParam(), std::move(args)).argv, {{"TERM", "vt100"}});
  }
};

bool usual(const termios& modes) {
  const auto wanted = static_cast<tcflag_t>(ICANON | ECHO | ISIG);
  return (modes.c_lflag & wanted) == wanted && modes.c_cc[VINTR] == 3;
}

TEST_P(ChatTerminalTest, LinesAreEditedAndRemembered) {
  PtyProcess chat = start(greedy());
  ASSERT_TRUE(chat.wait_for("> ")) << chat.shown();
  chat.type(std::string("What is the capital of Frank") + kBackspace + "ce?\n");
  ASSERT_TRUE(chat.wait_for("The capital of France is Paris.")) << chat.shown();
  ASSERT_TRUE(chat.wait_for("> ")) << chat.shown();
  chat.type(std::string(kUp) + "\n");
  ASSERT_TRUE(chat.wait_for("The capital of France is Paris.")) << chat.shown();
  ASSERT_TRUE(chat.wait_for("> ")) << chat.shown();
  chat.type(kCtrlD);
  EXPECT_EQ(chat.finish(), 0) << chat.shown();
  EXPECT_TRUE(usual(chat.modes()));
  EXPECT_NE(chat.shown().find("chat: 2 turns"), std::string::npos) << chat.shown();
}

TEST_P(ChatTerminalTest, CtrlCStopsTheAnswerAndNotTheProgram) {
  PtyProcess chat = start(babbling());
  ASSERT_TRUE(chat.wait_for("> ")) << chat.shown();
  for (int i = 0; i < 2; ++i) {
    chat.type("Babble.\n");
    ASSERT_TRUE(chat.wait_for("Babble.")) << chat.shown();
    ASSERT_TRUE(grows(chat, 20)) << chat.shown();
    chat.type(kCtrlC);
    ASSERT_TRUE(chat.wait_for("stopped")) << chat.shown();
    ASSERT_TRUE(chat.wait_for("> ")) << chat.shown();
  }
  chat.type(std::string("half a line") + kCtrlC);
  ASSERT_TRUE(chat.wait_for("^C")) << chat.shown();
  chat.type("/quit\n");
  EXPECT_EQ(chat.finish(), 0) << chat.shown();
  EXPECT_TRUE(usual(chat.modes()));
}

INSTANTIATE_TEST_SUITE_P(AloneAndOnTwoRanks, ChatTerminalTest, ::testing::Values(0, 2));

TEST(ChatSignals, AnInterruptStopsTheAnswer) {
  PtyProcess chat(infer(0, babbling()).argv, {{"TERM", "vt100"}});
  ASSERT_TRUE(chat.wait_for("> ")) << chat.shown();
  chat.type("Babble.\n");
  ASSERT_TRUE(chat.wait_for("Babble.")) << chat.shown();
  ASSERT_TRUE(grows(chat, 20)) << chat.shown();
  ::kill(chat.pid(), SIGINT);
  ASSERT_TRUE(chat.wait_for("stopped")) << chat.shown();
  chat.type("/quit\n");
  EXPECT_EQ(chat.finish(), 0) << chat.shown();
}

// Nobody can restore anything in a process that is killed: its guard does.
TEST(ChatSignals, TheTerminalSurvivesAKill) {
  PtyProcess chat(infer(0, greedy()).argv, {{"TERM", "vt100"}});
  ASSERT_TRUE(chat.wait_for("> ")) << chat.shown();
  EXPECT_FALSE(usual(chat.modes()));
  ::kill(chat.pid(), SIGKILL);
  EXPECT_EQ(chat.finish(), -1);
  for (int i = 0; i < 100 && !usual(chat.modes()); ++i) chat.wait_for("never shown", 0.05);
  EXPECT_TRUE(usual(chat.modes()));
}

}  // namespace
}  // namespace glm::testing_support
