// --batch as a user starts it: the same answers as alone, on every grid; killed and resumed.
// SPDX-License-Identifier: MIT
#include <chrono>
#include <csignal>
#include <map>
#include <thread>

#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

const std::vector<std::string> kPrompts = {"What is the capital of France?",
                                           "What is the capital of Italy?",
                                           "What is 3 plus 4?",
                                           "Explain rain.",
                                           "Hello",
                                           "What is 9 minus 5?"};

std::string request_line(size_t i) {
  Json line = {{"id", "q" + std::to_string(i)},
               {"prompt", kPrompts[i % kPrompts.size()]},
               {"max_tokens", 20 + i % 60},
               {"seed", i}};
  if (i % 2 == 0) line["temperature"] = 0;
  return line.dump() + "\n";
}

std::string input_file(const std::string& name, size_t n) {
  std::string text;
  for (size_t i = 0; i < n; ++i) text += request_line(i);
  write_bytes(scratch() / name, text);
  return (scratch() / name).string();
}

Args batch(const std::string& in, const std::string& out, const Args& more = {}) {
  Args args = {"--model", model_file("tiny", "f32"), "--batch", in, "--output", out};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

std::string fresh(const std::string& name) {
  std::filesystem::remove(scratch() / name);
  return (scratch() / name).string();
}

// id -> line; every line is whole and no id comes twice.
std::map<std::string, std::string> answers(const std::string& path) {
  const std::string text = read_bytes(path);
  std::map<std::string, std::string> out;
  if (text.empty()) return out;
  EXPECT_EQ(text.back(), '\n') << "a torn line";
  for (const std::string& line : lines_of(text)) {
    const Json json = Json::parse(line, nullptr, false);
    EXPECT_TRUE(json.is_object()) << line;
    if (!json.is_object()) continue;
    EXPECT_TRUE(out.emplace(json.at("id").get<std::string>(), line).second) << line;
  }
  return out;
}

TEST(Batch, SaysWhatEachPromptSaysAlone) {
  const std::string in = input_file("alone.jsonl", 8);
  const std::string out = fresh("alone.out.jsonl");
  const Json totals = last_json(expect_good(infer(0, batch(in, out, {"--json"})))).at("batch");
  EXPECT_EQ(totals.at("answered"), 8);
  const auto lines = answers(out);
  ASSERT_EQ(lines.size(), 8u);
  for (size_t i = 0; i < 8; ++i) {
    const Json request = Json::parse(request_line(i));
    Args args = {"--model",
                 model_file("tiny", "f32"),
                 "--prompt",
                 request.at("prompt"),
                 "--max-tokens",
                 request.at("max_tokens").dump(),
                 "--seed",
                 request.at("seed").dump(),
                 "--json"};
    if (request.contains("temperature")) args.insert(args.end(), {"--temperature", "0"});
    const Json alone = last_json(expect_good(infer(0, args)));
    const Json line = Json::parse(lines.at(request.at("id").get<std::string>()));
    EXPECT_EQ(line.size(), 5u);
    for (const char* key : {"text", "tokens", "finish_reason", "usage"})
      EXPECT_EQ(line.at(key), alone.at(key)) << i << " " << key;
  }
}

TEST(Batch, SaysTheSameOnEveryGrid) {
  const std::string in = input_file("grids.jsonl", 9);
  const std::string out = fresh("grids.out.jsonl");
  expect_good(infer(0, batch(in, out)));
  const auto expected = answers(out);
  ASSERT_EQ(expected.size(), 9u);
  const std::vector<std::pair<int, Args>> launches = {
      {2, {"--data", "2"}},
      {3, {"--pipeline", "3", "--context", "128", "--cache-tokens", "256"}},
      {4, {}},
      {4, {"--data", "2", "--pipeline", "2"}}};
  for (const auto& [ranks, more] : launches) {
    SCOPED_TRACE(fmt::format("{} ranks {}", ranks, fmt::join(more, " ")));
    const std::string other = fresh("grid.out.jsonl");
    expect_good(infer(ranks, batch(in, other, more)));
    EXPECT_EQ(answers(other), expected);
  }
}

// Killed as hard as can be, twice, and resumed: nothing is torn, lost or answered twice.
TEST(Batch, IsKilledAndResumed) {
  constexpr size_t kRequests = 60;
  const std::string in = input_file("kill.jsonl", kRequests);
  const std::string undisturbed = fresh("whole.jsonl");
  const Args slow = {"--pipeline", "2", "--max-sequences", "3", "--threads", "1"};
  expect_good(infer(2, batch(in, undisturbed, slow)));
  const auto expected = answers(undisturbed);
  ASSERT_EQ(expected.size(), kRequests);

  const std::string out = fresh("killed.jsonl");
  size_t before = 0;
  for (const int victim : {0, 1}) {
    SCOPED_TRACE(victim);
    Args args = slow;
    if (victim > 0) args.push_back("--resume");
    Process process(infer(2, batch(in, out, args)));
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    const auto n_lines = [&] {
      return std::filesystem::exists(out) ? lines_of(read_bytes(out)).size() : 0;
    };
    while (n_lines() < before + 10 && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    const pid_t pid = process.rank_pid(victim);
    ASSERT_GT(pid, 0);
    ::kill(pid, SIGKILL);
    EXPECT_NE(process.finish().code, 0);
    const auto lines = answers(out);
    EXPECT_GT(lines.size(), before);
    ASSERT_LT(lines.size(), kRequests) << "it was over before it was killed";
    before = lines.size();
  }
  Args rest = slow;
  rest.insert(rest.end(), {"--resume", "--json"});
  const Json totals = last_json(expect_good(infer(2, batch(in, out, rest)))).at("batch");
  EXPECT_EQ(totals.at("skipped"), before);
  EXPECT_EQ(totals.at("answered"), kRequests - before);
  EXPECT_EQ(answers(out), expected);
  EXPECT_EQ(last_json(expect_good(infer(2, batch(in, out, rest)))).at("batch").at("answered"), 0)
      << "nothing is left";
}

TEST(Batch, RefusesBeforeAnyWork) {
  const std::string out = fresh("refused.jsonl");
  write_bytes(scratch() / "bad.jsonl", "{\"prompt\":\"x\"}\n{\"prompt\":\"x\",\"bogus\":1}\n");
  for (const int ranks : {0, 2})
    expect_error(infer(ranks, batch(scratch() / "bad.jsonl", out)), 2, {"bad.jsonl:2", "bogus"});
  EXPECT_FALSE(std::filesystem::exists(out));
  write_bytes(scratch() / "bad.jsonl",
              "{\"tokens\":[5]}\n{\"tokens\":[2048]}\n{\"tokens\":[1,2],"
              "\"max_tokens\":100000}\n");
  expect_error(infer(0, batch(scratch() / "bad.jsonl", out)),
               2,
               {"bad.jsonl:2", "2048", "vocabulary", "1 more bad line: 3"});
  const std::string in = input_file("one.jsonl", 1);
  expect_error(infer(0, batch(in, in)), 2, {"is the file of --batch"});
  write_bytes(out, "{\"id\":\"q0\",\"finish_reason\":\"stop\"}\n");
  expect_error(infer(0, batch(in, out)), 2, {"--resume"});
  expect_error(infer(0, batch(in, scratch() / "no" / "x")), 2, {"--output"});
  expect_error(infer(0, {"--model", "x", "--batch", in}), 2, {"--output"});
  expect_error(infer(0, {"--model", "x", "--prompt", "x", "--resume"}), 2, {"--batch"});
  expect_error(infer(0, batch(in, out, {"--prompt", "x"})), 2, {"--batch"});
}

// What is written before the disk is full stays, whole.
TEST(Batch, SaysWhenTheDiskIsFull) {
  const std::string in = input_file("full.jsonl", 30);
  const std::string out = fresh("full.out.jsonl");
  Command command = infer(0, batch(in, out));
  command.file_size = 2000;
  const Outcome outcome = run(command);
  EXPECT_NE(outcome.code, 0);
  const size_t n = read_bytes(out).empty() ? 0 : lines_of(read_bytes(out)).size();
  EXPECT_GT(n, 0u);
  expect_good(infer(0, batch(in, out, {"--resume"})));
  EXPECT_EQ(answers(out).size(), 30u);
}

}  // namespace
}  // namespace glm::testing_support
