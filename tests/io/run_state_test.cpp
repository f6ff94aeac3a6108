// States of batches: what comes back, and that nothing but a whole file is taken.
// SPDX-License-Identifier: MIT
#include "io/run_state.h"

#include <filesystem>
#include <functional>
#include <limits>

#include <gtest/gtest.h>

#include "core/base/check.h"
#include "io/json.h"
#include "tests/io/temp_folder.h"

namespace glm {
namespace {

namespace fs = std::filesystem;

RunState sample_state() {
  RunState state;
  state.model = "file 0123";
  state.settings = "reproducible numerics";
  state.requests = {7, 0, ~uint64_t{0}, 4, 5};
  state.output = {1, 90, 0xDEADBEEF};
  state.answers = {{2, "{\"id\":\"c\"}"}, {4, ""}};
  state.sequences = {{1, 42, {3, 1, 4}, 9, {9, 2}, {0.75, 0.25}}, {3, 0, {}, -1, {}, {}}};
  return state;
}

void expect_same(const RunState& a, const RunState& b) {
  EXPECT_EQ(a.model, b.model);
  EXPECT_EQ(a.settings, b.settings);
  EXPECT_EQ(a.requests, b.requests);
  EXPECT_EQ(a.finished, b.finished);
  EXPECT_EQ(a.output.lines, b.output.lines);
  EXPECT_EQ(a.output.bytes, b.output.bytes);
  EXPECT_EQ(a.output.checksum, b.output.checksum);
  ASSERT_EQ(a.answers.size(), b.answers.size());
  for (size_t i = 0; i < a.answers.size(); ++i) {
    EXPECT_EQ(a.answers[i].request, b.answers[i].request);
    EXPECT_EQ(a.answers[i].line, b.answers[i].line);
  }
  ASSERT_EQ(a.sequences.size(), b.sequences.size());
  for (size_t i = 0; i < a.sequences.size(); ++i) {
    EXPECT_EQ(a.sequences[i].request, b.sequences[i].request);
    EXPECT_EQ(a.sequences[i].seed, b.sequences[i].seed);
    EXPECT_EQ(a.sequences[i].tokens, b.sequences[i].tokens);
    EXPECT_EQ(a.sequences[i].draft, b.sequences[i].draft);
    EXPECT_EQ(a.sequences[i].guess_tokens, b.sequences[i].guess_tokens);
    EXPECT_EQ(a.sequences[i].guess_probabilities, b.sequences[i].guess_probabilities);
  }
}

std::string state_refusal(const fs::path& path) {
  try {
    read_run_state(path);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kModelFile) << error.what();
    return error.what();
  }
  return {};
}

TEST(RunState, ComesBackAsItWas) {
  const TempFolder folder("run_state");
  const fs::path path = folder / "s.h5";
  RunState state = sample_state();
  for (const bool finished : {false, true}) {
    state.finished = finished;
    write_run_state(path, state);
    expect_same(read_run_state(path), state);
    EXPECT_FALSE(fs::exists(folder / "s.h5.partial"));
  }
  state = {};
  state.requests = {1};
  write_run_state(path, state);
  expect_same(read_run_state(path), state);
}

TEST(RunState, TheSameStateGivesTheSameBytes) {
  const TempFolder folder("run_state_bytes");
  const auto bytes = [&](const char* name) {
    write_run_state(folder / name, sample_state());
    return read_file(folder / name, 1 << 20, ExitCode::kRuntime);
  };
  EXPECT_EQ(bytes("a"), bytes("b"));
}

TEST(RunState, RefusesEveryBeginningOfAFile) {
  const TempFolder folder("run_state_short");
  const fs::path path = folder / "s.h5";
  write_run_state(path, sample_state());
  const std::string whole = read_file(path, 1 << 20, ExitCode::kRuntime);
  for (size_t n = 0; n < whole.size(); n += 1 + n / 40) {
    write_bytes(path, whole.substr(0, n));
    EXPECT_NE(state_refusal(path), "") << n << " bytes";
  }
  write_bytes(path, whole + "x");
  EXPECT_NE(state_refusal(path), "");
}

// A changed byte is noticed, or it is one of the few that say nothing (padding between structures).
TEST(RunState, NeverTakesOtherNumbers) {
  const TempFolder folder("run_state_bits");
  const fs::path path = folder / "s.h5";
  const RunState state = sample_state();
  write_run_state(path, state);
  const std::string whole = read_file(path, 1 << 20, ExitCode::kRuntime);
  int refused = 0;
  for (size_t at = 0; at < whole.size(); at += 7) {
    std::string bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ 0x21);
    write_bytes(path, bytes);
    if (state_refusal(path).empty())
      expect_same(read_run_state(path), state);
    else
      ++refused;
  }
  EXPECT_GT(refused, 50);
}

// With the right checksum, but numbers that do not fit each other.
TEST(RunState, RefusesWhatContradictsItself) {
  const TempFolder folder("run_state_wrong");
  const fs::path path = folder / "s.h5";
  const auto expect_refused = [&](const char* what, const std::function<void(RunState&)>& damage) {
    RunState state = sample_state();
    damage(state);
    write_run_state(path, state);
    EXPECT_NE(state_refusal(path).find("contradicts itself"), std::string::npos) << what;
  };
  expect_refused("more lines than requests", [](RunState& s) { s.output.lines = 6; });
  expect_refused("no such request", [](RunState& s) { s.sequences[0].request = 5; });
  expect_refused("below the first", [](RunState& s) { s.answers[0].request = -1; });
  expect_refused("answered and under way", [](RunState& s) { s.sequences[0].request = 2; });
  expect_refused("twice under way", [](RunState& s) { s.sequences[1].request = 1; });
  expect_refused("two lines", [](RunState& s) { s.answers[0].line = "{}\n{}"; });
  expect_refused("negative id", [](RunState& s) { s.sequences[0].tokens[1] = -2; });
  expect_refused("draft", [](RunState& s) { s.sequences[0].draft = -2; });
  expect_refused("a draft from nothing", [](RunState& s) { s.sequences[1].draft = 3; });
  expect_refused("no number", [](RunState& s) {
    s.sequences[0].guess_probabilities[0] = std::numeric_limits<double>::quiet_NaN();
  });
  expect_refused("no probability",
                 [](RunState& s) { s.sequences[0].guess_probabilities[0] = 1.5; });
}

TEST(RunState, RefusesForeignFiles) {
  const TempFolder folder("run_state_foreign");
  EXPECT_NE(state_refusal(folder / "absent"), "");
  write_bytes(folder / "text", "{\"id\": 1}\n");
  EXPECT_NE(state_refusal(folder / "text").find("not an HDF5 file"), std::string::npos);
  fs::create_directory(folder / "folder");
  EXPECT_NE(state_refusal(folder / "folder"), "");
}

TEST(RunState, AFailedWriteLeavesTheOldOne) {
  const TempFolder folder("run_state_old");
  const fs::path path = folder / "s.h5";
  write_run_state(path, sample_state());
  fs::create_directory(folder / "s.h5.partial");
  RunState other = sample_state();
  other.model = "another";
  EXPECT_THROW(write_run_state(path, other), Error);
  expect_same(read_run_state(path), sample_state());
  EXPECT_THROW(write_run_state(folder / "no" / "s.h5", other), Error);
}

}  // namespace
}  // namespace glm
