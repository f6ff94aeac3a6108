// The arithmetic of glm_eval against numbers worked out by hand. SPDX-License-Identifier: MIT
#include "apps/eval_score.h"

#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "core/base/check.h"
#include "tests/io/temp_folder.h"

namespace glm {
namespace {

using Ids = std::vector<int32_t>;

Ids count_to(int32_t n) {
  Ids ids(static_cast<size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

TEST(Windows, ShareTheirContext) {
  const Ids prefix = {100, 101};
  const std::vector<TextWindow> windows = cut_windows(count_to(7), prefix, 4, 2);
  ASSERT_EQ(windows.size(), 4u);
  EXPECT_EQ(windows[0].prompt, (Ids{100, 101, 0}));
  EXPECT_EQ(windows[0].counted, (Ids{0, 1}));
  EXPECT_EQ(windows[0].first_row, 1);  // <sop> predicts the first token
  EXPECT_EQ(windows[1].prompt, (Ids{100, 101, 0, 1, 2}));
  EXPECT_EQ(windows[1].counted, (Ids{2, 3}));
  EXPECT_EQ(windows[1].first_row, 3);
  EXPECT_EQ(windows[3].prompt, (Ids{100, 101, 4, 5}));
  EXPECT_EQ(windows[3].counted, (Ids{6}));
  EXPECT_EQ(windows[3].first_place, 6);
  EXPECT_EQ(counted_tokens(windows), 7);
}

TEST(Windows, EveryTokenCountsOnceAndIsPredictedByTheOneBefore) {
  for (const Ids& prefix : {Ids{}, Ids{100}, Ids{100, 101}})
    for (int32_t size = 2; size < 40; ++size)
      for (int64_t window = 2; window < 12; ++window)
        for (int64_t stride = 1; stride <= window; ++stride) {
          const Ids ids = count_to(size);
          int64_t place = 0;
          int32_t next = prefix.empty() ? 1 : 0;
          for (const TextWindow& w : cut_windows(ids, prefix, window, stride)) {
            EXPECT_EQ(w.first_place, place);
            EXPECT_LT(w.prompt.size(), prefix.size() + static_cast<size_t>(window));
            ASSERT_EQ(w.first_row + static_cast<int64_t>(w.counted.size()),
                      static_cast<int64_t>(w.prompt.size()));
            for (size_t i = 0; i < w.counted.size(); ++i) {
              const int32_t token = w.counted[i];
              ASSERT_EQ(token, next++);
              const int32_t before = w.prompt[static_cast<size_t>(w.first_row) + i];
              ASSERT_TRUE(before == token - 1 || before >= 100);
            }
            place += static_cast<int64_t>(w.counted.size());
          }
          ASSERT_EQ(next, size);
        }
}

TEST(Score, Probabilities) {
  const float logits[] = {0.0f, std::log(3.0f), 0.0f};  // 1/5, 3/5, 1/5
  EXPECT_NEAR(log_probability(logits, 1), std::log(0.6), 1e-7);
  EXPECT_NEAR(log_probability(logits, 2), std::log(0.2), 1e-7);
  const float large[] = {1000.0f, 1000.0f};
  EXPECT_NEAR(log_probability(large, 0), std::log(0.5), 1e-12);
  const double scores[] = {std::log(0.5), std::log(0.125)};
  EXPECT_NEAR(perplexity(scores), 4.0, 1e-12);
}

TEST(Score, Distances) {
  const float p[] = {std::log(3.0f), 0.0f};  // 3/4, 1/4
  const float q[] = {0.0f, 0.0f};            // 1/2, 1/2
  const RowDistance distance = row_distance(p, q);
  EXPECT_NEAR(distance.divergence, 0.75 * std::log(1.5) + 0.25 * std::log(0.5), 1e-7);
  EXPECT_TRUE(distance.same_top);
  const float r[] = {0.0f, 0.1f};
  EXPECT_FALSE(row_distance(p, r).same_top);
  EXPECT_EQ(row_distance(p, p).divergence, 0);
  const float shifted[] = {std::log(3.0f) + 50, 50.0f};
  EXPECT_NEAR(row_distance(p, shifted).divergence, 0, 1e-6);
}

TEST(Score, Spreads) {
  std::vector<double> values(200);
  std::iota(values.rbegin(), values.rend(), 1.0);
  const Spread result = spread(values);
  EXPECT_DOUBLE_EQ(result.mean, 100.5);
  EXPECT_EQ(result.median, 100);
  EXPECT_EQ(result.percentile_99, 198);
  EXPECT_EQ(result.largest, 200);
  EXPECT_EQ(spread({7}).median, 7);
}

TEST(Score, FinalAnswers) {
  EXPECT_EQ(final_answer("\n<think>a</think>\nParis.\n"), "Paris.");
  EXPECT_EQ(final_answer("<think>a</think> b </think> c d\t"), "c d");
  EXPECT_EQ(final_answer("  no reasoning "), "no reasoning");
  EXPECT_EQ(final_answer("<think>never ends"), "<think>never ends");
  EXPECT_EQ(final_answer("<think></think>\n"), "");
  EXPECT_EQ(final_answer(""), "");
}

std::string question_error(const std::string& text) {
  const TempFolder folder("questions");
  write_bytes(folder / "q.jsonl", text);
  try {
    read_questions((folder / "q.jsonl").string());
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    return error.what();
  }
  return "read";
}

TEST(Questions, LinesAreNamed) {
  const std::string good = R"({"prompt": "a", "answer": "b", "more": 1})";
  EXPECT_EQ(question_error(good + "\n\n" + good), "read");
  const auto expect_line = [&](const std::string& bad, const std::string& reason) {
    const std::string error = question_error(good + "\n" + bad + "\n" + good);
    EXPECT_NE(error.find("q.jsonl:2: "), std::string::npos) << error;
    EXPECT_NE(error.find(reason), std::string::npos) << error;
  };
  expect_line("{\"prompt\": \"a\"", "JSON");
  expect_line("[1]", "expected an object");
  expect_line("{\"prompt\": \"a\"}", "\"answer\"");
  expect_line("{\"prompt\": 3, \"answer\": \"b\"}", "\"prompt\"");
  expect_line("{\"prompt\": \"\", \"answer\": \"b\"}", "empty");
  expect_line("\xff", "JSON");
  EXPECT_NE(question_error("x\n" + good + "\ny").find("1 more bad line: 3"), std::string::npos);
  EXPECT_NE(question_error("\n \n").find("no line"), std::string::npos);
}

}  // namespace
}  // namespace glm
