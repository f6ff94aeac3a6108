// --dry-run: the plan of the real models from their config.json alone, and of a model file.
// SPDX-License-Identifier: MIT
#include <cmath>

#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

Json plan(int ranks, Args args) {
  args.insert(args.end(), {"--dry-run", "--json"});
  return last_json(expect_good(infer(ranks, args)));
}

// The number X of the line "weights total X GB".
double weights_total(const std::string& text) {
  const std::string start = "weights total ";
  for (const std::string& line : lines_of(text))
    if (line.starts_with(start) && line.ends_with(" GB"))
      return std::stod(line.substr(start.size()));
  ADD_FAILURE() << "no line of the weights in\n" << text;
  return 0;
}

double total(const std::string& folder, const Args& more) {
  Args args = {"--model", folder, "--dry-run", "--ranks", "4"};
  args.insert(args.end(), more.begin(), more.end());
  return weights_total(expect_good(infer(0, args)).out);
}

void expect_sums(const Json& json) {
  int64_t weights = 0, replicated = 0;
  for (const Json& rank : json["ranks"]) {
    weights += rank["weight_bytes"].get<int64_t>();
    replicated += rank["replicated_bytes"].get<int64_t>();
    int64_t kinds = 0;
    for (const Json& bytes : rank["weight_bytes_by_kind"]) kinds += bytes.get<int64_t>();
    EXPECT_EQ(kinds, rank["weight_bytes"].get<int64_t>());
  }
  EXPECT_EQ(weights, json["model_bytes"].get<int64_t>() + replicated);
}

TEST(DryRun, Glm45AirNeedsAbout60GigabytesAtQ40) {
  const std::string folder = folder_with_config("air", config_air());
  EXPECT_NEAR(total(folder, {}), 60.8, 0.3);
  EXPECT_NEAR(total(folder, {"--dtype", "q40"}), 60.8, 0.3);
  // 106.85 billion parameters without the MTP layer, two bytes each.
  EXPECT_NEAR(total(folder, {"--dtype", "bf16"}), 213.7, 1.0);
  EXPECT_NEAR(total(folder, {"--dtype", "f32"}), 427.4, 2.0);
}

TEST(DryRun, ThePlanOfFourRanksAddsUp) {
  const Json json = plan(0,
                         {"--model",
                          folder_with_config("air", config_air()),
                          "--ranks",
                          "4",
                          "--pipeline",
                          "2",
                          "--tensor",
                          "2"});
  EXPECT_EQ(json["ranks"].size(), 4u);
  EXPECT_EQ(json["grid"], Json({{"data", 1}, {"pipeline", 2}, {"tensor", 2}, {"expert", 2}}));
  expect_sums(json);
  const auto model = json["model_bytes"].get<double>();
  for (const Json& rank : json["ranks"]) {
    EXPECT_LT(rank["weight_bytes"].get<double>(), 0.27 * model);
    // 8192 positions by default: layers x heads/2 x 128 x 8192 x keys and values x f16.
    const auto layers = rank["layers"][1].get<int64_t>() - rank["layers"][0].get<int64_t>();
    EXPECT_EQ(rank["kv_bytes"].get<int64_t>(), layers * 4 * 128 * 8192 * 2 * 2);
  }
}

TEST(DryRun, TheMtpLayerIsBelievedAndSaid) {
  const Outcome outcome = expect_good(
      infer(0, {"--model", folder_with_config("air", config_air()), "--dry-run", "--ranks", "4"}));
  EXPECT_NE(outcome.out.find("num_nextn_predict_layers is believed"), std::string::npos)
      << outcome.out;
}

TEST(DryRun, OtherModels) {
  // 352.8 billion parameters at 4.5 bits, embedding and head at 8.5.
  EXPECT_NEAR(total(folder_with_config("355b", config_355b()), {}), 200, 4);
  const std::string dense = folder_with_config("9b", config_9b());
  // 9.40 billion parameters.
  EXPECT_NEAR(total(dense, {"--dtype", "bf16"}), 18.8, 0.2);
  EXPECT_EQ(plan(0, {"--model", dense, "--ranks", "4"})["grid"]["expert"], 1);
}

TEST(DryRun, SaysWhenItDoesNotFitAndLeavesWithZero) {
  const std::string folder = folder_with_config("355b", config_355b());
  const Outcome outcome =
      expect_good(infer(0, {"--model", folder, "--dry-run", "--dtype", "f32", "--ranks", "1"}));
  EXPECT_NE(outcome.out.find("does not fit this host"), std::string::npos) << outcome.out;
}

TEST(DryRun, AnyNumberOfRanks) {
  const std::string folder = folder_with_config("air", config_air());
  for (const char* ranks : {"1", "3", "7", "64"})
    expect_sums(plan(0, {"--model", folder, "--ranks", ranks}));
}

TEST(DryRun, OfAModelFileAndOfItsFolder) {
  const Json file = plan(0, {"--model", model_file("tiny", "q40"), "--ranks", "3"});
  const Json folder = plan(0, {"--model", test_data("tiny"), "--ranks", "3"});
  EXPECT_EQ(file["model_bytes"], folder["model_bytes"]);
  EXPECT_EQ(file["mtp_bytes"], folder["mtp_bytes"]);
  EXPECT_EQ(file["ranks"].size(), 3u);
}

}  // namespace
}  // namespace glm::testing_support
