// The conformance cases on a group of one and on 1 to 8 ranks that are threads, and how groups of
// threads fail. SPDX-License-Identifier: MIT
#include <atomic>
#include <chrono>
#include <thread>

#include <gtest/gtest.h>

#include "tests/parallel/conformance.h"
#include "tests/support/instrumented.h"

namespace glm {
namespace {

using ThreadParam = std::tuple<int, size_t>;

class ThreadConformance : public testing::TestWithParam<ThreadParam> {};

TEST_P(ThreadConformance, Holds) {
  const auto [ranks, index] = GetParam();
  CommOptions options;
  options.timeout_seconds = 60;
  run_thread_ranks(ranks, options, conformance_cases()[index].body);
}

std::string thread_case_name(const testing::TestParamInfo<ThreadParam>& info) {
  return std::string(conformance_cases()[std::get<1>(info.param)].name) + "On" +
         std::to_string(std::get<0>(info.param));
}

std::vector<int> group_sizes() {
  if (testing_support::kInstrumented) return {1, 2, 3, 6};
  return {1, 2, 3, 4, 5, 6, 7, 8};
}

INSTANTIATE_TEST_SUITE_P(Ranks,
                         ThreadConformance,
                         testing::Combine(testing::ValuesIn(group_sizes()),
                                          testing::Range<size_t>(0, conformance_cases().size())),
                         thread_case_name);

class SelfConformance : public testing::TestWithParam<size_t> {};

TEST_P(SelfConformance, Holds) {
  const auto self = make_self_communicator({});
  conformance_cases()[GetParam()].body(*self);
}

INSTANTIATE_TEST_SUITE_P(Cases,
                         SelfConformance,
                         testing::Range<size_t>(0, conformance_cases().size()));

// The message of the error that `body` ends with on n threads; fails when there is none.
std::string error_of(int n,
                     double timeout,
                     const StepContext* context,
                     const std::function<void(Communicator&)>& body,
                     ExitCode code = ExitCode::kCommunication) {
  CommOptions options;
  options.timeout_seconds = timeout;
  options.context = context;
  try {
    run_thread_ranks(n, options, body);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

TEST(ThreadFailure, DeadlineNamesOperationGroupLayerStepAndPeer) {
  const StepContext context{"decode", 12, 17, "attention"};
  std::atomic<int> done{0};
  const std::string text = error_of(3, 0.5, &context, [&](Communicator& world) {
    float x = 1;
    const auto group = world.split(0, world.rank(), "tensor");
    // Rank 1 waits for a rank that has gone home.
    if (world.rank() == 1) group->recv(host_tensor(&x, DType::kF32, {1}), 2);
    done += 1;
  });
  EXPECT_EQ(text,
            "rank 1 waited 0.5 s in recv of group tensor, layer 17 (attention), decode step 12, "
            "seq 1; waiting for rank 2");
  EXPECT_EQ(done, 2);
}

TEST(ThreadFailure, DeadlineOfASendNamesTheReceiver) {
  const std::string text = error_of(2, 0.2, nullptr, [](Communicator& world) {
    float x = 1;
    if (world.rank() == 0) world.send(host_tensor(&x, DType::kF32, {1}), 1);
  });
  EXPECT_EQ(text,
            "rank 0 waited 0.2 s in send of group world, seq 1; waiting for rank 1 to receive");
}

TEST(ThreadFailure, AllMissingPeersAreNamed) {
  const std::string text = error_of(4, 0.2, nullptr, [](Communicator& world) {
    std::vector<float> x(4);
    const std::vector<int64_t> rows(4, 1);
    if (world.rank() == 1)
      world.all_gather(
          host_tensor(x.data(), DType::kF32, {4}), host_tensor(x.data(), DType::kF32, {1}), rows);
  });
  EXPECT_NE(text.find("waiting for rank 0, rank 2, rank 3"), std::string::npos) << text;
}

TEST(ThreadFailure, CollectivesOfDifferentSizesAreFound) {
  const std::string text = error_of(2, 5, nullptr, [](Communicator& world) {
    std::vector<float> x(5);
    world.all_reduce_sum(host_tensor(x.data(), DType::kF32, {4 + world.rank()}));
  });
  EXPECT_NE(text.find("the ranks disagree in all_reduce of group world, seq 1"), std::string::npos)
      << text;
}

TEST(ThreadFailure, DifferentCollectivesEndAtTheDeadline) {
  const auto start = std::chrono::steady_clock::now();
  const std::string text = error_of(3, 0.5, nullptr, [](Communicator& world) {
    float x = 1;
    if (world.rank() == 0)
      world.recv(host_tensor(&x, DType::kF32, {1}), 1);
    else
      world.recv(host_tensor(&x, DType::kF32, {1}), 0);
  });
  EXPECT_NE(text.find("waited 0.5 s in recv of group world"), std::string::npos) << text;
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(3));
}

TEST(ThreadFailure, AnErrorOfOneRankReleasesTheOthersAndIsTheOneThrown) {
  const auto start = std::chrono::steady_clock::now();
  const std::string text = error_of(
      5,
      300,
      nullptr,
      [](Communicator& world) {
        world.barrier();
        if (world.rank() == 3) fail(ExitCode::kModelFile, "the file of rank 3 is broken");
        for (;;) world.barrier();
      },
      ExitCode::kModelFile);
  EXPECT_EQ(text, "the file of rank 3 is broken");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(3));
}

TEST(ThreadFailure, ExceptionsOfOtherTypesComeThrough) {
  EXPECT_THROW(run_thread_ranks(2,
                                {},
                                [](Communicator& world) {
                                  if (world.rank() == 1) throw std::bad_alloc();
                                  world.barrier();
                                }),
               std::bad_alloc);
}

TEST(ThreadFailure, SlowProgressIsNoDeadline) {
  CommOptions options;
  options.timeout_seconds = 0.6;
  run_thread_ranks(3, options, [](Communicator& world) {
    // The whole takes longer than the deadline, each wait does not.
    for (int i = 0; i < 6; ++i) {
      if (world.rank() == i % 3) std::this_thread::sleep_for(std::chrono::milliseconds(200));
      world.barrier();
    }
  });
}

TEST(ThreadTrace, VerbsAreSpans) {
  Trace trace;
  CommOptions options;
  options.trace = &trace;
  const auto self = make_self_communicator(options);
  self->barrier();
  self->barrier();
  ASSERT_EQ(trace.totals().count("comm.barrier"), 1u);
  EXPECT_EQ(trace.totals().find("comm.barrier")->second.calls, 2);
}

}  // namespace
}  // namespace glm
