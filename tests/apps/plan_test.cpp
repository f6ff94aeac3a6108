// glm_plan from its command line to its exit code, and predictions beside what runs take.
// SPDX-License-Identifier: MIT
#include <cmath>

#include "core/base/check.h"
#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

Command planned(Args args) {
  Command command;
  command.argv = {program("glm_plan")};
  command.argv.insert(command.argv.end(), args.begin(), args.end());
  command.env = {{"XDG_CACHE_HOME", scratch() / "no_cache"}};
  return command;
}

Args air_on(const std::string& machine, const Args& more = {}) {
  Args args = {"--model", folder_with_config("air", config_air()), "--machine", machine};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

void expect_refused(const Args& args, int code, const std::vector<std::string>& texts) {
  expect_error(planned(args), code, texts, "glm_plan");
}

std::string machine_file(const std::string& name, const std::string& text) {
  const std::string path = scratch() / (name + ".json");
  write_bytes(path, text);
  return path;
}

Json machine_of(const std::string& bundled) {
  return Json::parse(expect_good(planned({"--show-machine", bundled})).out);
}

TEST(Plan, RanksGridsByTheTimeOfTheWorkload) {
  const Json json = last_json(expect_good(planned(air_on("a100-80", {"--json", "--show", "4"}))));
  EXPECT_EQ(json["fits"], true);
  EXPECT_GE(json["grids"].size(), 4u);
  double last = 0;
  for (const Json& grid : json["grids"]) {
    if (!grid["fits"].get<bool>()) continue;
    EXPECT_GE(grid["total_seconds"].get<double>(), last);
    last = grid["total_seconds"];
    double sum = 0;
    for (const auto& [part, seconds] : grid["decode_parts"].items()) sum += seconds.get<double>();
    EXPECT_NEAR(sum, grid["decode_seconds"].get<double>(), 1e-9);
  }
  EXPECT_EQ(json["best"], json["grids"][0]);
  int64_t weights = 0;
  for (const Json& rank : json["plan"]["ranks"]) {
    weights += rank["weight_bytes"].get<int64_t>() - rank["replicated_bytes"].get<int64_t>();
    EXPECT_LT(rank["total_bytes"].get<int64_t>(), 76'000'000'000);
  }
  EXPECT_EQ(weights, json["plan"]["model_bytes"].get<int64_t>());
  EXPECT_NEAR(json["bytes_per_token"].get<double>(), 7.59e9, 0.05e9);  // its head is q80
}

TEST(Plan, TheTableNamesTheLimitingRankAndEveryPart) {
  const std::string out = expect_good(planned(air_on("h200", {"--ranks-per-node", "2"}))).out;
  for (const char* text : {"machine: ",
                           "data sheet",
                           "a token reads 7.",
                           "weights total 60.8",
                           "fullest rank: ",
                           "weights read",
                           "keys and values read",
                           "all-reduces",
                           "head",
                           "predicted: decode "})
    EXPECT_NE(out.find(text), std::string::npos) << text << " in\n" << out;
}

// 24 + 24 + 40 + 80 GB: experts in proportion, every rank within its memory.
TEST(Plan, UnequalRanks) {
  Json machine = machine_of("a100-80");
  machine["ranks"] = {{{"count", 2}, {"memory_gb", 24}, {"read_gb_per_s", 936}},
                      {{"memory_gb", 40}, {"read_gb_per_s", 1555}},
                      {{"memory_gb", 80}}};
  const std::string path = machine_file("unequal", machine.dump());
  const Json json =
      last_json(expect_good(planned(air_on(path, {"--json", "--tensor", "4", "--expert", "4"}))));
  const Json& ranks = json["plan"]["ranks"];
  const double capacity[] = {24e9, 24e9, 40e9, 80e9};
  for (size_t r = 0; r < 4; ++r) EXPECT_LE(ranks[r]["total_bytes"].get<double>(), capacity[r]) << r;
  EXPECT_GT(ranks[3]["weight_bytes"].get<int64_t>(), 2 * ranks[0]["weight_bytes"].get<int64_t>());
  expect_refused(air_on(path, {"--nodes", "2"}), 2, {"--nodes", "one by one"});
}

TEST(Plan, WhatDoesNotFitComesWithWhatWould) {
  expect_refused(
      air_on("rtx3090", {"--ranks-per-node", "2"}), 4, {"no grid of 2 ranks", "--nodes 2"});
  expect_refused(air_on("h200", {"--ranks-per-node", "1", "--dtype", "bf16"}),
                 4,
                 {"these would fit", "--dtype q80", "--nodes 2"});
  expect_refused(
      air_on("h200", {"--ranks-per-node", "1", "--sequences", "16", "--context", "131072"}),
      4,
      {"--context "});
}

TEST(Plan, WritesABatchScriptThatBashCanRead) {
  const std::string script = scratch() / "plan.sbatch";
  for (const Args& more : {Args{}, Args{"--sequences", "8", "--nodes", "2"}}) {
    Args args = air_on("a100-40", {"--json", "--sbatch", script});
    args.insert(args.end(), more.begin(), more.end());
    const Json json = last_json(expect_good(planned(args)));
    const std::string text = read_bytes(script);
    const Json& grid = json["best"]["grid"];
    EXPECT_NE(
        text.find("--data " + grid["data"].dump() + " --pipeline " + grid["pipeline"].dump() +
                  " --tensor " + grid["tensor"].dump() + " --expert " + grid["expert"].dump()),
        std::string::npos)
        << text;
    EXPECT_NE(text.find("#SBATCH --gpus-per-node=4\n"), std::string::npos) << text;
    EXPECT_EQ(text.find("--batch") != std::string::npos, !more.empty());
    Command check;
    check.argv = {"bash", "-n", script};
    expect_good(check);
  }
  expect_refused(air_on("a100-40", {"--sbatch", "/proc/none/plan.sbatch"}), 2, {"--sbatch"});
}

TEST(BadPlan, Options) {
  const std::string model = folder_with_config("air", config_air());
  expect_refused({"--machine", "h200"}, 2, {"--model"});
  expect_refused({"--model", model}, 2, {"--machine", "--measure"});
  expect_refused({"--model", model, "--machine", "h300"}, 2, {"h300", "h200, a100-80"});
  expect_refused({"--model", scratch() / "none.h5", "--machine", "h200"}, 2, {"none.h5"});
  expect_refused(air_on("h200", {"--context", "100"}), 2, {"--context 100"});
  expect_refused(air_on("h200", {"--context", "1000000"}), 2, {"--context"});
  expect_refused(air_on("h200", {"--tensor", "3"}), 2, {"tensor"});
  expect_refused(air_on("h200", {"--sequences", "0"}), 2, {"--sequences"});
  expect_refused(air_on("h200", {"--dtype", "q4"}), 2, {"--dtype"});
  expect_refused(air_on("h200", {"--machine-out", "x"}), 2, {"--measure"});
  expect_refused({"--measure", "--measure-dtypes", "q3"}, 2, {"--measure-dtypes", "q3"});
}

TEST(BadPlan, Machines) {
  const auto refused = [](const std::string& text, const std::string& part) {
    expect_refused(air_on(machine_file("bad", text)), 3, {"bad.json", part});
  };
  refused("", "JSON");
  refused("[1]", "object");
  refused("{\"nodes\": 1}", "cores_per_node is missing");
  Json machine = machine_of("h200");
  machine["memory"] = 1;
  refused(machine.dump(), "memory is not a key");
  machine.erase("memory");
  machine["memory_gb"] = "much";
  refused(machine.dump(), "memory_gb");
  machine["memory_gb"] = 141;
  machine["ranks"] = {{{"count", 9}}};
  refused(machine.dump(), "add up to 9");
}

// Memory is there from the start, so that a plan is what a run takes.
TEST(Predictions, MemoryIsWithinThreePercentOfThePeak) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers keep books in memory";
#endif
  for (const int ranks : {1, 2, 3, 4}) {
    const Json json = last_json(expect_good(infer(ranks,
                                                  {"--model",
                                                   model_file("tiny", "q40"),
                                                   "--prompt",
                                                   kFrance,
                                                   "--temperature",
                                                   "0",
                                                   "--json",
                                                   "--threads",
                                                   "1"})));
    for (const Json& rank : json["prediction"]["memory"])
      EXPECT_LT(std::abs(rank["error_percent"].get<double>()), 3) << ranks << ": " << rank.dump();
    EXPECT_TRUE(json["prediction"].contains("speed"));
  }
}

// Figures of this host make a run compare; those of another do not.
TEST(Predictions, SpeedNeedsFiguresOfThisHost) {
  const std::string cache = scratch() / "cache";
  Command command = infer(0,
                          {"--model",
                           model_file("tiny", "q40"),
                           "--tokens",
                           "5,6,7",
                           "--max-tokens",
                           "4",
                           "--mtp",
                           "off",
                           "--temperature",
                           "0",
                           "--json"});
  command.env = {{"XDG_CACHE_HOME", cache}};
  const Outcome without = expect_good(command);
  EXPECT_NE(without.err.find("no speed: no figures of this host; glm_plan --measure"),
            std::string::npos)
      << without.err;
  EXPECT_TRUE(last_json(without)["prediction"]["speed"].is_null());
  Command measure = planned({"--measure", "--json", "--measure-seconds", "0.1"});
  measure.env = {{"XDG_CACHE_HOME", cache}};
  measure.timeout = 120;
  const Json machine = last_json(expect_good(measure));
  EXPECT_GT(machine["read_gb_per_s"].get<double>(), 0);
  const Outcome with = expect_good(command);
  const Json speed = last_json(with)["prediction"]["speed"];
  EXPECT_GT(speed["decode"]["predicted_tokens_per_second"].get<double>(), 0) << speed.dump();
  EXPECT_GT(speed["prefill"]["predicted_tokens_per_second"].get<double>(), 0);
  Json other = machine;
  other["cpu"] = "another";
  write_bytes(cache + "/glm_infer/machine.json", other.dump());
  EXPECT_NE(expect_good(command).err.find("of another host"), std::string::npos);
  write_bytes(cache + "/glm_infer/machine.json", "{");
  EXPECT_NE(expect_good(command).err.find("glm_plan --measure writes it anew"), std::string::npos);
}

}  // namespace
}  // namespace glm::testing_support
