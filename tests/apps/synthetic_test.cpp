// Models without a file: glm_infer --synthetic. SPDX-License-Identifier: MIT
#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

// The config of a golden model, and the file that glm_convert makes of it.
struct Sample {
  explicit Sample(const Args& dtypes) : folder("synthetic_program") {
    Args args = {"--synthetic", config, folder / "m.h5", "--seed", "3"};
    args.insert(args.end(), dtypes.begin(), dtypes.end());
    expect_good(convert(args));
    made = {"--synthetic", config, "--synthetic-seed", "3"};
    made.insert(made.end(), dtypes.begin(), dtypes.end());
  }
  TempFolder folder;
  std::string config = test_data("golden/glm4_moe_air/config.json");
  Args made;
};

Args joined_args(Args args, const Args& more) {
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

TEST(SyntheticModel, AnswersLikeTheFileOnAnyGrid) {
  const Args greedy = {
      "--tokens", "1,2,3", "--max-tokens", "8", "--temperature", "0", "--reproducible"};
  const Sample sample({"--dtype", "q40", "--head-dtype", "q40"});
  const std::string expected =
      expect_good(infer(0, joined_args({"--model", sample.folder / "m.h5"}, greedy))).out;
  EXPECT_EQ(std::count(expected.begin(), expected.end(), ','), 7) << expected;  // no end token
  const Args made = joined_args(sample.made, greedy);
  EXPECT_EQ(expect_good(infer(0, made)).out, expected);
  const Outcome three = expect_good(infer(3, made));
  EXPECT_EQ(three.out, expected);
  EXPECT_NE(three.err.find("model: synthetic, seed 3\n"), std::string::npos) << three.err;
  EXPECT_EQ(expect_good(infer(2, joined_args(made, {"--tensor", "2", "--expert", "2"}))).out,
            expected);
  EXPECT_NE(expect_good(infer(0, joined_args({"--synthetic", sample.config}, greedy))).out,
            expected);  // seed 0
}

TEST(SyntheticModel, IsPlannedAndReportedLikeTheFile) {
  const Sample sample({"--dtype", "q80", "--embedding-dtype", "f16"});
  const Args file = {"--model", sample.folder / "m.h5"};
  const Args dry = {"--dry-run", "--json", "--ranks", "2"};
  const Json planned = last_json(expect_good(infer(0, joined_args(sample.made, dry))));
  const Json expected = last_json(expect_good(infer(0, joined_args(file, dry))));
  EXPECT_EQ(planned["model_bytes"], expected["model_bytes"]);
  for (size_t r = 0; r < 2; ++r)
    EXPECT_EQ(planned["ranks"][r]["weight_bytes_by_kind"],
              expected["ranks"][r]["weight_bytes_by_kind"]);
  EXPECT_EQ(planned["model"]["synthetic_seed"], 3);
  const Json run = last_json(expect_good(
      infer(0, joined_args(sample.made, {"--tokens", "1,2", "--max-tokens", "1", "--json"}))));
  EXPECT_EQ(run["model"]["synthetic_seed"], 3);
  EXPECT_EQ(run["model_bytes"], expected["model_bytes"]);
  EXPECT_EQ(run["ranks"][0]["bytes_read"], 0);
}

}  // namespace
}  // namespace glm::testing_support
