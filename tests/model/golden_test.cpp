// Logits and greedy tokens of every model in tests/data against those of transformers, on grids of
// each kind, with ranks as threads. Bound at f32: 1e-4 of the range of the logits
// (docs/numerics.md). SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "tests/support/instrumented.h"
#include "tests/support/model_run.h"
#include "tests/support/npy.h"

namespace glm::testing_support {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> golden_folders() {
  std::vector<std::string> names;
  for (const char* group : {"golden", "golden_odd"}) {
    const fs::path folder = fs::path(GLM_TEST_DATA) / group;
    if (!fs::exists(folder)) continue;
    for (const auto& entry : fs::directory_iterator(folder))
      if (fs::exists(entry.path() / "expected.json"))
        names.push_back(std::string(group) + "/" + entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool is_moe(const std::string& name) { return name.find("moe") != std::string::npos; }

double worst_difference(const std::vector<float>& ours, const NpyMatrix& theirs) {
  double worst = 0;
  for (size_t i = 0; i < ours.size(); ++i)
    worst = std::max(worst, std::abs(double{ours[i]} - double{theirs.values[i]}));
  return worst;
}

class GoldenModel : public testing::TestWithParam<std::string> {
 protected:
  void expect_equal(const RunOptions& options) {
    SCOPED_TRACE(GetParam() + " on " + options.shape.text());
    const RunResult result = run_on_threads(model_, options, {golden_request(golden_)});
    ASSERT_EQ(result.logits.at(0).size(), logits_.values.size());
    EXPECT_LE(worst_difference(result.logits[0], logits_), 1e-4 * golden_.range);
    EXPECT_EQ(result.answers.at(0), golden_.greedy);
  }

  fs::path folder_ = fs::path(GLM_TEST_DATA) / GetParam();
  fs::path model_ = converted(folder_, DType::kF32);
  Golden golden_ = read_golden(folder_);
  NpyMatrix logits_ = read_npy((folder_ / "logits.npy").string());
};

TEST_P(GoldenModel, OneRank) { expect_equal({}); }

TEST_P(GoldenModel, ReferenceOperations) {
  RunOptions options;
  options.ops = OpsKind::kRef;
  expect_equal(options);
}

TEST_P(GoldenModel, SmallChunks) {
  RunOptions options;
  options.max_rows = 5;
  expect_equal(options);
}

TEST_P(GoldenModel, EveryGridUpToFiveRanks) {
  for (int world = 2; world <= (kInstrumented ? 2 : 5); ++world)
    for (const GridShape& shape : legal_grids(world, is_moe(GetParam())))
      expect_equal({.shape = shape});
}

TEST_P(GoldenModel, AllToAllOnEveryGridOfFour) {
  if (!is_moe(GetParam())) GTEST_SKIP() << "no experts to exchange rows with";
  for (const GridShape& shape : legal_grids(4, true))
    expect_equal({.shape = shape, .exchange = ExchangeKind::kAllToAll});
}

INSTANTIATE_TEST_SUITE_P(Models,
                         GoldenModel,
                         testing::ValuesIn(golden_folders()),
                         [](const auto& model) {
                           std::string name = model.param;
                           std::replace(name.begin(), name.end(), '/', '_');
                           return name;
                         });

}  // namespace
}  // namespace glm::testing_support
