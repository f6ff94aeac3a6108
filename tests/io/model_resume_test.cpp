// Writers that are killed, and others that go on where they ended: the file is the one of a writer
// that was left alone, whatever the moment and whatever happened to the rest.
// SPDX-License-Identifier: MIT
#include <csignal>
#include <fstream>
#include <functional>

#include <gtest/gtest.h>
#include <sys/wait.h>

#include "io/sha256.h"
#include "tests/io/model_file_samples.h"
#include "tests/io/temp_folder.h"
#include "tests/support/instrumented.h"

namespace glm {
namespace {

namespace fs = std::filesystem;
using Plane = WeightReader::Plane;

constexpr int64_t kStep = 500'000;

// Writes what is missing, `before_write` is called ahead of every piece.
void write_rest(ModelWriter& writer, const std::function<void()>& before_write) {
  for (const auto& shape : sample_shapes())
    for (const bool scales : {false, true}) {
      const int64_t bytes = sample_plane_bytes(shape, scales);
      if (bytes == 0) continue;
      const Plane plane = scales ? Plane::kScales : Plane::kValues;
      const std::string data = sample_bytes(shape.name + (scales ? ".scales" : ""), bytes);
      int64_t at = 0;
      if (writer.resumed()) {
        // Anywhere up to the end of what is intact will do.
        at = writer.intact_bytes(shape.name, plane);
        at -= at == bytes ? 0 : std::min<int64_t>(at, 100);
        writer.skip(shape.name, plane, at);
      }
      for (; at < bytes; at += kStep) {
        before_write();
        writer.write(shape.name, plane, at, data.data() + at, std::min(kStep, bytes - at));
      }
    }
}

struct Start {
  bool resume = false;
  std::string stamp = "source of Tuesday";
  ModelTexts texts = sample_texts();
};

// Returns whether something was there.
bool write_model(
    const fs::path& path,
    const Start& start,
    const std::function<void()>& before_write = [] {},
    const std::function<void(int64_t, int64_t)>& hashed = {}) {
  ModelWriter writer(path,
                     "glm4_moe",
                     start.texts,
                     "0123456789abcdef",
                     sample_shapes(),
                     {start.resume, start.stamp});
  write_rest(writer, before_write);
  writer.finish(hashed);
  return writer.resumed();
}

// `body` in a process that kills itself.
void expect_killed(const std::function<void()>& body) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    try {
      body();
    } catch (...) {
      ::_exit(1);
    }
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
}

// Stops before write number `n`.
void kill_at_write(const fs::path& path, int n) {
  expect_killed([&] {
    int writes = 0;
    write_model(path, {}, [&] {
      if (writes++ == n) ::raise(SIGKILL);
    });
  });
}

class Resume : public testing::Test {
 protected:
  void SetUp() override {
    write_model(folder_ / "whole.h5", {}, [this] { ++writes_; });
    expected_ = read_bytes(folder_ / "whole.h5");
  }
  // Goes on, and looks at what came of it.
  void expect_same(bool resumed, const Start& start = {true}) {
    EXPECT_EQ(write_model(path_, start), resumed);
    EXPECT_TRUE(read_bytes(path_) == expected_);
    Sha256 hash;
    hash.update(expected_.data(), expected_.size());
    EXPECT_EQ(read_bytes(manifest_path(path_)), hash.hex() + "  m.h5\n");
    for (const auto& entry : fs::directory_iterator(folder_.path()))
      EXPECT_EQ(entry.path().string().find(".partial"), std::string::npos) << entry.path();
  }
  void damage(int64_t at, const std::string& bytes) const {
    std::fstream file(folder_ / "m.h5.partial", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(at);
    file << bytes;
  }

  TempFolder folder_{"model_resume"};
  fs::path path_ = folder_ / "m.h5";
  std::string expected_;
  int writes_ = 0;
};

TEST_F(Resume, AfterAKillAtAnyWrite) {
  ASSERT_GT(writes_, 15);
  for (int n = 0; n < writes_; n += testing_support::kInstrumented ? 4 : 1) {
    kill_at_write(path_, n);
    expect_same(true);
    fs::remove(path_);
  }
}

TEST_F(Resume, AfterAKillWhileItIsHashed) {
  expect_killed([&] {
    write_model(
        path_, {}, [] {}, [](int64_t, int64_t) { ::raise(SIGKILL); });
  });
  expect_same(true);
}

// What a kill between the two renames leaves.
TEST_F(Resume, BetweenTheRenames) {
  kill_at_write(path_, 3);
  write_bytes(folder_ / "m.h5.partial", expected_);
  write_bytes(folder_ / "m.h5.sha256", "the new one");
  expect_same(true);
}

TEST_F(Resume, OfMetadataThatWereBeingWritten) {
  for (const int64_t at : {0, 8, 11, 40, 300}) {
    kill_at_write(path_, 9);
    damage(at, std::string(200, '\xA5'));
    expect_same(true);
  }
}

TEST_F(Resume, WritesDamagedBlocksAgain) {
  const ModelIndex index = read_model_index(folder_ / "whole.h5");
  for (const char* name : {"norm", "big", "layers.0.mlp.gate_up"}) {
    kill_at_write(path_, writes_ - 1);
    damage(index.find(name)->values_offset + 7, "x");
    expect_same(true);
  }
}

TEST_F(Resume, NothingIsThere) { expect_same(false); }

TEST_F(Resume, ATruncatedFileIsBegunAnew) {
  kill_at_write(path_, 9);
  fs::resize_file(folder_ / "m.h5.partial", 1'000'000);
  expect_same(false);
}

TEST_F(Resume, AnotherSourceIsBegunAnew) {
  Start other{true};
  other.stamp = "source of Wednesday";
  kill_at_write(path_, 9);
  expect_same(false, other);
}

TEST_F(Resume, OtherTextsAreBegunAnew) {
  kill_at_write(path_, 9);
  Start other{true};
  other.texts.chat_template += "!";
  EXPECT_FALSE(write_model(path_, other));
  EXPECT_EQ(read_model_index(path_).texts.chat_template, other.texts.chat_template);
}

TEST_F(Resume, WithoutBeingAskedBeginsAnew) {
  kill_at_write(path_, 9);
  expect_same(false, {false});
}

TEST_F(Resume, AnErrorStillRemovesEverything) {
  kill_at_write(path_, 9);
  EXPECT_THROW(write_model(path_, {true}, [] { fail(ExitCode::kRuntime, "stop"); }), Error);
  for (const auto& entry : fs::directory_iterator(folder_.path()))
    EXPECT_EQ(entry.path().filename().string().find("m.h5"), std::string::npos) << entry.path();
}

TEST(Manifest, NamesThatNeedTheEscapedForm) {
  EXPECT_EQ(manifest_line("ab", "air.h5"), "ab  air.h5\n");
  EXPECT_EQ(manifest_line("ab", "a\\b\nc\r.h5"), "\\ab  a\\\\b\\nc\\r.h5\n");
  Sha256 hash;
  hash.update("ab", 2);
  hash.update("c", 1);
  EXPECT_EQ(hash.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace glm
