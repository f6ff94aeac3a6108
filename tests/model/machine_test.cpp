// Descriptions of machines, and the model of time against figures worked out by hand for
// GLM-4.5-Air. SPDX-License-Identifier: MIT
#include "core/model/machine.h"

#include <numeric>

#include "core/model/token_bytes.h"
#include "tests/model/model_samples.h"

namespace glm {
namespace {

const char* const kGpuNode = R"({
  "name": "ideal", "device": "gpu", "nodes": 1, "ranks_per_node": 4,
  "memory_gb": 80, "read_gb_per_s": 1000, "tera_operations_per_s": 1000,
  "reached": {"read": 1, "products": 1, "cache": 1, "attention": 1},
  "sum_gb_per_s": 1e6, "touch_gvalues_per_s": 1e6,
  "inside": {"latency_us": 0, "gb_per_s": 1e6}
})";

const ModelConfig& planned_air() {
  static const ModelConfig config = parsed(real_config(false));
  return config;
}

std::map<std::string, StoredType, std::less<>> q40_tensors() {
  std::map<std::string, StoredType, std::less<>> stored;
  for (const TensorSpec& spec : tensor_specs(planned_air(), false))
    stored.emplace(spec.name,
                   stored_type(spec, planned_air(), {DType::kQ40, DType::kQ40, DType::kQ40}));
  return stored;
}

Machine ideal_machine(int ranks, double latency = 0) {
  std::vector<int> hosts(static_cast<size_t>(ranks), 0);
  MachineSpec spec = parse_machine(kGpuNode, "ideal");
  spec.inside.latency = latency;
  return machine_for(spec, DType::kQ40, hosts, ranks, 1);
}

GridEstimate ideal_estimate(const GridShape& shape, const Workload& workload, double latency = 0) {
  return estimate_grid(planned_air(),
                       model_costs(planned_air(), q40_tensors()),
                       shape,
                       ideal_machine(shape.world(), latency),
                       workload);
}

// 7.28 GB of weights at 1 TB/s, and 46 layers x 2 x 8 heads x 128 values x 2 bytes of the cache for
// each of 4096 positions.
TEST(ModelOfTime, OneGpuReadsAirsActiveWeightsOnce) {
  const GridEstimate one = ideal_estimate({1, 1, 1, 1}, {4096, 0});
  EXPECT_NEAR(one.decode.weights + one.decode.head, 7.28e-3, 0.01e-3);
  EXPECT_NEAR(one.decode.head, 151552.0 * 4096 * 18 / 32 / 1e12, 1e-9);
  EXPECT_NEAR(one.decode.cache, 4096 * 188416.0 / 1e12, 1e-9);
  EXPECT_EQ(one.decode.sums + one.decode.dispatch + one.decode.sends + one.decode.bubbles, 0);
  EXPECT_NEAR(one.decode_seconds, one.decode.total(), 1e-12);
}

// Matrices and heads in equal parts; only the routers (46 MB, and norms) are read by both. Two sums
// of a row in each of 46 layers.
TEST(ModelOfTime, TwoGpusHalveTheWeightsAndWaitForSums) {
  const GridEstimate one = ideal_estimate({1, 1, 1, 1}, {4096, 0});
  const GridEstimate two = ideal_estimate({1, 1, 2, 1}, {4096, 0}, 10e-6);
  const double whole = 45 * 128 * 4096 * 4.0 / 1e12;
  EXPECT_NEAR(two.decode.weights, (one.decode.weights - whole) / 2 + whole, 5e-6);
  EXPECT_NEAR(two.decode.cache, one.decode.cache / 2, 1e-9);
  EXPECT_NEAR(two.decode.sums, 92 * (10e-6 + 16384 / 1e15), 1e-7);
  EXPECT_NEAR(two.decode.rest, 2 * 10e-6 + 46 * 4096 / 1e15, 1e-8);
}

// Of 8 experts the busiest of four equal shares holds 3.48 on average, a slice of each expert 2.
TEST(ModelOfTime, FourGpusReadMoreOfWholeExpertsThanOfSlices) {
  const GridEstimate sliced = ideal_estimate({1, 1, 4, 1}, {512, 0});
  const GridEstimate whole = ideal_estimate({1, 1, 4, 4}, {512, 0});
  const double expert = 3.0 * 4096 * 1408 * 18 / 32 / 1e12;
  EXPECT_NEAR(
      whole.decode.weights - sliced.decode.weights, 45 * (3.48 - 2) * expert, 45 * 0.01 * expert);
}

TEST(ModelOfTime, StagesOfAPipelineTakeTurnsForOneSequence) {
  const GridEstimate one = ideal_estimate({1, 1, 1, 1}, {512, 0});
  const GridEstimate four = ideal_estimate({1, 4, 1, 1}, {512, 0});
  EXPECT_NEAR(four.decode.weights, one.decode.weights, 1e-9);
  EXPECT_EQ(four.decode.bubbles, 0);
  // One chunk passes one stage after the other: three of four stand still at any time.
  EXPECT_NEAR(four.prefill.bubbles, 0.75 * four.prefill_seconds, 0.05 * four.prefill_seconds);
  // Of many chunks stages work at once.
  const GridEstimate chunks = ideal_estimate({1, 4, 1, 1}, {512 * 64, 0});
  EXPECT_LT(chunks.prefill.bubbles, 0.12 * chunks.prefill_seconds);
}

