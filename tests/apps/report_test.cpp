// --json: the documented fields, and that weights, memory and reading are really divided among the
// ranks. SPDX-License-Identifier: MIT
#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

constexpr int64_t kBlock = 1 << 20;  // checksummed unit of a model file, read as a whole

Json answer_of(int ranks, const std::string& model, const Args& more) {
  Args args = {"--model", model, "--json", "--temperature", "0"};
  args.insert(args.end(), more.begin(), more.end());
  return last_json(expect_good(infer(ranks, args)));
}

void expect_fields(const Json& json, const std::vector<std::string>& names) {
  for (const std::string& name : names) EXPECT_TRUE(json.contains(name)) << name;
}

void expect_divided(const Json& json, int ranks) {
  ASSERT_EQ(json["ranks"].size(), static_cast<size_t>(ranks));
  int64_t weights = 0, replicated = 0;
  for (const Json& rank : json["ranks"]) {
    const auto bytes = rank["weight_bytes"].get<int64_t>();
    weights += bytes;
    replicated += rank["replicated_bytes"].get<int64_t>();
    EXPECT_EQ(bytes, rank["planned_weight_bytes"].get<int64_t>());
    EXPECT_LE(rank["peak_rss_bytes"].get<double>(), 1.10 * rank["plan_bytes"].get<double>())
        << rank.dump();
  }
  EXPECT_EQ(weights, json["model_bytes"].get<int64_t>() + replicated);
}

class Report : public testing::TestWithParam<int> {};

