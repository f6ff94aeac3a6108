// Runs that are stopped after any number of steps and go on elsewhere say what a run says that
// nobody disturbs. SPDX-License-Identifier: MIT
#include <algorithm>
#include <atomic>
#include <csignal>
#include <map>
#include <mutex>
#include <utility>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "tests/support/instrumented.h"
#include "tests/support/model_run.h"

namespace glm::testing_support {
namespace {

namespace fs = std::filesystem;

const fs::path kPausedModel = fs::path(GLM_TEST_DATA) / "tiny";

// Greedy and sampled, prompts of one step and of several, answers of all lengths.
std::vector<Request> paused_requests(size_t n) {
  std::vector<Request> requests;
  for (size_t i = 0; i < n; ++i) {
    Request request;
    for (uint64_t t = 0; t < 3 + 17 * (i % 4); ++t)
      request.prompt.push_back(static_cast<int32_t>(uniform_double(100 + i, t) * 1980));
    request.max_tokens = 4 + static_cast<int64_t>(i * 7 % 30);
    request.sampling.temperature = i % 3 == 0 ? 0.0f : 0.9f;
    request.sampling.top_p = i % 2 == 0 ? 0.95f : 1.0f;
    request.sampling.repetition_penalty = i % 4 == 1 ? 1.1f : 1.0f;
    request.sampling.seed = i;
    requests.push_back(std::move(request));
  }
  return requests;
}

// A job that may be stopped often: what is known of each answer.
struct Work {
  std::vector<Request> requests;
  std::map<size_t, AnswerState> under_way;
  std::map<size_t, std::vector<int32_t>> answers;

