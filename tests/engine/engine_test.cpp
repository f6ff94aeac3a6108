// The engine over ranks that are threads: many sequences that come and go, with few pages and steps
// under way at once, say what each says alone. SPDX-License-Identifier: MIT
#include "core/engine/engine.h"

#include <map>
#include <mutex>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "tests/support/instrumented.h"
#include "tests/support/model_run.h"

namespace glm::testing_support {
namespace {

namespace fs = std::filesystem;

const fs::path kTiny = fs::path(GLM_TEST_DATA) / "tiny";
constexpr int64_t kVocab = 2048;

// Prompts of random tokens: lengths, answers and samplers of all kinds.
std::vector<Request> mixed_requests(size_t n) {
  std::vector<Request> requests;
  for (size_t i = 0; i < n; ++i) {
    auto draw = [i, k = uint64_t{0}](double high) mutable {
      return static_cast<int64_t>(uniform_double(i, k++) * high);
    };
    Request request;
    const int64_t length = 1 + draw(70);
    for (int64_t t = 0; t < length; ++t)
      request.prompt.push_back(static_cast<int32_t>(draw(static_cast<double>(kVocab - 64))));
    request.max_tokens = 1 + draw(40);
    request.sampling.temperature = i % 3 == 0 ? 0.8f : 0.0f;
    request.sampling.top_p = i % 2 == 0 ? 0.9f : 1.0f;
    request.sampling.seed = i;
    requests.push_back(std::move(request));
  }
  return requests;
}

const std::vector<Request>& requests() {
  static const std::vector<Request> kRequests =
      mixed_requests(testing_support::kInstrumented ? 8 : 14);
  return kRequests;
}

// What each says when it has one rank for itself.
const std::vector<std::vector<int32_t>>& alone() {
  static const std::vector<std::vector<int32_t>> kAnswers = [] {
    std::vector<std::vector<int32_t>> answers;
    for (const Request& request : requests())
      answers.push_back(run_on_threads(converted(kTiny, DType::kF32), {}, {request}).answers[0]);
    return answers;
  }();
  return kAnswers;
}

TEST(Engine, CompanyChangesNothingOnAnyGrid) {
  int grids = 0;
  for (int world = testing_support::kInstrumented ? 4 : 1; world <= 4; ++world)
    for (const GridShape& shape : legal_grids(world, true)) {
      if (testing_support::kInstrumented && grids++ % 3 != 0) continue;
      SCOPED_TRACE(shape.text());
      const RunResult result =
          run_on_threads(converted(kTiny, DType::kF32), {.shape = shape}, requests());
      EXPECT_EQ(result.answers, alone());
      EXPECT_EQ(result.preempted, 0);
    }
}

// The longest sequence alone needs 7 pages.
TEST(Engine, LostPagesChangeNothing) {
  for (const GridShape& shape : {GridShape{1, 1, 1, 1},
                                 GridShape{1, 2, 1, 1},
                                 GridShape{1, 4, 1, 1},
                                 GridShape{1, 2, 2, 2},
                                 GridShape{2, 1, 1, 2},
                                 GridShape{2, 3, 1, 2},
                                 GridShape{1, 8, 1, 1}}) {
    if (testing_support::kInstrumented && shape.pipeline > 2) continue;
    SCOPED_TRACE(shape.text());
    const RunResult result = run_on_threads(converted(kTiny, DType::kF32),
                                            {.shape = shape, .max_rows = 23, .kv_blocks = 9},
                                            requests());
    EXPECT_EQ(result.answers, alone());
    EXPECT_GT(result.preempted, 0);
  }
}

// Bit for bit, with activations quantised as well: company, chunks, grids and lost pages.
TEST(Engine, ReproducibleBitsDoNotDependOnCompany) {
  std::vector<Request> all(requests().begin(), requests().begin() + 6);
  for (Request& request : all) request.all_logits = true;
  int64_t preempted = 0;
  for (const DType dtype : {DType::kF32, DType::kQ40}) {
    if (testing_support::kInstrumented && dtype == DType::kF32) continue;
    const fs::path model = converted(kTiny, dtype);
    std::vector<RunResult> one;
    for (const Request& request : all)
      one.push_back(run_on_threads(model, {.numerics = Numerics::kReproducible}, {request}));
    for (const GridShape& shape : {GridShape{1, 1, 1, 1},
                                   GridShape{1, 2, 2, 2},
                                   GridShape{2, 2, 1, 2},
                                   GridShape{2, 1, 2, 4}}) {
      SCOPED_TRACE(shape.text() + ", " + std::string(dtype_name(dtype)));
      RunOptions options{.shape = shape, .numerics = Numerics::kReproducible};
      options.max_rows = 19;
      options.kv_blocks = 9;
      const RunResult together = run_on_threads(model, options, all);
      preempted += together.preempted;
      for (size_t i = 0; i < all.size(); ++i) {
        EXPECT_EQ(together.answers[i], one[i].answers[0]) << i;
        EXPECT_TRUE(together.logits[i] == one[i].logits[0]) << i;
      }
    }
  }
  EXPECT_GT(preempted, 0) << "the cache is too large for this test";
}

TEST(Engine, HandsOverEachPositionOnce) {
  std::vector<Request> all = {requests()[1], requests()[2], requests()[4], requests()[5]};
  for (Request& request : all) request.all_logits = true;
  const fs::path model = converted(kTiny, DType::kF32);
  const RunResult result =
      run_on_threads(model, {.shape = {1, 2, 1, 1}, .max_rows = 16, .kv_blocks = 7}, all);
  EXPECT_GT(result.preempted, 0);
  for (size_t i = 0; i < all.size(); ++i) {
    const RunResult one = run_on_threads(model, {}, {all[i]});
    EXPECT_EQ(result.answers[i], one.answers[0]);
    EXPECT_EQ(result.logits[i].size(), one.logits[0].size());
  }
}

// What a server does: requests arrive while others run, some are given up, the engine falls idle
// and wakes up again.
void serve(Engine& engine, std::vector<std::vector<int32_t>>& answers, int32_t& cancelled) {
  std::map<int32_t, size_t> index;
  const size_t during = requests().size() * 2 / 3;  // the others arrive at an idle engine
  size_t next = 0;
  EngineListener listener;
  const auto submit = [&] {
    const int32_t id = engine.submit(requests()[next], listener);
    index[id] = next++;
  };
  listener.on_token = [&](int32_t id, int32_t token) {
    answers[index.at(id)].push_back(token);
    if (index.at(id) == 6 && answers[6].size() == 2) {
      cancelled = id;
      engine.cancel(id);
    }
    return true;
  };
  listener.on_finish = [&](int32_t id) {
    EXPECT_EQ(engine.sequence(id).finish,
              id == cancelled ? FinishReason::kCancelled : FinishReason::kLength);
    engine.forget(id);
    if (next < during) submit();
  };
  const auto work = [&] {
    for (int i = 0; engine.step(); ++i)
      if (i % 5 == 4 && next < during) submit();
  };
  EXPECT_FALSE(engine.step()) << "nothing to do yet";
  engine.keep_alive();
  submit();
  work();
  engine.keep_alive();
  while (next < requests().size()) submit();
  const int32_t given_up = engine.submit(requests()[0]);
  engine.cancel(given_up);
  engine.cancel(given_up);  // ended already: nothing happens
  EXPECT_EQ(engine.sequence(given_up).finish, FinishReason::kCancelled);
  work();
  EXPECT_FALSE(engine.step());
}

TEST(Engine, SequencesComeAndGo) {
  ASSERT_GT(alone()[6].size(), 2u);
  for (const GridShape& shape : {GridShape{1, 1, 1, 1},
                                 GridShape{1, 3, 1, 1},
                                 GridShape{2, 1, 2, 4},
                                 GridShape{2, 2, 1, 2},
                                 GridShape{3, 2, 1, 3}}) {
    if (testing_support::kInstrumented && (shape.pipeline == 3 || shape.data == 3)) continue;
    SCOPED_TRACE(shape.text());
    std::vector<std::vector<int32_t>> answers(requests().size());
    int32_t cancelled = -1;
    RunOptions options{.shape = shape, .max_sequences = 3, .kv_blocks = 9};
    options.lead = [&](Engine& engine) { serve(engine, answers, cancelled); };
    run_on_threads(converted(kTiny, DType::kF32), options, {});
    EXPECT_GE(cancelled, 0);
    for (size_t i = 0; i < answers.size(); ++i) {
      std::vector<int32_t> expected = alone()[i];
      if (i == 6) expected.resize(2);
      EXPECT_EQ(answers[i], expected) << i;
    }
  }
}

TEST(Engine, RefusesWhatCanNeverFit) {
  RunOptions options{.max_sequences = 2, .kv_blocks = 4};
  options.lead = [&](Engine& engine) {
    Request request = requests()[0];
    request.prompt.assign(60, 1);
    request.max_tokens = 5;
    EXPECT_THROW(engine.submit(request), Error);
    request.max_tokens = 4;
    engine.submit(request);
    while (engine.step()) {
    }
  };
  run_on_threads(converted(kTiny, DType::kF32), options, {});
}

}  // namespace
}  // namespace glm::testing_support
