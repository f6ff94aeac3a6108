// --batch with --state as a user, a launcher and a batch system treat it: stopped by real signals,
// killed, gone on with other ranks. SPDX-License-Identifier: MIT
#include <chrono>
#include <csignal>
#include <fstream>
#include <functional>
#include <thread>

#include "core/base/rng.h"
#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLines = 40;

// Random ids, for which the tiny model has long answers.
std::string random_request(size_t i) {
  Json line = {{"id", "r" + std::to_string(i)}, {"max_tokens", 30 + i * 37 % 90}, {"seed", i}};
  for (uint64_t t = 0; t < 3 + i * 29 % 120; ++t)
    line["tokens"].push_back(static_cast<int>(uniform_double(i, t) * 1900));
  if (i % 3 == 0) line["temperature"] = 0;
  return line.dump() + "\n";
}

std::string requests_file(const std::string& name, size_t n = kLines) {
  std::string text;
  for (size_t i = 0; i < n; ++i) text += random_request(i);
  write_bytes(scratch() / name, text);
  return (scratch() / name).string();
}

size_t count_lines(const std::string& path) {
  return fs::exists(path) ? lines_of(read_bytes(path)).size() : 0;
}

// A batch with output and state of its own.
struct StateJob {
  std::string name;
  std::string input = requests_file(name + ".jsonl");
  std::string model = model_file("tiny", "q40");
  Args more = {};

  explicit StateJob(const std::string& job_name) : name(job_name) {
    for (const std::string& path : {output(), state()}) fs::remove(path);
  }
  std::string output() const { return (scratch() / (name + ".out")).string(); }
  std::string state() const { return (scratch() / (name + ".h5")).string(); }
  Command command(int ranks, const Args& grid = {}) const {
    Args args = {"--model", model, "--batch", input, "--output", output(), "--state", state()};
    const Args usual = {"--reproducible", "--threads", "1", "--max-sequences", "3"};
    args.insert(args.end(), usual.begin(), usual.end());
    args.insert(args.end(), more.begin(), more.end());
    args.insert(args.end(), grid.begin(), grid.end());
    return infer(ranks, args);
  }
};