  bool done() const { return answers.size() == requests.size(); }
};

// When one of the ranks is told to stop, and how often its looks for that are counted.
struct Stop {
  int rank = 0;
  int looks = 0;  // after so many; 0: never
  double save_seconds = 0;
};

// One run of the work. Returns what run() gave on the leader.
int work_on(Engine& engine, Communicator& world, Work& work, const Stop& stop) {
  std::map<int32_t, size_t> places;
  EngineListener listener;
  const auto known = [&](int32_t id) {
    const Sequence& sequence = engine.sequence(id);
    return std::vector<int32_t>(
        sequence.tokens.begin() + static_cast<int64_t>(sequence.request.prompt.size()),
        sequence.tokens.end());
  };
  listener.on_finish = [&](int32_t id) {
    work.answers[places.at(id)] = known(id);
    places.erase(id);
    engine.forget(id);
  };
  if (world.rank() == 0)
    for (size_t i = 0; i < work.requests.size(); ++i)
      if (!work.answers.contains(i))
        places[engine.submit(work.requests[i], listener, work.under_way[i])] = i;
  const auto save = [&] {
    for (const auto& [id, place] : places) work.under_way[place] = engine.state(id);
  };
  int looks = 0;
  Pauses pauses;
  pauses.told = [&] {
    return stop.looks > 0 && world.rank() == stop.rank && ++looks >= stop.looks ? SIGUSR1 : 0;
  };
  pauses.save = save;
  pauses.save_seconds = stop.save_seconds;
  pauses.ask_seconds = 0;
  const int signal = engine.run({}, pauses);
  if (world.rank() == 0) save();
  return signal;
}

// Collective over threads.
int run_work(const fs::path& model, RunOptions options, Work& work, const Stop& stop) {
  std::atomic<int> signal = 0;
  options.drive = [&](Engine& engine, Communicator& world) {
    const int got = work_on(engine, world, work, stop);
    if (world.rank() == 0) signal = got;
  };
  options.max_sequences = 4;
  run_on_threads(model, options, {});
  return signal;
}

std::map<size_t, std::vector<int32_t>> undisturbed(const fs::path& model,
                                                   const RunOptions& options,
                                                   const std::vector<Request>& requests) {
  Work work{requests, {}, {}};
  EXPECT_EQ(run_work(model, options, work, {}), 0);
  return work.answers;
}

// Stopped after 1, 2, 3, ... steps, again and again, by any rank, on another grid each time.
void expect_the_same(DType dtype, DraftMode drafts) {
  const fs::path model = converted(kPausedModel, dtype);
  const std::vector<Request> requests = paused_requests(kInstrumented ? 5 : 9);
  RunOptions options{.numerics = Numerics::kReproducible, .max_rows = 32, .drafts = drafts};
  const auto expected = undisturbed(model, options, requests);
  const std::vector<GridShape> grids = {
      {1, 1, 1, 1}, {1, 2, 1, 1}, {2, 1, 1, 1}, {1, 1, 2, 1}, {1, 3, 1, 1}, {2, 2, 1, 2}};
  for (int first = 1; first <= (kInstrumented ? 1 : 3); ++first) {
    Work work{requests, {}, {}};
    int runs = 0, stopped = 0;
    while (!work.done() && runs < 100) {
      options.shape = grids[static_cast<size_t>(runs + first) % grids.size()];
      const Stop stop{(runs * 5 + first) % options.shape.world(), first + runs % 11};
      SCOPED_TRACE(fmt::format(
          "run {} on {}, rank {} after {}", runs, options.shape.text(), stop.rank, stop.looks));
      const int signal = run_work(model, options, work, stop);
      ++runs;
      stopped += signal == SIGUSR1 ? 1 : 0;
      EXPECT_EQ(signal, work.done() ? 0 : SIGUSR1);
    }
    EXPECT_EQ(work.answers, expected);
    EXPECT_GT(stopped, kInstrumented ? 2 : 5) << "it was over too soon";
  }
}

TEST(Pauses, ChangeNothing) { expect_the_same(DType::kQ40, DraftMode::kOff); }

TEST(Pauses, ChangeNothingOfDrafts) { expect_the_same(DType::kF32, DraftMode::kOn); }

// The first steps of a short run, one by one, then some of the later ones.
TEST(Pauses, MayComeAtEveryStep) {
  const fs::path model = converted(kPausedModel, DType::kF32);
  const std::vector<Request> requests = paused_requests(3);
  for (const DraftMode drafts : {DraftMode::kOff, DraftMode::kOn}) {
    RunOptions options{.numerics = Numerics::kReproducible, .max_rows = 16, .drafts = drafts};
    const auto expected = undisturbed(model, options, requests);
    for (int looks = 1; looks < (kInstrumented ? 4 : 100); looks += looks < 8 ? 1 : 5) {
      SCOPED_TRACE(looks);
      Work work{requests, {}, {}};
      const bool stopped = run_work(model, options, work, {0, looks}) != 0;
      EXPECT_EQ(work.done(), !stopped);
      EXPECT_EQ(run_work(model, options, work, {}), 0);
      EXPECT_EQ(work.answers, expected);
      if (!stopped) break;
    }
  }
}

// What was saved between any two steps of a run that goes on serves as well.
TEST(Pauses, SavesDoNotDisturb) {
  const fs::path model = converted(kPausedModel, DType::kF32);
  const std::vector<Request> requests = paused_requests(6);
  RunOptions options{.numerics = Numerics::kReproducible, .max_rows = 32, .drafts = DraftMode::kOn};
  const auto expected = undisturbed(model, options, requests);
  options.shape = {1, 2, 1, 1};
  Work work{requests, {}, {}};
  EXPECT_EQ(run_work(model, options, work, {.save_seconds = 1e-9}), 0);
  EXPECT_EQ(work.answers, expected);
}

// A rank of a later stage is told while a prompt of many steps is computed.
TEST(Pauses, ComeDuringALongPrompt) {
  const fs::path model = converted(kPausedModel, DType::kF32);
  std::vector<Request> requests = paused_requests(1);
  requests[0].prompt.assign(240, 7);
  requests[0].max_tokens = 4;
  RunOptions options{.shape = {1, 3, 1, 1}, .numerics = Numerics::kReproducible, .max_rows = 8};
  const auto expected = undisturbed(model, options, requests);
  Work work{requests, {}, {}};
  EXPECT_EQ(run_work(model, options, work, {.rank = 2, .looks = 1}), SIGUSR1);
  EXPECT_TRUE(work.under_way[0].tokens.empty()) << "the prompt was over before";
  EXPECT_EQ(run_work(model, options, work, {}), 0);
  EXPECT_EQ(work.answers, expected);
}

}  // namespace
}  // namespace glm::testing_support
