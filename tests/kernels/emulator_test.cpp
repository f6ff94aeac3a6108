// The emulator itself: order, barriers, shuffles and matrix products are those of a warp, and what
// is wrong in a kernel shows. SPDX-License-Identifier: MIT
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.h"
#include "tests/kernels/backwards_queue.h"
#include "tests/kernels/op_support.h"

namespace glm::cuda_emulated {
namespace {

struct Args {
  std::vector<float>* out;
};

Stream backwards() {
  static testing::BackwardsAtOnce queue;
  return static_cast<emulator::Queue*>(&queue);
}

// Every thread reads what its neighbour wrote.
__global__ void turn_by_one(Args a) {
  float* shared = shared_as<float>();
  const unsigned n = blockDim.x;
  shared[threadIdx.x] = static_cast<float>(threadIdx.x);
  __syncthreads();
  (*a.out)[blockIdx.x * n + threadIdx.x] = shared[(threadIdx.x + 1) % n];
}

TEST(Emulator, BarriersSeparateWritesFromReads) {
  for (const Stream stream : {Stream{nullptr}, backwards()}) {
    std::vector<float> out(3 * 70);
    launch("turn", turn_by_one, {3}, 70, 70 * sizeof(float), stream, Args{&out});
    for (size_t i = 0; i < out.size(); ++i)
      EXPECT_EQ(out[i], static_cast<float>((i % 70 + 1) % 70)) << i;
  }
}

// The same without the barrier: the two orders see different things.
__global__ void turn_without_barrier(Args a) {
  float* shared = shared_as<float>();
  shared[threadIdx.x] = static_cast<float>(threadIdx.x);
  (*a.out)[threadIdx.x] = shared[(threadIdx.x + 1) % blockDim.x];
}

TEST(Emulator, AMissingBarrierShowsInOneOfTheOrders) {
  std::vector<float> ascending(64), descending(64);
  launch("turn", turn_without_barrier, {1}, 64, 256, nullptr, Args{&ascending});
  launch("turn", turn_without_barrier, {1}, 64, 256, backwards(), Args{&descending});
  EXPECT_TRUE(std::isnan(ascending[5]));  // shared memory nobody has written
  EXPECT_EQ(descending[5], 6.0f);
}

__global__ void half_of_the_threads_wait(Args) {
  if (threadIdx.x < 16) __syncthreads();
}

TEST(Emulator, ABarrierThatSomeNeverReachIsAnError) {
  try {
    launch("half", half_of_the_threads_wait, {1}, 32, 0, nullptr, Args{nullptr});
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("half: 16 of 32 threads"), std::string::npos)
        << error.what();
  }
}

__global__ void shuffles(Args a) {
  const int lane = lane_id();
  float* out = a.out->data() + 4 * threadIdx.x;
  out[0] = shuffle_down(static_cast<float>(lane), 3);
  out[1] = shuffle_xor(static_cast<float>(lane), 5);
  out[2] = shuffle_from(static_cast<float>(threadIdx.x), 7);
  out[3] = static_cast<float>(count_bits(ballot(lane % 3 == 0)));
}

TEST(Emulator, ShufflesMoveWithinAWarp) {
  std::vector<float> out(64 * 4);
  launch("shuffles", shuffles, {1}, 64, 0, nullptr, Args{&out});
  for (int i = 0; i < 64; ++i) {
    const int lane = i % 32;
    const float* own = out.data() + 4 * i;
    EXPECT_EQ(own[0], static_cast<float>(lane + 3 < 32 ? lane + 3 : lane));
    EXPECT_EQ(own[1], static_cast<float>(lane ^ 5));
    EXPECT_EQ(own[2], static_cast<float>(i / 32 * 32 + 7));
    EXPECT_EQ(own[3], 11.0f);
  }
}

// a[row][k] = row + k, b[k][column] = k - column, laid out as the manual says, c = 1000.
__global__ void mma_of_a_known_matrix(Args a) {
  const int row = lane_id() / 4;
  const int c = lane_id() % 4;
  uint32_t fragment[4] = {};
  uint32_t other[2] = {};
  for (int i = 0; i < 4; ++i) {
    for (int word = 0; word < 4; ++word) {
      const int value = row + word % 2 * 8 + 4 * c + word / 2 * 16 + i;
      fragment[word] |= static_cast<uint32_t>(value & 0xFF) << (8 * i);
    }
    for (int word = 0; word < 2; ++word)
      other[word] |= static_cast<uint32_t>((4 * c + 16 * word + i - row) & 0xFF) << (8 * i);
  }
  int32_t sums[4] = {1000, 1000, 1000, 1000};
  mma_s8(sums, fragment, other);
  for (int i = 0; i < 4; ++i)
    (*a.out)[static_cast<size_t>((row + i / 2 * 8) * 8 + 2 * c + i % 2)] =
        static_cast<float>(sums[i]);
}

TEST(Emulator, MatrixProductsFollowTheManual) {
  std::vector<float> out(16 * 8);
  launch("mma", mma_of_a_known_matrix, {1}, 32, 0, nullptr, Args{&out});
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      int sum = 1000;
      for (int k = 0; k < 32; ++k) sum += (row + k) * (k - column);
      EXPECT_EQ(out[static_cast<size_t>(row * 8 + column)], static_cast<float>(sum));
    }
  }
}

TEST(Emulator, LimitsOfADeviceHold) {
  EXPECT_THROW(launch("wide", shuffles, {1, 65536}, 32, 0, nullptr, Args{nullptr}), Error);
  EXPECT_THROW(launch("deep", shuffles, {1}, 32, 100 << 10, nullptr, Args{nullptr}), Error);
}

TEST(CudaScratch, PlannedBytesAreTakenBytesAndNoMore) {
  for (const int64_t context : {100, 3000, 1 << 20}) {
    const auto device = make_cpu_device();
    const OpsLimits limits{100, 2048, context, 12, 80};
    CudaOps ops(*device, limits, nullptr, "cuda emulated");
    const int64_t taken = device->allocated_bytes();
    EXPECT_EQ(taken, CudaScratchPlan(limits).total());
    const testing::Matrix matrix(DType::kQ40, Packing::kRows, 1, 21, 2048, 80);
    testing::Floats x(100, 2048, 81), out(100, 21), more(101, 2048), wide(101, 21);
    ops.linear(out.view(), x.view(), matrix.weight());
    EXPECT_EQ(device->allocated_bytes(), taken);
    EXPECT_THROW(ops.linear(wide.view(), more.view(), matrix.weight()), Error);
  }
  // One row of the longest context fits, whatever the bound on the rest.
  const int64_t row = int64_t{4} * 96 * ((1 << 20) / 256) * (2 + 128);
  EXPECT_GE(CudaScratchPlan({4096, 4096, 1 << 20, 96, 128}).partials, row);
}

}  // namespace
}  // namespace glm::cuda_emulated
