// The trained tiny model: its logits against transformers, its answers at every dtype, and that
// neither company in a batch nor the cache's dtype changes what it says. SPDX-License-Identifier:
// MIT
#include <algorithm>
#include <cmath>
#include <fstream>

#include <gtest/gtest.h>

#include "apps/eval_score.h"
#include "io/json.h"
#include "tests/support/instrumented.h"
#include "tests/support/model_run.h"
#include "tests/support/npy.h"

namespace glm::testing_support {
namespace {

namespace fs = std::filesystem;

const fs::path kTiny = fs::path(GLM_TEST_DATA) / "tiny";
const std::vector<int32_t> kEndTokens = {1984, 1991, 1993};

struct Answer {
  std::string prompt;
  std::string answer;
  std::string f32_text;
};

// Every `stride`-th of the 412 recorded questions.
std::vector<Answer> recorded_answers(size_t stride) {
  std::ifstream in(kTiny / "expected" / "answers.jsonl");
  std::vector<Answer> answers;
  std::string line;
  for (size_t i = 0; std::getline(in, line); ++i) {
    if (i % stride != 0) continue;
    const Json json = Json::parse(line);
    answers.push_back({json.at("prompt"), json.at("answer"), json.at("f32_text")});
  }
  return answers;
}

Request greedy(std::vector<int32_t> prompt) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = 110;
  request.sampling.temperature = 0;
  request.stop_ids = kEndTokens;
  return request;
}

struct Score {
  int right = 0;
  int same_text = 0;
  int n = 0;
};

Score score(DType dtype, size_t stride, const RunOptions& options) {
  const ChatPrompts chat(kTiny);
  const std::vector<Answer> answers = recorded_answers(stride);
  std::vector<Request> requests;
  for (const Answer& answer : answers) requests.push_back(greedy(chat.ids(answer.prompt)));
  const RunResult result = run_on_threads(converted(kTiny, dtype), options, requests);
  Score score;
  for (size_t i = 0; i < answers.size(); ++i) {
    const std::string text = chat.text(result.answers[i]);
    score.right += final_answer(text) == answers[i].answer;
    score.same_text += text == answers[i].f32_text;
    ++score.n;
  }
  return score;
}

// 412 of 412 are right at every dtype with exact activations (expected/report.json); two points are
// for the quantised activations.
void expect_answers(DType dtype, size_t stride) {
  const Score one = score(dtype, stride, {});
  EXPECT_GE(one.right, 0.98 * one.n) << one.right << " of " << one.n;
  if (dtype == DType::kF32) {
    EXPECT_EQ(one.same_text, one.n);
  }
  const Score four = score(dtype, stride, {.shape = {1, 2, 2, 2}});
  EXPECT_GE(four.right, 0.98 * four.n) << four.right << " of " << four.n << " on four ranks";
}

class Answers : public testing::TestWithParam<DType> {};
TEST_P(Answers, SixtyAreRight) { expect_answers(GetParam(), kInstrumented ? 49 : 7); }
TEST_P(Answers, SlowAllAreRight) { expect_answers(GetParam(), 1); }
INSTANTIATE_TEST_SUITE_P(
    DTypes,
    Answers,
    testing::Values(DType::kF32, DType::kBF16, DType::kF16, DType::kQ80, DType::kQ40),
    [](const auto& dtype) { return std::string(dtype_name(dtype.param)); });

struct Recorded {
  std::vector<int32_t> prompt;
  std::vector<int32_t> generated;
  NpyMatrix logits;
};

Recorded recorded(const std::string& name) {
  const std::string path = (kTiny / "expected" / "logits.json").string();
  const Json json =
      parse_json(read_file(path, 1 << 20, ExitCode::kRuntime), path, ExitCode::kRuntime);
  return {json.at(name).at("prompt").get<std::vector<int32_t>>(),
          json.at(name).at("generated").get<std::vector<int32_t>>(),
          read_npy((kTiny / "expected" / ("logits_" + name + ".npy")).string())};
}

double range(const NpyMatrix& logits) {
  const auto [low, high] = std::minmax_element(logits.values.begin(), logits.values.end());
  return double{*high} - double{*low};
}

std::vector<double> differences(const std::vector<float>& ours, const std::vector<float>& theirs) {
  std::vector<double> out(ours.size());
  for (size_t i = 0; i < ours.size(); ++i) out[i] = std::abs(double{ours[i]} - double{theirs[i]});
  std::sort(out.begin(), out.end());
  return out;
}

class TinyLogits : public testing::TestWithParam<const char*> {};

TEST_P(TinyLogits, EqualTransformers) {
  const Recorded expected = recorded(GetParam());
  Request request = greedy(expected.prompt);
  request.all_logits = true;
  for (const GridShape& shape : {GridShape{1, 1, 1, 1},
                                 GridShape{1, 2, 2, 2},
                                 GridShape{4, 1, 1, 4},
                                 GridShape{1, 1, 3, 3},
                                 GridShape{1, 5, 1, 1}}) {
    SCOPED_TRACE(shape.text());
    const RunResult result =
        run_on_threads(converted(kTiny, DType::kF32), {.shape = shape}, {request});
    EXPECT_EQ(result.answers[0], expected.generated);
    ASSERT_EQ(result.logits[0].size(), expected.logits.values.size());
    EXPECT_LE(differences(result.logits[0], expected.logits.values).back(),
              1e-4 * range(expected.logits));
  }
}

// A cache in f16 rounds keys and values to 11 bits, q8 to 8 bits of the largest of 32. Where two
// experts score alike a rounding can swap them and move one row by much more: hence the median is
// held, and the answers.
TEST_P(TinyLogits, SmallerCachesStayClose) {
  const Recorded expected = recorded(GetParam());
  Request request = greedy(expected.prompt);
  request.all_logits = true;
  const std::vector<std::pair<KvDType, double>> bounds = {{KvDType::kF16, 2e-4},
                                                          {KvDType::kQ8, 2e-3}};
  for (const auto& [dtype, bound] : bounds) {
    SCOPED_TRACE(kv_dtype_name(dtype));
    const RunResult result =
        run_on_threads(converted(kTiny, DType::kF32), {.kv_dtype = dtype}, {request});
    EXPECT_EQ(result.answers[0], expected.generated);
    const std::vector<double> sorted = differences(result.logits[0], expected.logits.values);
    EXPECT_LE(sorted[sorted.size() / 2], bound * range(expected.logits));
    EXPECT_GT(sorted.back(), 0) << "the cache was not rounded at all";
  }
}

// Quantised activations: grids may differ, the median by no more than 0.5 % of the range
// (docs/numerics.md).
TEST_P(TinyLogits, QuantisedGridsStayClose) {
  const Recorded expected = recorded(GetParam());
  Request request = greedy(expected.prompt);
  request.prompt.insert(request.prompt.end(), expected.generated.begin(), expected.generated.end());
  request.max_tokens = 1;
  request.all_logits = true;
  for (const DType dtype : {DType::kQ80, DType::kQ40}) {
    const fs::path model = converted(kTiny, dtype);
    const RunResult one = run_on_threads(model, {}, {request});
    for (const GridShape& shape : {GridShape{1, 2, 2, 2},
                                   GridShape{4, 1, 1, 4},
                                   GridShape{1, 1, 4, 1},
                                   GridShape{1, 1, 5, 5}}) {
      SCOPED_TRACE(shape.text());
      const RunResult many = run_on_threads(model, {.shape = shape}, {request});
      const std::vector<double> sorted = differences(one.logits[0], many.logits[0]);
      EXPECT_LE(sorted[sorted.size() / 2], 5e-3 * range(expected.logits));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Prompts,
                         TinyLogits,
                         testing::Values("france", "sum", "explain"),
                         [](const auto& prompt) { return std::string(prompt.param); });

// At f32 a prompt says the same alone and among others, in one chunk and in many.
TEST(TinyModel, CompanyDoesNotMatter) {
  const ChatPrompts chat(kTiny);
  std::vector<Request> requests;
  for (const Answer& answer : recorded_answers(41))
    requests.push_back(greedy(chat.ids(answer.prompt)));
  const fs::path model = converted(kTiny, DType::kF32);
  const RunResult together = run_on_threads(model, {.shape = {2, 1, 2, 4}}, requests);
  const RunResult chunked = run_on_threads(model, {.max_rows = 7, .max_sequences = 3}, requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    const RunResult alone = run_on_threads(model, {}, {requests[i]});
    EXPECT_EQ(together.answers[i], alone.answers[0]) << i;
    EXPECT_EQ(chunked.answers[i], alone.answers[0]) << i;
  }
}

}  // namespace
}  // namespace glm::testing_support
