// The file of a run record: under its name only when complete, nothing left of what was not
// finished, one clear error where it cannot be. What is in it is read by tests/studies.
// SPDX-License-Identifier: MIT
#include "io/run_record.h"

#include <gtest/gtest.h>

#include "core/base/check.h"
#include "tests/io/temp_folder.h"

namespace glm::testing_support {
namespace {

TEST(RunRecordFile, AppearsWhenFinished) {
  const TempFolder folder("run_record");
  const std::filesystem::path path = folder.path() / "run.h5";
  RunRecordFile file(path);
  file.text("manifest", "{}");
  file.text("empty", "");
  file.texts("ranks/host", {"a", "", "long name"});
  file.texts("ranks/none", {});
  const std::vector<int64_t> integers(40000, 7);
  file.integers("passes/step", integers, {20000, 2});
  file.numbers("passes/seconds", {}, {0});
  EXPECT_FALSE(std::filesystem::exists(path));
  file.finish();
  EXPECT_TRUE(std::filesystem::exists(path));
  EXPECT_LT(std::filesystem::file_size(path), 40000u);  // tables are compressed
}

TEST(RunRecordFile, LeavesNothingUnfinished) {
  const TempFolder folder("run_record");
  {
    RunRecordFile file(folder.path() / "run.h5");
    file.text("manifest", "{}");
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(RunRecordFile, RefusesWhatCannotBeWritten) {
  const TempFolder folder("run_record");
  try {
    RunRecordFile file(folder.path() / "missing" / "run.h5");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_NE(std::string(error.what()).find("cannot be written"), std::string::npos);
  }
  RunRecordFile file(folder.path() / "run.h5");
  const std::vector<double> three(3);
  EXPECT_THROW(file.numbers("table", three, {2}), Error);
  file.numbers("table", three, {3});
  EXPECT_THROW(file.numbers("table", three, {3}), Error);  // a name is written once
}

}  // namespace
}  // namespace glm::testing_support
