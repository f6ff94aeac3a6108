// Speculative decoding over ranks that are threads: the MTP layer against its reference, and that
// drafts change no answer on any grid, in any company, with few pages. SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "io/json.h"
#include "tests/support/instrumented.h"
#include "tests/support/model_run.h"
#include "tests/support/npy.h"

namespace glm::testing_support {
namespace {

namespace fs = std::filesystem;

const fs::path kDraftModel = fs::path(GLM_TEST_DATA) / "tiny";
const std::vector<int32_t> kDraftEnds = {1984, 1991, 1993};

// A prompt with its answer.
std::vector<int32_t> recorded_tokens(const std::string& name) {
  const std::string path = (kDraftModel / "expected" / "logits.json").string();
  const Json json =
      parse_json(read_file(path, 1 << 20, ExitCode::kRuntime), path, ExitCode::kRuntime);
  auto tokens = json.at(name).at("prompt").get<std::vector<int32_t>>();
  const auto generated = json.at(name).at("generated").get<std::vector<int32_t>>();
  tokens.insert(tokens.end(), generated.begin(), generated.end());
  return tokens;
}

// Logits of the MTP layer at every position but the last, in chunks, on one rank of a grid.
void mtp_rank(Communicator& world,
              const fs::path& model_file,
              const GridShape& shape,
              const std::vector<int32_t>& tokens,
              std::vector<float>& out,
              std::mutex& lock) {
  const ModelIndex index = read_model_index(model_file);
  const ModelConfig config = parse_config(index.texts.config, index.path);
  StepContext where;
  ProcessGrid grid(world, shape);
  const Placement placement = divide_model(config, default_dtypes(DType::kF32), shape, {}, true)
                                  .placement(world.rank(), Numerics::kDefault);
  ModelOptions options;
  options.kv_dtype = KvDType::kF32;
  options.limits = {20, 1, 20, 128};
  options.kv_blocks = options.limits.max_blocks();
  const auto device = make_cpu_device();
  const auto ops = make_ops(OpsKind::kAuto, *device, 1, ops_limits(config, shape, options.limits));
  const Weights weights(config, index, placement, *device, true);
  const auto model = make_model({config, placement, grid, *device, *ops, weights, where}, options);
  Batch batch(*device, options.limits);
  const auto n = static_cast<int64_t>(tokens.size()) - 1;
  for (int64_t p = 0; p < n; p += options.limits.max_rows) {
    const int64_t end = std::min(n, p + options.limits.max_rows);
    StepPlan plan;
    PlanSequence& rows = plan.sequences.emplace_back();
    rows.position = static_cast<int32_t>(p);
    rows.tokens.assign(tokens.begin() + p, tokens.begin() + end);
    for (int64_t block = 0; block * kKvBlockTokens < end; ++block)
      rows.blocks.push_back(static_cast<int32_t>(block));
    plan.hidden = static_cast<int32_t>(kept_hidden_steps(shape)) - 1;
    batch.fill(plan, grid.coord().data);
    model->forward(batch);
    plan.draft = true;
    rows.tokens.assign(tokens.begin() + p + 1, tokens.begin() + end + 1);
    rows.n_logits = static_cast<int32_t>(end - p);
    batch.fill(plan, grid.coord().data);
    const Tensor logits = model->draft(batch);
    if (grid.coord().data != 0 || !grid.last_stage()) continue;
    int64_t first = 0;
    for (int t = 0; t < grid.coord().tensor; ++t)
      first += model->vocab_widths()[static_cast<size_t>(t)];
    const std::lock_guard<std::mutex> guard(lock);
    for (int64_t row = p; row < end; ++row)
      std::copy_n(logits.f32() + (row - p) * logits.cols(),
                  logits.cols(),
                  out.begin() + row * config.vocab + first);
  }
}

// The reference is train.py's own layer, in f32.
TEST(MtpLayer, LogitsEqualTheReference) {
  for (const char* name : {"explain", "france", "sum"}) {
    if (kInstrumented && std::string_view(name) != "explain") continue;
    const NpyMatrix expected =
        read_npy((kDraftModel / "expected" / fmt::format("mtp_logits_{}.npy", name)).string());
    const auto [low, high] = std::minmax_element(expected.values.begin(), expected.values.end());
    const std::vector<int32_t> tokens = recorded_tokens(name);
    ASSERT_EQ(expected.rows, static_cast<int64_t>(tokens.size()) - 1);
    for (const GridShape& shape : {GridShape{1, 1, 1, 1},
                                   GridShape{1, 2, 2, 2},
                                   GridShape{2, 1, 1, 2},
                                   GridShape{1, 1, 3, 1},
                                   GridShape{1, 7, 1, 1}}) {
      SCOPED_TRACE(std::string(name) + ", " + shape.text());
      std::vector<float> ours(expected.values.size());
      std::mutex lock;
      run_thread_ranks(shape.world(), {}, [&](Communicator& world) {
        mtp_rank(world, converted(kDraftModel, DType::kF32), shape, tokens, ours, lock);
      });
      double most = 0;
      for (size_t i = 0; i < ours.size(); ++i)
        most = std::max(most, std::abs(double{ours[i]} - double{expected.values[i]}));
      EXPECT_LE(most, 1e-4 * (double{*high} - double{*low}));
    }
  }
}

// Questions that the model knows, and random tokens, where most drafts are wrong.
std::vector<Request> draft_requests(size_t n, bool sampled) {
  const ChatPrompts chat(kDraftModel);
  const std::vector<std::string> questions = {"What is the capital of France?",
                                              "Explain AI",
                                              "What is 17 + 58?",
                                              "What is MPI?",
                                              "On which continent is Peru?"};
  std::vector<Request> requests;
  for (size_t i = 0; i < n; ++i) {
    Request request;
    request.max_tokens = 40;
    if (i % 2 == 0) {
      request.prompt = chat.ids(questions[i / 2 % questions.size()]);
      request.stop_ids = kDraftEnds;
    } else {
      for (uint64_t t = 0; t < 5 + 9 * i; ++t)
        request.prompt.push_back(static_cast<int32_t>(uniform_double(i, t) * 1980));
      request.max_tokens = 3 + static_cast<int64_t>(4 * i);
    }
    request.sampling.temperature = sampled && i % 3 != 1 ? 0.9f : 0.0f;
    request.sampling.top_p = i % 2 == 0 ? 0.95f : 1.0f;
    request.sampling.seed = i;
    requests.push_back(std::move(request));
  }
  return requests;
}

std::vector<std::vector<int32_t>> answers_alone(const std::vector<Request>& requests,
                                                const RunOptions& options,
                                                DType dtype = DType::kF32) {
  std::vector<std::vector<int32_t>> answers;
  for (const Request& request : requests)
    answers.push_back(run_on_threads(converted(kDraftModel, dtype), options, {request}).answers[0]);
  return answers;
}

const std::vector<GridShape>& draft_grids() {
  static const std::vector<GridShape> kFew = {{1, 2, 2, 2}, {2, 2, 1, 2}};
  static const std::vector<GridShape> kGrids = {{1, 1, 1, 1},
                                                {1, 3, 1, 1},
                                                {1, 2, 2, 2},
                                                {1, 1, 3, 1},
                                                {1, 1, 4, 2},
                                                {2, 1, 1, 1},
                                                {2, 1, 2, 4},
                                                {2, 2, 1, 2}};
  return kInstrumented ? kFew : kGrids;
}

TEST(Drafts, ChangeNoGreedyAnswerOnAnyGrid) {
  const std::vector<Request> requests = draft_requests(kInstrumented ? 4 : 8, false);
  const auto plain = answers_alone(requests, {});
  for (const GridShape& shape : draft_grids()) {
    SCOPED_TRACE(shape.text());
    // With the exchange that sends rows to their experts as well.
    const bool sends = shape.tensor > 1 && shape.pipeline == 1;
    const RunOptions options{.shape = shape,
                             .exchange = sends ? ExchangeKind::kAllToAll : ExchangeKind::kAuto,
                             .drafts = DraftMode::kOn};
    const RunResult result = run_on_threads(converted(kDraftModel, DType::kF32), options, requests);
    EXPECT_EQ(result.answers, plain);
    EXPECT_GT(result.stats.accepted, kInstrumented ? 0 : 20);
    EXPECT_GT(result.stats.drafts, result.stats.accepted) << "some are wrong";
  }
}

// What the answers of the demonstration model gain.
TEST(Drafts, GiveMoreThanOneTokenPerStep) {
  std::vector<Request> questions;
  for (Request& request : draft_requests(10, false))
    if (!request.stop_ids.empty()) questions.push_back(std::move(request));
  for (const DType dtype : {DType::kF32, DType::kQ40}) {
    const EngineStats stats =
        run_on_threads(converted(kDraftModel, dtype), {.drafts = DraftMode::kOn}, questions).stats;
    EXPECT_GE(static_cast<double>(stats.decode_tokens),
              1.2 * static_cast<double>(stats.decode_rows))
        << stats.accepted << " of " << stats.drafts;
  }
}

// Drawn tokens depend on the seed alone: not on company, grid, chunks or lost pages.
TEST(Drafts, OneSeedOneTextInAnyCompany) {
  const std::vector<Request> requests = draft_requests(kInstrumented ? 4 : 8, true);
  RunOptions options{.numerics = Numerics::kReproducible, .drafts = DraftMode::kOn};
  const auto alone = answers_alone(requests, options);
  int64_t preempted = 0;
  for (const GridShape& shape : draft_grids()) {
    SCOPED_TRACE(shape.text());
    options.shape = shape;
    const bool few = shape.tensor == 1;
    options.max_rows = few ? 13 : 64;
    options.kv_blocks = few ? 7 : 0;
    const RunResult result = run_on_threads(converted(kDraftModel, DType::kF32), options, requests);
    EXPECT_EQ(result.answers, alone);
    preempted += result.preempted;
  }
  EXPECT_TRUE(preempted > 0 || kInstrumented) << "the cache is too large for this test";
}

TEST(Drafts, ReproducibleAnswersAreTheSameWithThemToTheBit) {
  const std::vector<Request> requests = draft_requests(6, false);
  RunOptions options{.numerics = Numerics::kReproducible};
  const auto plain = answers_alone(requests, options, DType::kQ40);
  options.drafts = DraftMode::kOn;
  for (const GridShape& shape :
       {GridShape{1, 1, 1, 1}, GridShape{1, 2, 2, 2}, GridShape{2, 1, 2, 4}}) {
    SCOPED_TRACE(shape.text());
    options.shape = shape;
    const RunResult result = run_on_threads(converted(kDraftModel, DType::kQ40), options, requests);
    EXPECT_EQ(result.answers, plain);
    EXPECT_GT(result.stats.accepted, 0);
  }
}

// The logits of rows that verify drafts are those of rows without: a request for all logits in the
// company of drafts gets the same bits.
TEST(Drafts, LeaveLogitsOfOthersAlone) {
  std::vector<Request> requests = draft_requests(4, false);
  requests[1].all_logits = true;
  RunOptions options{.numerics = Numerics::kReproducible};
  const fs::path model = converted(kDraftModel, DType::kQ40);
  const RunResult plain = run_on_threads(model, options, requests);
  options.drafts = DraftMode::kOn;
  const RunResult drafted = run_on_threads(model, options, requests);
  EXPECT_EQ(drafted.answers, plain.answers);
  EXPECT_TRUE(drafted.logits[1] == plain.logits[1]);
  EXPECT_GT(drafted.stats.accepted, 0);
}

// Two turns of a conversation: the second goes on from the cache of the first.
TEST(Drafts, GoOnFromAKeptCache) {
  std::vector<int32_t> first, second;
  const auto talk = [&](Engine& engine) {
    Request request = draft_requests(1, false)[0];
    request.keep_cache = true;
    const int32_t one = engine.submit(request);
    while (engine.step()) {
    }
    first = engine.sequence(one).tokens;
    request.prompt = first;
    const std::vector<int32_t> more = ChatPrompts(kDraftModel).ids("What is MPI?");
    request.prompt.insert(request.prompt.end(), more.begin() + 2, more.end());
    const int32_t two = engine.submit(request);
    while (engine.step()) {
    }
    second = engine.sequence(two).tokens;
    EXPECT_GE(engine.sequence(two).cached, static_cast<int64_t>(first.size()) - 3);
  };
  RunOptions options{.max_sequences = 2};
  options.lead = talk;
  run_on_threads(converted(kDraftModel, DType::kF32), options, {});
  const auto plain = std::pair(first, second);
  options.drafts = DraftMode::kOn;
  for (const GridShape& shape : {GridShape{1, 1, 1, 1}, GridShape{1, 2, 2, 2}}) {
    options.shape = shape;
    const RunResult result = run_on_threads(converted(kDraftModel, DType::kF32), options, {});
    EXPECT_EQ(std::pair(first, second), plain);
    EXPECT_GT(result.stats.accepted, 10);
  }
}

// Random weights agree in nothing: each draft costs a row, and its pass.
TEST(Drafts, AutoGivesUpWhereTheyDoNotPay) {
  const fs::path model = fs::path(GLM_TEST_TMP) / fmt::format("no_gain.{}.h5", getpid());
  ConvertOptions convert;
  convert.dtypes = default_dtypes(DType::kF32);
  convert_synthetic(kDraftModel / "config.json", model, convert);
  std::vector<Request> requests = draft_requests(2, false);
  for (Request& request : requests) {
    request.stop_ids.clear();
    request.max_tokens = 160;
  }
  const RunResult plain = run_on_threads(model, {}, requests);
  const RunResult judged = run_on_threads(model, {.drafts = DraftMode::kAuto}, requests);
  EXPECT_EQ(judged.answers, plain.answers);
  EXPECT_TRUE(judged.stats.gave_up) << judged.stats.draft_gain;
  EXPECT_LT(judged.stats.drafts, 2 * 100);
  // Sampled answers have none: their text must not depend on the clock.
  for (Request& request : requests) request.sampling.temperature = 1;
  const RunResult sampled = run_on_threads(model, {.drafts = DraftMode::kAuto}, requests);
  EXPECT_EQ(sampled.stats.drafts, 0);
  EXPECT_EQ(sampled.answers, run_on_threads(model, {}, requests).answers);
}

}  // namespace
}  // namespace glm::testing_support
