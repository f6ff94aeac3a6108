// --reproducible: logits are the same to the bit on every grid, with either exchange, in every
// batch, chunk size, number of threads and instruction set. Everything is compared with one rank,
// one thread and one sequence. SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include <gtest/gtest.h>

#include "tests/support/instrumented.h"
#include "tests/support/model_run.h"

namespace glm::testing_support {
namespace {

namespace fs = std::filesystem;

constexpr DType kDTypes[] = {DType::kF32, DType::kBF16, DType::kF16, DType::kQ80, DType::kQ40};

// Shapes of every kind: queries in groups of 8 and 12, odd numbers of heads, experts in groups,
// tied embeddings, a dense model of each file of forward passes.
const std::vector<std::string>& models() {
  static const std::vector<std::string> names = {"golden/glm4_moe_air",
                                                 "golden/glm4_moe_355b",
                                                 "golden_odd/glm4_moe_5h",
                                                 "golden_odd/glm4_moe_groups",
                                                 "golden_odd/glm4_moe_tied",
                                                 "golden/qwen3_moe",
                                                 "golden/glm4",
                                                 "golden_odd/glm_3h",
                                                 "golden_odd/llama3"};
  return names;
}

bool is_moe(const std::string& name) { return name.find("moe") != std::string::npos; }

// Prompts of different lengths; the first is the golden one.
std::vector<Request> requests_of(const std::string& name, size_t n) {
  const Golden golden = read_golden(fs::path(GLM_TEST_DATA) / name);
  std::vector<Request> requests;
  for (size_t i = 0; i < n; ++i) {
    Request request = golden_request(golden);
    request.max_tokens = 4;
    if (i > 0) {
      request.prompt.resize(1 + (5 * i) % request.prompt.size());
      std::rotate(request.prompt.begin(),
                  request.prompt.begin() + static_cast<int64_t>(i % request.prompt.size()),
                  request.prompt.end());
    }
    requests.push_back(request);
  }
  return requests;
}

// Logits of every request run alone on one rank.
std::vector<std::vector<float>> logits_alone(const fs::path& model,
                                             const std::vector<Request>& requests,
                                             KvDType kv_dtype = KvDType::kF16) {
  std::vector<std::vector<float>> logits;
  for (const Request& request : requests)
    logits.push_back(run_on_threads(model,
                                    {.numerics = Numerics::kReproducible, .kv_dtype = kv_dtype},
                                    {request})
                         .logits.at(0));
  return logits;
}

void expect_same_bits(const std::vector<std::vector<float>>& logits,
                      const std::vector<std::vector<float>>& expected) {
  ASSERT_EQ(logits.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(logits[i].size(), expected[i].size()) << "request " << i;
    ASSERT_GT(expected[i].size(), 0u);
    size_t different = 0;
    for (size_t j = 0; j < expected[i].size(); ++j)
      different += std::memcmp(&logits[i][j], &expected[i][j], sizeof(float)) != 0;
    EXPECT_EQ(different, 0u) << "of " << expected[i].size() << " logits of request " << i;
  }
}

struct Variant {
  GridShape shape;
  ExchangeKind exchange = ExchangeKind::kAuto;
};

std::vector<Variant> variants(int max_world, bool moe) {
  std::vector<Variant> all;
  for (int world = 1; world <= max_world; ++world)
    for (const GridShape& shape : legal_grids(world, moe)) {
      if (!moe) {
        all.push_back({shape});
        continue;
      }
      all.push_back({shape, ExchangeKind::kAllToAll});
      if (shape.expert <= shape.tensor) all.push_back({shape, ExchangeKind::kReduce});
    }
  return all;
}

RunOptions options_of(const Variant& variant, size_t i) {
  // Chunks, threads and sequences at once change from grid to grid.
  const int64_t chunks[] = {64, 3, 7, 16};
  RunOptions options;
  options.shape = variant.shape;
  options.exchange = variant.exchange;
  options.numerics = Numerics::kReproducible;
  options.kv_dtype = KvDType::kF16;
  options.max_rows = chunks[i % 4];
  options.threads = i % 5 == 4 ? 2 : 1;
  options.max_sequences = i % 3 == 0 ? 1 : 2;
  return options;
}

// Every step-th variant, from `first`.
void sweep(const std::string& name, DType dtype, size_t first, size_t step) {
  const fs::path model = converted(fs::path(GLM_TEST_DATA) / name, dtype);
  const std::vector<Request> requests = requests_of(name, 3);
  const std::vector<std::vector<float>> expected = logits_alone(model, requests);
  const std::vector<Variant> all = variants(8, is_moe(name));
  for (size_t i = first; i < all.size(); i += step) {
    const RunOptions options = options_of(all[i], i);
    SCOPED_TRACE(fmt::format("{} {} on {}, exchange {}, chunks of {}, {} threads",
                             name,
                             dtype_name(dtype),
                             options.shape.text(),
                             static_cast<int>(options.exchange),
                             options.max_rows,
                             options.threads));
    expect_same_bits(run_on_threads(model, options, requests).logits, expected);
    if (testing::Test::HasFailure()) return;
  }
}

using ModelType = std::tuple<std::string, DType>;

std::string test_name(const testing::TestParamInfo<ModelType>& info) {
  std::string name = std::get<0>(info.param);
  std::replace(name.begin(), name.end(), '/', '_');
  return name + "_" + std::string(dtype_name(std::get<1>(info.param)));
}

class Reproducible : public testing::TestWithParam<ModelType> {};

// A part of the grids; every model and dtype begins at another, so that together they meet all.
TEST_P(Reproducible, SomeGrids) {
  const auto& [name, dtype] = GetParam();
  const size_t model =
      static_cast<size_t>(std::find(models().begin(), models().end(), name) - models().begin());
  sweep(name, dtype, model * 5 + static_cast<size_t>(dtype), kInstrumented ? 97 : 23);
}

TEST_P(Reproducible, SlowEveryGrid) {
  const auto& [name, dtype] = GetParam();
  sweep(name, dtype, 0, 1);
}

INSTANTIATE_TEST_SUITE_P(Models,
                         Reproducible,
                         testing::Combine(testing::ValuesIn(models()), testing::ValuesIn(kDTypes)),
                         test_name);

class OneModel : public testing::TestWithParam<DType> {
 protected:
  std::string name_ = "golden/glm4_moe_air";
  fs::path model_ = converted(fs::path(GLM_TEST_DATA) / name_, GetParam());
};

TEST_P(OneModel, EveryBatchAndChunk) {
  const std::vector<Request> requests = requests_of(name_, 9);
  const std::vector<std::vector<float>> expected = logits_alone(model_, requests);
  for (const int64_t rows : {1, 2, 5, 16, 64})
    for (const int64_t sequences : {1, 3, 9}) {
      if (kInstrumented && (rows == 2 || rows == 16 || sequences == 3)) continue;
      SCOPED_TRACE(fmt::format("chunks of {}, {} sequences at once", rows, sequences));
      RunOptions options;
      options.numerics = Numerics::kReproducible;
      options.kv_dtype = KvDType::kF16;
      options.max_rows = rows;
      options.max_sequences = std::min(rows, sequences);
      expect_same_bits(run_on_threads(model_, options, requests).logits, expected);
    }
}

TEST_P(OneModel, EveryNumberOfThreads) {
  const std::vector<Request> requests = requests_of(name_, 2);
  const std::vector<std::vector<float>> expected = logits_alone(model_, requests);
  for (int threads = 2; threads <= 8; ++threads) {
    SCOPED_TRACE(threads);
    RunOptions options;
    options.numerics = Numerics::kReproducible;
    options.kv_dtype = KvDType::kF16;
    options.threads = threads;
    expect_same_bits(run_on_threads(model_, options, requests).logits, expected);
  }
}

TEST_P(OneModel, EveryInstructionSetOfThisHost) {
  const std::vector<Request> requests = requests_of(name_, 2);
  const std::vector<std::vector<float>> expected = logits_alone(model_, requests);
  const char* before = std::getenv("GLM_SIMD");
  const std::string kept = before == nullptr ? "" : before;
  int found = 0;
  for (const char* level : {"scalar", "avx2", "avx512", "vnni"}) {
    SCOPED_TRACE(level);
    ASSERT_EQ(setenv("GLM_SIMD", level, 1), 0);
    std::vector<std::vector<float>> logits;
    try {
      logits = run_on_threads(model_,
                              {.shape = {1, 1, 2, 2},
                               .numerics = Numerics::kReproducible,
                               .kv_dtype = KvDType::kF16},
                              requests)
                   .logits;
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ExitCode::kUsage) << error.what();
      continue;  // not of this host
    }
    ++found;
    expect_same_bits(logits, expected);
  }
  EXPECT_GE(found, 1);
  if (before == nullptr)
    unsetenv("GLM_SIMD");
  else
    setenv("GLM_SIMD", kept.c_str(), 1);
}

TEST_P(OneModel, EveryCacheType) {
  const std::vector<Request> requests = requests_of(name_, 3);
  for (const KvDType kv : {KvDType::kF32, KvDType::kF16, KvDType::kQ8}) {
    SCOPED_TRACE(static_cast<int>(kv));
    const std::vector<std::vector<float>> expected = logits_alone(model_, requests, kv);
    RunOptions options;
    options.shape = {2, 1, 2, 2};
    options.numerics = Numerics::kReproducible;
    options.kv_dtype = kv;
    options.max_rows = 6;
    expect_same_bits(run_on_threads(model_, options, requests).logits, expected);
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, OneModel, testing::ValuesIn(kDTypes), [](const auto& dtype) {
  return std::string(dtype_name(dtype.param));
});

// The mode changes sums across ranks only: on one rank it is the default mode, to the bit.
TEST(ReproducibleMode, IsTheDefaultModeOnOneRank) {
  const std::string name = "golden/glm4_moe_air";
  const fs::path model = converted(fs::path(GLM_TEST_DATA) / name, DType::kQ40);
  const std::vector<Request> requests = requests_of(name, 2);
  expect_same_bits(run_on_threads(model, {.kv_dtype = KvDType::kF16}, requests).logits,
                   logits_alone(model, requests));
}

TEST(ReproducibleMode, TrainedModelOnGridsOfEachKind) {
  const fs::path folder = fs::path(GLM_TEST_DATA) / "tiny";
  const fs::path model = converted(folder, DType::kQ40);
  const ChatPrompts prompts(folder);
  std::vector<Request> requests(2);
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].prompt = prompts.ids(i == 0 ? "What is 2 + 3?" : "Reverse: abc");
    requests[i].max_tokens = 6;
    requests[i].sampling.temperature = 0;
    requests[i].all_logits = true;
  }
  const std::vector<std::vector<float>> expected = logits_alone(model, requests);
  const GridShape shapes[] = {{1, 1, 2, 2},
                              {2, 1, 1, 2},
                              {1, 3, 1, 1},
                              {2, 1, 2, 4},
                              {1, 1, 5, 5},
                              {1, 1, 4, 2},
                              {3, 1, 2, 6},
                              {1, 1, 8, 1}};
  for (const GridShape& shape : shapes) {
    SCOPED_TRACE(shape.text());
    RunOptions options;
    options.shape = shape;
    options.numerics = Numerics::kReproducible;
    options.kv_dtype = KvDType::kF16;
    expect_same_bits(run_on_threads(model, options, requests).logits, expected);
  }
}

}  // namespace
}  // namespace glm::testing_support
