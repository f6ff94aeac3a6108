// --capacity, and the grid that is taken when none is named. SPDX-License-Identifier: MIT
#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

Command dry(Args args, const std::string& ranks = "4") {
  args.insert(args.end(),
              {"--model", folder_with_config("air", config_air()), "--dry-run", "--ranks", ranks});
  return infer(0, args);
}

TEST(GridChoice, SaysWhatWasChosenAndWhy) {
  const std::string out = expect_good(dry({"--threads", "1"})).out;
  EXPECT_NE(out.find("grid default: data 1 x pipeline 2 x tensor 2, expert 2 (fastest by estimate: "
                     "data 1 x pipeline 1 x tensor 4"),
            std::string::npos)
      << out;
  // Five estimates.
  EXPECT_NE(out.find("decode ms"), std::string::npos) << out;
}

// The larger stage of the default grid needs 16.1 GB per rank.
TEST(GridChoice, LeavesADefaultThatDoesNotFit) {
  const std::string out = expect_good(dry({"--threads", "1", "--capacity", "15.9"})).out;
  EXPECT_NE(out.find("grid chosen: data 1 x pipeline 1 x tensor 4"), std::string::npos) << out;
  EXPECT_NE(out.find("next best"), std::string::npos) << out;
  EXPECT_NE(out.find("  chosen\n"), std::string::npos) << out;
}

TEST(GridChoice, AnyAxisIsObeyed) {
  const std::string out = expect_good(dry({"--pipeline", "4"})).out;
  EXPECT_NE(out.find("pipeline 4 x tensor 1"), std::string::npos) << out;
  EXPECT_EQ(out.find("chosen"), std::string::npos) << out;
}

TEST(GridChoice, ExchangeByReductionIsObeyed) {
  expect_good(dry({"--expert-exchange", "reduce"}, "3"));
}

TEST(Capacity, DividesExpertsInProportion) {
  const Json json =
      last_json(expect_good(dry({"--tensor", "3", "--capacity", "24,24,48", "--json"}, "3")));
  EXPECT_EQ(json["ranks"][0]["experts"], Json({0, 32}));
  EXPECT_EQ(json["ranks"][1]["experts"], Json({32, 64}));
  EXPECT_EQ(json["ranks"][2]["experts"], Json({64, 128}));
}

TEST(Capacity, OneValueIsForAllRanks) {
  const std::string out = expect_good(dry({"--tensor", "4", "--capacity", "24"})).out;
  EXPECT_EQ(out, expect_good(dry({"--tensor", "4", "--capacity", "24,24,24,24"})).out);
}

TEST(Capacity, PlansStayBelowIt) {
  const Json json = last_json(expect_good(
      dry({"--pipeline", "2", "--tensor", "2", "--capacity", "14,14,15,29", "--json"})));
  const double gigabytes[] = {14, 14, 15, 29};
  for (size_t rank = 0; rank < 4; ++rank)
    EXPECT_LE(json["ranks"][rank]["total_bytes"].get<double>(), gigabytes[rank] * 1e9);
}

TEST(Capacity, TooLittleNamesTheRank) {
  expect_error(dry({"--tensor", "4", "--capacity", "24,24,1.5,24"}),
               4,
               {"rank 2 needs", "--capacity is 1.500 GB"});
}

TEST(Capacity, ListsOfAnotherLengthAndOtherTexts) {
  expect_error(dry({"--capacity", "24,24"}), 2, {"2 values", "4 ranks"});
  for (const char* text : {"0", "-1", "24,", ",24", "24;24", "nan", "inf", "1e99", "x", ""})
    expect_error(dry({"--capacity", text}), 2, {"--capacity"});
}

}  // namespace
}  // namespace glm::testing_support
