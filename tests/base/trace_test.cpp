// Totals by name, sums by prefix, scopes. SPDX-License-Identifier: MIT
#include "core/base/trace.h"

#include <gtest/gtest.h>

namespace glm {
namespace {

TEST(Trace, AddsUpByName) {
  Trace trace;
  trace.add("op.linear", 0.5, {.bytes = 100, .flops = 10});
  trace.add("op.linear", 0.25, {.bytes = 50, .flops = 5});
  trace.add("comm.send", 1.0, {});
  ASSERT_EQ(trace.totals().size(), 2u);
  const SpanTotal& linear = trace.totals().find("op.linear")->second;
  EXPECT_EQ(linear.calls, 2);
  EXPECT_EQ(linear.seconds, 0.75);
  EXPECT_EQ(linear.work.bytes, 150);
  EXPECT_EQ(linear.work.flops, 15);
}

TEST(Trace, SumsByPrefix) {
  Trace trace;
  trace.add("comm", 32, {});
  trace.add("comm.", 16, {});
  trace.add("comm.send", 1, {});
  trace.add("comm.wait", 2, {});
  trace.add("comn", 4, {});
  trace.add("op.x", 8, {});
  EXPECT_EQ(trace.seconds_of("comm."), 19);
  EXPECT_EQ(trace.seconds_of("op."), 8);
  EXPECT_EQ(trace.seconds_of(""), 63);
  EXPECT_EQ(trace.seconds_of("none"), 0);
  trace.clear();
  EXPECT_EQ(trace.seconds_of(""), 0);
}

TEST(Trace, ASpanTimesItsScope) {
  Trace trace;
  const auto start = Trace::Clock::now();
  {
    const Span span(&trace, "scope", {.bytes = 3, .flops = 4});
    EXPECT_TRUE(trace.totals().empty());
    while (Trace::Clock::now() - start < std::chrono::milliseconds(2)) {
    }
  }
  const double seconds = std::chrono::duration<double>(Trace::Clock::now() - start).count();
  const SpanTotal& total = trace.totals().at("scope");
  EXPECT_EQ(total.calls, 1);
  EXPECT_GT(total.seconds, 0.001);
  EXPECT_LE(total.seconds, seconds);
  EXPECT_EQ(total.work.bytes, 3);
  const Span unused(nullptr, "scope");
  EXPECT_EQ(trace.totals().at("scope").calls, 1);
}

}  // namespace
}  // namespace glm