bool wait_until(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

// The signal waits for its process instead of ending it: from here on it is a request.
bool holds(pid_t pid, int signal) {
  std::ifstream file(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("SigBlk:"))
      return (std::stoull(line.substr(7), nullptr, 16) >> (signal - 1) & 1) != 0;
  return false;
}

// victim: a rank, or -1 for the launcher, or a program without one.
pid_t victim_pid(const Process& process, int victim) {
  if (victim >= 0) return process.rank_pid(victim);
  const std::vector<pid_t> pids = process.pids();
  return pids.empty() ? 0 : pids.front();
}

// Ended with 75 and one line of ours.
void expect_stopped(const Outcome& outcome, const std::string& text) {
  EXPECT_EQ(outcome.code, 75) << outcome.err;
  EXPECT_FALSE(outcome.timed_out);
  std::vector<std::string> ours;
  for (const std::string& line : lines_of(outcome.err))
    if (line.starts_with("glm_infer: ")) ours.push_back(line);
  ASSERT_EQ(ours.size(), 1u) << outcome.err;
  EXPECT_NE(ours[0].find(text), std::string::npos) << ours[0];
}

struct Interruption {
  int ranks;
  int victim;
  int signal;
  Args grid = {};
};

// Stopped after two more lines.
void interrupt(const StateJob& job, const Interruption& way) {
  SCOPED_TRACE(fmt::format(
      "{} ranks {}, signal {} to {}", way.ranks, fmt::join(way.grid, " "), way.signal, way.victim));
  const size_t before = count_lines(job.output());
  Process process(job.command(way.ranks, way.grid));
  EXPECT_TRUE(wait_until([&] { return count_lines(job.output()) >= before + 2; }));
  ::kill(victim_pid(process, way.victim), way.signal);
  expect_stopped(process.finish(), way.signal == SIGUSR1 ? "stopped by SIGUSR1: " : "SIGTERM: ");
  EXPECT_LT(count_lines(job.output()), kLines) << "it was over before";
}

std::string undisturbed_output(const std::string& name, const Args& more) {
  StateJob job(name);
  job.more = more;
  expect_good(job.command(0));
  return read_bytes(job.output());
}

TEST(StoppedBatch, GoesOnWithOtherRanks) {
  for (const Args& more : {Args{}, Args{"--mtp", "on"}}) {
    SCOPED_TRACE(more.size());
    const std::string expected = undisturbed_output("whole", more);
    StateJob job("stopped");
    job.more = more;
    interrupt(job, {2, -1, SIGUSR1, {"--pipeline", "2"}});
    interrupt(job, {3, 2, SIGUSR1});
    interrupt(job, {0, -1, SIGTERM});
    interrupt(job, {2, 1, SIGTERM, {"--tensor", "2"}});
    interrupt(job, {1, 0, SIGUSR1});
    interrupt(job, {2, 0, SIGTERM, {"--data", "2"}});
    expect_good(job.command(3));
    EXPECT_EQ(read_bytes(job.output()), expected);
    const Outcome again = expect_good(job.command(2));
    EXPECT_NE(again.err.find("40 answered before, 0 answered"), std::string::npos) << again.err;
    EXPECT_EQ(read_bytes(job.output()), expected);
  }
}

TEST(StoppedBatch, AnswersStandInTheOrderOfTheInput) {
  const std::vector<std::string> lines = lines_of(undisturbed_output("order", {}));
  ASSERT_EQ(lines.size(), kLines);
  for (size_t i = 0; i < kLines; ++i)
    EXPECT_EQ(Json::parse(lines[i]).at("id"), "r" + std::to_string(i));
}

// Told between the start of its ranks and the first step.
TEST(StoppedBatch, MayBeToldBeforeTheFirstStep) {
  for (const int ranks : {0, 1, 2, 3}) {
    SCOPED_TRACE(ranks);
    const StateJob job("early");
    Process process(job.command(ranks));
    const int victim = ranks - 1;
    ASSERT_TRUE(wait_until([&] {
      const pid_t pid = victim_pid(process, victim);
      return pid > 0 && holds(pid, SIGUSR1);
    }));
    ::kill(victim_pid(process, victim), SIGUSR1);
    expect_stopped(process.finish(), "s");
    EXPECT_LT(count_lines(job.output()), kLines);
    EXPECT_TRUE(fs::exists(job.state()));
  }
}

// One rank stands still, so that the job cannot stop as it was told.
TEST(StoppedBatch, ASecondSignalEndsItAtOnce) {
  for (const int signal : {SIGUSR1, SIGTERM}) {
    SCOPED_TRACE(signal);
    const StateJob job("second");
    Process process(job.command(2, {"--pipeline", "2"}));
    ASSERT_TRUE(wait_until([&] { return count_lines(job.output()) >= 2; }));
    const std::string saved = read_bytes(job.state());
    const pid_t leader = process.rank_pid(0);
    ::kill(process.rank_pid(1), SIGSTOP);
    ::kill(leader, signal);
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    ::kill(leader, signal);  // the launcher and the batch system have each handed it on
    EXPECT_FALSE(process.wait_for(1.0)) << "these two are one request";
    ::kill(leader, signal);
    const Outcome outcome = process.finish();
    EXPECT_EQ(outcome.code, 128 + signal) << outcome.err;
    EXPECT_EQ(read_bytes(job.state()), saved);
  }
}

// What was written after the last save is not written again, and half a line is cut off.
TEST(StoppedBatch, IsKilledBetweenSaves) {
  const std::string expected = undisturbed_output("unkilled", {});
  StateJob job("killed");
  job.more = {"--state-interval", "0.1"};
  for (const int ranks : {2, 0, 2}) {
    SCOPED_TRACE(ranks);
    const size_t before = count_lines(job.output());
    Process process(job.command(ranks));
    EXPECT_TRUE(wait_until([&] { return count_lines(job.output()) >= before + 4; }));
    ::kill(victim_pid(process, ranks - 1), SIGKILL);
    EXPECT_NE(process.finish().code, 0);
    EXPECT_LT(count_lines(job.output()), kLines) << "it was over before";
    std::ofstream(job.output(), std::ios::app) << "{\"id\":\"r";
  }
  expect_good(job.command(2));
  EXPECT_EQ(read_bytes(job.output()), expected);
}

TEST(StoppedBatch, RefusesAnotherJob) {
  StateJob job("refused");
  interrupt(job, {0, -1, SIGUSR1});
  const std::string saved = read_bytes(job.state()), written = read_bytes(job.output());
  const auto expect_refused = [&](int code, const std::string& text, const Args& more = {}) {
    job.more = more;
    expect_error(job.command(0), code, {text});
    job.more = {};
    EXPECT_EQ(read_bytes(job.state()), saved);
  };
  expect_refused(2, "request 1 (id \"r0\")", {"--top-k", "5"});
  expect_refused(2, "now they say: reproducible numerics, q8 cache", {"--kv-dtype", "q8"});
  expect_refused(2, "other options", {"--mtp", "on"});
  expect_refused(2, "excludes", {"--resume"});
  job.model = model_file("tiny", "f32");
  expect_refused(2, "another model");
  expect_error(job.command(2), 2, {"another model"});
  job.model = model_file("tiny", "q40");
  const std::string input = job.input;
  job.input = requests_file("fewer.jsonl", kLines - 1);
  expect_refused(2, "40 requests");
  job.input = input;
  write_bytes(job.output(), "");
  expect_refused(2, "it has 0 answers");
  std::string changed = written;
  char& digit = changed[changed.find("\"tokens\":[") + 10];
  digit = digit == '1' ? '2' : '1';
  write_bytes(job.output(), changed);
  expect_refused(2, "--output");
  write_bytes(job.output(), written);
  write_bytes(job.state(), saved.substr(0, saved.size() / 2));
  expect_error(job.command(0), 3, {"truncated"});
  fs::remove(job.state());
  expect_error(job.command(0), 2, {"has answers already", "--state"});
  write_bytes(job.state(), saved);
  expect_good(job.command(0));
}

}  // namespace
}  // namespace glm::testing_support