TEST_P(Report, TinyModel) {
  const int ranks = GetParam();
  const Json json = answer_of(ranks, model_file("tiny", "q40"), {"--prompt", kFrance});
  expect_fields(json,
                {"text",
                 "tokens",
                 "prompt_tokens",
                 "finish_reason",
                 "usage",
                 "grid",
                 "ops",
                 "model_bytes",
                 "bytes_per_token",
                 "ranks",
                 "timing"});
  EXPECT_EQ(json["text"].get<std::string>() + "\n", kParis);
  EXPECT_EQ(json["finish_reason"], "stop");
  expect_divided(json, ranks);
  for (const Json& rank : json["ranks"]) {
    expect_fields(rank,
                  {"coord",
                   "layers",
                   "host",
                   "weight_bytes_by_kind",
                   "replicated_bytes",
                   "kv_bytes",
                   "buffer_bytes",
                   "process_bytes",
                   "plan_bytes",
                   "peak_rss_bytes",
                   "bytes_read",
                   "load_seconds",
                   "comm_seconds",
                   "sent_bytes",
                   "dispatch_calls",
                   "combine_calls",
                   "dispatched_rows",
                   "dispatched_bytes",
                   "threads"});
    EXPECT_GE(rank["bytes_read"].get<int64_t>(), rank["weight_bytes"].get<int64_t>());
    EXPECT_GT(rank["process_bytes"].get<int64_t>(), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, Report, testing::Values(1, 2, 4));

TEST(ReportStreams, TheObjectIsTheOnlyLineOfStdoutAndTheSummaryGoesToStderr) {
  const Outcome outcome = expect_good(infer(
      2,
      {"--model", model_file("tiny", "q40"), "--prompt", kFrance, "--temperature", "0", "--json"}));
  EXPECT_EQ(lines_of(outcome.out).size(), 1u);
  for (const char* part :
       {"grid: ", "exchange: ", "load: ", "first token after ", "prefill: ", "decode: "})
    EXPECT_NE(outcome.err.find(part), std::string::npos) << part;
}

TEST(ReportBenchmark, Fields) {
  constexpr int kRanks = 2;
  const Json json = answer_of(kRanks,
                              model_file("tiny", "q40"),
                              {"--benchmark",
                               "--prompt-tokens",
                               "32",
                               "--max-tokens",
                               "8",
                               "--repeat",
                               "3",
                               "--context",
                               "256"});
  const Json& benchmark = json["benchmark"];
  EXPECT_GT(benchmark["prefill_tokens_per_second"].get<double>(), 0);
  EXPECT_GT(benchmark["decode_tokens_per_second"].get<double>(), 0);
  EXPECT_GT(benchmark["bytes_per_token"].get<int64_t>(), 0);
  EXPECT_GT(benchmark["read_bandwidth_bytes_per_second"].get<double>(), 0);
  EXPECT_GT(benchmark["bandwidth_share"].get<double>(), 0);
  EXPECT_GT(benchmark["operations_per_prompt_token"].get<int64_t>(), 0);
  EXPECT_GT(benchmark["int8_peak_operations_per_second"].get<double>(), 0);
  EXPECT_GT(benchmark["int8_share"].get<double>(), 0);
  for (const char* when : {"roofs_before", "roofs_after"}) {
    const Json& roofs = benchmark[when];
    EXPECT_GT(roofs["read_bytes_per_thread"].get<int64_t>(), 0);
    EXPECT_LE(roofs["read_bytes_per_second"].get<double>(),
              benchmark["read_bandwidth_bytes_per_second"].get<double>());
    EXPECT_LE(roofs["int8_operations_per_second"].get<double>(),
              benchmark["int8_peak_operations_per_second"].get<double>());
  }
  EXPECT_EQ(benchmark["prefill_samples"].size(), 3u);
  EXPECT_EQ(benchmark["decode_samples"].size(), 3u);
  EXPECT_EQ(benchmark["prompt_tokens"], 32);
  expect_divided(json, kRanks);
}

TEST(ReportBenchmark, TextHasASummary) {
  const Outcome outcome = expect_good(infer(0,
                                            {"--model",
                                             model_file("tiny", "q40"),
                                             "--benchmark",
                                             "--threads",
                                             "1",
                                             "--prompt-tokens",
                                             "16",
                                             "--max-tokens",
                                             "4",
                                             "--repeat",
                                             "1",
                                             "--context",
                                             "64"}));
  for (const char* part : {"of the measured read bandwidth", "of the measured int8 peak"})
    EXPECT_NE(outcome.out.find(part), std::string::npos) << outcome.out;
}

// A model whose weights are much larger than the process itself: about 300 MB at q40.
std::string large_model() {
  const std::string path = scratch() / "large.h5";
  if (std::filesystem::exists(path)) return path;
  const std::string config = folder_with_config("large", R"({"model_type": "glm4_moe",
    "hidden_size": 1024, "intermediate_size": 2048, "moe_intermediate_size": 512,
    "num_hidden_layers": 8, "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 64,
    "n_routed_experts": 36, "num_experts_per_tok": 4, "n_shared_experts": 1,
    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.0,
    "norm_topk_prob": true, "attention_bias": true, "use_qk_norm": false,
    "partial_rotary_factor": 0.5, "rope_theta": 10000.0, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096, "vocab_size": 32000, "eos_token_id": [1],
    "tie_word_embeddings": false, "num_nextn_predict_layers": 0})");
  expect_good(convert({"--synthetic", config + "/config.json", path, "--seed", "3"}));
  return path;
}

// What a rank reads beside its own bytes: the other ends of blocks at each border of its slabs.
// Stacked experts and split matrices have at most a border on both sides per tensor and layer.
void expect_read_once(const Json& json) {
  int64_t read = 0;
  for (const Json& rank : json["ranks"]) {
    const auto bytes = rank["bytes_read"].get<int64_t>();
    EXPECT_GE(bytes, rank["weight_bytes"].get<int64_t>());
    read += bytes;
  }
  // A matrix of one block or less is read whole by each rank of a tensor group.
  EXPECT_LE(read, 2 * json["model_bytes"].get<int64_t>() + 64 * kBlock);
}

class LargeModel : public testing::TestWithParam<Args> {};

TEST_P(LargeModel, IsDivided) {
  Args args = {"--tokens", "5,6,7,8", "--max-tokens", "4", "--context", "512"};
  args.insert(args.end(), GetParam().begin(), GetParam().end());
  const Json json = answer_of(4, large_model(), args);
  expect_divided(json, 4);
  expect_read_once(json);
  const auto model = json["model_bytes"].get<double>();
  EXPECT_GT(model, 2.0e8);
  for (const Json& rank : json["ranks"]) {
    EXPECT_LT(rank["weight_bytes"].get<double>(), 0.4 * model);
    // Buffers are as large as a step may become, and resident.
    const double peak = rank["peak_rss_bytes"].get<double>() - rank["buffer_bytes"].get<double>();
    EXPECT_LT(peak, 0.5 * model) << rank.dump();
  }
}

INSTANTIATE_TEST_SUITE_P(Grids,
                         LargeModel,
                         testing::Values(Args{},
                                         Args{"--tensor", "4"},
                                         Args{"--pipeline", "4"},
                                         Args{"--data", "2", "--tensor", "2"}));

TEST(LargeModelPeak, OfOneRankIsThePlan) {
  const Json json =
      answer_of(1, large_model(), {"--tokens", "5,6,7,8", "--max-tokens", "4", "--context", "512"});
  expect_divided(json, 1);
  EXPECT_GT(json["ranks"][0]["peak_rss_bytes"].get<int64_t>(), json["model_bytes"].get<int64_t>());
}

}  // namespace
}  // namespace glm::testing_support
