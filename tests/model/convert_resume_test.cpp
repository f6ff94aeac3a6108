// Conversions that are killed between any two batches, and resumed with other threads and limits.
// SPDX-License-Identifier: MIT
#include <csignal>

#include <sys/wait.h>
#include <unistd.h>

#include "core/model/convert.h"
#include "io/model_file.h"
#include "io/model_verify.h"
#include "tests/model/model_samples.h"
#include "tests/support/instrumented.h"

namespace glm {
namespace {

namespace fs = std::filesystem;

ConvertOptions small_batches(DType body) {
  ConvertOptions options;
  options.dtypes = default_dtypes(body);
  options.threads = 2;
  options.batch_bytes = 100'000;
  return options;
}

// Kills itself at call `n` of the progress; returns whether there was one.
bool killed_at(const fs::path& in, const fs::path& out, ConvertOptions options, int n) {
  int calls = 0;
  options.progress = [&](const ConvertProgress&) {
    if (calls++ == n) ::raise(SIGKILL);
  };
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      convert_checkpoint(in, out, options);
    } catch (...) {
      ::_exit(1);
    }
    ::_exit(0);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFSIGNALED(status);
}

class ConvertResume : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_ / "out"); }
  TempFolder folder_{"convert_resume"};
  fs::path tiny_ = fs::path(GLM_TEST_DATA) / "tiny";
  fs::path out_ = folder_ / "out" / "m.h5";
};

TEST_F(ConvertResume, AfterAKillAtAnyBatch) {
  for (const DType body : {DType::kQ40, DType::kF32}) {
    if (testing_support::kInstrumented && body == DType::kF32) continue;
    ConvertOptions options = small_batches(body);
    convert_checkpoint(tiny_, folder_ / "whole.h5", options);
    const std::string expected = read_bytes(folder_ / "whole.h5");
    int kills = 0;
    for (int n = 0; killed_at(tiny_, out_, options, n);
         n += testing_support::kInstrumented ? 6 + n : 4 + n) {
      ++kills;
      ConvertOptions other = options;
      other.resume = true;
      other.threads = 1 + n % 3;
      other.batch_bytes = 170'000;
      const ConvertReport report = convert_checkpoint(tiny_, out_, other);
      EXPECT_TRUE(report.warnings.empty()) << report.warnings[0];
      EXPECT_LE(report.resumed_bytes, report.bytes);
      EXPECT_TRUE(n <= 20 || report.resumed_bytes > 0) << n;
      ASSERT_TRUE(read_bytes(out_) == expected) << "killed at " << n;
      fs::remove(out_);
    }
    EXPECT_GE(kills, testing_support::kInstrumented ? 3 : 5);
    fs::remove(out_);
  }
}

TEST_F(ConvertResume, AChangedSourceBeginsAnew) {
  SampleCheckpoint sample("llama");
  sample.write(folder_ / "in");
  const ConvertOptions options = small_batches(DType::kQ40);
  ASSERT_TRUE(killed_at(folder_ / "in", out_, options, 10));
  // The same names, shapes and sizes; other values.
  for (char& byte : sample.tensors.begin()->second.bytes) byte = 0;
  sample.write(folder_ / "in");
  ConvertOptions resume = options;
  resume.resume = true;
  const ConvertReport report = convert_checkpoint(folder_ / "in", out_, resume);
  EXPECT_EQ(report.resumed_bytes, 0);
  ASSERT_FALSE(report.warnings.empty());
  EXPECT_NE(report.warnings.back().find("--resume"), std::string::npos);
  convert_checkpoint(folder_ / "in", folder_ / "whole.h5", options);
  EXPECT_TRUE(read_bytes(out_) == read_bytes(folder_ / "whole.h5"));
}

TEST_F(ConvertResume, OtherTypesBeginAnew) {
  ASSERT_TRUE(killed_at(tiny_, out_, small_batches(DType::kQ40), 20));
  ConvertOptions resume = small_batches(DType::kQ80);
  resume.resume = true;
  EXPECT_EQ(convert_checkpoint(tiny_, out_, resume).resumed_bytes, 0);
}

TEST(Verify, WholeAndDamagedFiles) {
  const TempFolder folder("verify");
  const fs::path out = folder / "m.h5";
  const ConvertReport written =
      convert_checkpoint(golden_folder("glm4_moe_air"), out, small_batches(DType::kQ40));
  VerifyReport report = verify_model_file(out, 2);
  EXPECT_TRUE(report.manifest);
  EXPECT_EQ(report.weight_bytes, written.bytes);
  EXPECT_EQ(report.file_bytes, static_cast<int64_t>(fs::file_size(out)));
  EXPECT_EQ(report.tensors, written.tensors);
  const std::string good = read_bytes(out);
  const ModelIndex index = read_model_index(out);
  for (const char* name : {"embedding", "layers.1.experts.down", "final_norm"}) {
    const TensorEntry& entry = *index.find(name);
    for (const int64_t at : {entry.values_offset, entry.scales_offset + entry.scales_bytes - 1}) {
      if (at < 0) continue;
      std::string bad = good;
      bad[static_cast<size_t>(at)] = static_cast<char>(bad[static_cast<size_t>(at)] ^ 1);
      write_bytes(out, bad);
      expect_error([&] { verify_model_file(out, 2); }, ExitCode::kModelFile, {"m.h5", name});
    }
  }
  // Bytes between the planes are in no block: the manifest tells.
  std::string bad = good;
  const auto pad = static_cast<size_t>(index.find("embedding")->values_offset) - 1;
  ASSERT_EQ(bad[pad], '\0');
  bad[pad] = 'x';
  write_bytes(out, bad);
  expect_error([&] { verify_model_file(out, 2); }, ExitCode::kModelFile, {"m.h5", "sha256"});
  fs::remove(folder / "m.h5.sha256");
  EXPECT_FALSE(verify_model_file(out, 1).manifest);
  write_bytes(folder / "m.h5.sha256", "no digest\n");
  expect_error(
      [&] { verify_model_file(out, 1); }, ExitCode::kModelFile, {"m.h5.sha256", "not a manifest"});
  expect_error([&] { verify_model_file(folder / "none.h5", 1); }, ExitCode::kUsage, {"none.h5"});
  write_bytes(out, good);
  expect_error(
      [&] {
        verify_model_file(out, 2, [](int64_t, int64_t) { fail(ExitCode::kRuntime, "stop"); });
      },
      ExitCode::kModelFile,
      {"manifest"});
  fs::remove(folder / "m.h5.sha256");
  expect_error(
      [&] {
        verify_model_file(out, 2, [](int64_t, int64_t) { fail(ExitCode::kRuntime, "stop"); });
      },
      ExitCode::kRuntime,
      {"stop"});
}

}  // namespace
}  // namespace glm