// 2 x active parameters but the head's, and attention, at 100 tera operations per second. At 1000
// the experts of a chunk of 4096 rows would still take longer to read.
TEST(ModelOfTime, PromptsAreBoundByProducts) {
  Machine machine = ideal_machine(1);
  machine.product_rate = machine.attention_rate = 50e12;
  const GridEstimate one = estimate_grid(planned_air(),
                                         model_costs(planned_air(), q40_tensors()),
                                         {1, 1, 1, 1},
                                         machine,
                                         {4096, 0, 1, 4096});
  const double operations =
      4096.0 * static_cast<double>(operations_per_prompt_token(planned_air())) +
      46.0 * 4 * 96 * 128 * 4096 * 2048;
  EXPECT_NEAR(one.prefill_seconds, operations / 100e12, 0.01 * operations / 100e12);
}

TEST(ModelOfTime, TheSlowestRankOfAStageDecides) {
  Machine machine = ideal_machine(2);
  const ModelCosts costs = model_costs(planned_air(), q40_tensors());
  const GridEstimate alike = estimate_grid(planned_air(), costs, {1, 1, 2, 1}, machine, {512, 0});
  machine.speeds = {1, 0.5};
  const GridEstimate unlike = estimate_grid(planned_air(), costs, {1, 1, 2, 1}, machine, {512, 0});
  EXPECT_NEAR(unlike.decode.weights, 2 * alike.decode.weights, 1e-9);
  // With shares in proportion to the speeds both are ready at once.
  Division division = divide_model(planned_air(), {}, {1, 1, 2, 2}, {2, 1});
  const GridEstimate even = estimate_grid(planned_air(), costs, {1, 1, 2, 2}, machine, {512, 0});
  const GridEstimate dealt =
      estimate_grid(planned_air(), costs, {1, 1, 2, 2}, machine, {512, 0}, &division);
  EXPECT_LT(dealt.decode.weights, even.decode.weights);
}

TEST(MachineDescriptions, ComeBackTheSame) {
  for (const auto& [name, text] : bundled_machines()) {
    const MachineSpec spec = parse_machine(text, name);
    EXPECT_GT(spec.memory_bytes, 0) << name;
    EXPECT_FALSE(spec.figures.empty()) << name;
    const std::string written = machine_json(spec).dump();
    EXPECT_EQ(machine_json(parse_machine(written, name)).dump(), written);
  }
}

TEST(MachineDescriptions, UnequalRanks) {
  Json json = Json::parse(kGpuNode);
  json["ranks"] = {{{"count", 2}, {"memory_gb", 24}},
                   {{"memory_gb", 40}, {"read_gb_per_s", 1555}},
                   {{"memory_gb", 80}}};
  const MachineSpec spec = parse_machine(json.dump(), "m");
  ASSERT_EQ(spec.ranks.size(), 4u);
  EXPECT_EQ(spec.rank(1).memory_bytes, 24'000'000'000);
  EXPECT_EQ(spec.rank(2).read_rate, 1555e9);
  EXPECT_EQ(spec.rank(3).read_rate, 1000e9);
  const Machine machine = machine_for(spec, DType::kQ40, {0, 0, 0, 0}, 4, 1);
  EXPECT_DOUBLE_EQ(machine.speeds[2], 1.555);
}

// Each mistake is named with its key.
TEST(MachineDescriptions, MistakesAreRefused) {
  const auto refused = [](const std::function<void(Json&)>& change, const std::string& key) {
    Json json = Json::parse(kGpuNode);
    change(json);
    try {
      parse_machine(json.dump(), "m.json");
      ADD_FAILURE() << "accepted: " << json.dump();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kModelFile) << error.what();
      const std::string text = error.what();
      EXPECT_EQ(text.find("m.json: "), 0u) << text;
      EXPECT_NE(text.find(key), std::string::npos) << text;
    }
  };
  refused([](Json& j) { j["memory"] = 80; }, "memory is not a key");
  refused([](Json& j) { j.erase("memory_gb"); }, "memory_gb is missing");
  refused([](Json& j) { j.erase("inside"); }, "inside is missing");
  refused([](Json& j) { j["memory_gb"] = -1; }, "memory_gb");
  refused([](Json& j) { j["read_gb_per_s"] = 0; }, "read_gb_per_s");
  refused([](Json& j) { j["read_gb_per_s"] = "fast"; }, "read_gb_per_s");
  refused([](Json& j) { j["nodes"] = 0; }, "nodes");
  refused([](Json& j) { j["nodes"] = 2; }, "between");
  refused([](Json& j) { j["nodes"] = 65536; }, "nodes x ranks_per_node");
  refused([](Json& j) { j["device"] = "tpu"; }, "device");
  refused([](Json& j) { j["device"] = "cpu"; }, "cores_per_node is missing");
  refused([](Json& j) { j["reached"]["read"] = 0; }, "reached: read");
  refused([](Json& j) { j["reached"]["write"] = 1; }, "write is not a key");
  refused([](Json& j) { j["reached_by_dtype"] = {{"q2", Json::object()}}; }, "q2");
  refused([](Json& j) { j["inside"] = 5; }, "inside");
  refused([](Json& j) { j["inside"].erase("gb_per_s"); }, "gb_per_s is missing");
  refused([](Json& j) { j["ranks"] = Json::array(); }, "ranks");
  refused([](Json& j) { j["ranks"] = {{{"count", 3}}}; }, "the counts add up to 3");
  refused([](Json& j) { j["ranks"] = {{{"count", 4096}}, {{"count", 4096}}}; }, "8192");
  for (const char* text : {"", "[]", "7", "{", "{\"name\": 1}", "{\"nodes\": 1e400}"})
    EXPECT_THROW(parse_machine(text, "m.json"), Error) << text;
}

}  // namespace
}  // namespace glm
