// Lines of progress: figures, and how often they come. SPDX-License-Identifier: MIT
#include "apps/progress.h"

#include <gtest/gtest.h>

namespace glm {
namespace {

using std::chrono::milliseconds;

TEST(Progress, Durations) {
  EXPECT_EQ(duration_text(0.0), "0 s");
  EXPECT_EQ(duration_text(59.4), "59 s");
  EXPECT_EQ(duration_text(59.6), "1 min 00 s");
  EXPECT_EQ(duration_text(725.0), "12 min 05 s");
  EXPECT_EQ(duration_text(11220.0), "3 h 07 min");
  EXPECT_EQ(duration_text(-1.0), "0 s");
  EXPECT_EQ(duration_text(1e300), "1000 h 00 min");
}

TEST(Progress, FiguresOfThisRun) {
  EXPECT_EQ(progress_text({250'000'000, 0, 1'000'000'000}, 2.0),
            " 25.0 % of 1.00 GB, 125 MB/s, 6 s left");
  // What was there before counts for the share and not for the rate.
  EXPECT_EQ(progress_text({60'000'000, 50'000'000, 100'000'000}, 2.0),
            " 60.0 % of 100.0 MB, 5 MB/s, 8 s left");
  EXPECT_EQ(progress_text({50'000'000, 50'000'000, 100'000'000}, 2.0), " 50.0 % of 100.0 MB");
  EXPECT_EQ(progress_text({0, 0, 0}, 0.0), "  0.0 % of 0.0 MB");
}

TEST(Progress, OneLineEveryFewSeconds) {
  ProgressLine line("glm_x", false);
  const auto start = ProgressLine::Clock::now();
  line.restart(start);
  int lines = 0;
  for (int ms = 0; ms <= 60'000; ms += 50) {
    const std::string text = line.line({ms, 0, 60'000}, "tensor", start + milliseconds(ms));
    if (text.empty()) continue;
    ++lines;
    EXPECT_TRUE(text.starts_with("glm_x: ") && text.ends_with(" left, tensor\n")) << text;
    EXPECT_EQ(text.find('\r'), std::string::npos);
  }
  EXPECT_GE(lines, 10);
  EXPECT_LE(lines, 12);
}

TEST(Progress, ATerminalIsDrawnAnew) {
  ProgressLine line("glm_x", true);
  const auto start = ProgressLine::Clock::now();
  line.restart(start);
  EXPECT_EQ(line.line({1, 0, 100}, "t", start + milliseconds(1)), "");
  const std::string text = line.line({50, 0, 100}, "t", start + milliseconds(2000));
  EXPECT_TRUE(text.starts_with("\r[############............] glm_x:  50.0 %")) << text;
  EXPECT_EQ(text.find('\n'), std::string::npos);
  EXPECT_NE(text.find("2 s left"), std::string::npos) << text;
  EXPECT_EQ(line.line({51, 0, 100}, "t", start + milliseconds(2050)), "");
  EXPECT_NE(line.line({100, 0, 100}, "t", start + milliseconds(2100)), "");
  line.finish();
}

}  // namespace
}  // namespace glm
