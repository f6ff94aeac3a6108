// The checked backend passes what is right and names what is not. SPDX-License-Identifier: MIT
#include "kernels/checked_ops.h"

#include <cmath>

#include "kernels/ref/ref_ops.h"
#include "tests/kernels/op_support.h"

namespace glm::testing {
namespace {

std::unique_ptr<Ops> checked(Device& device) {
  return make_ops(OpsKind::kChecked, device, 2, test_limits());
}

// The message of the Error(kNumerical) that `run` throws; empty if it throws nothing.
template <class Run>
std::string complaint(Run run) {
  try {
    run();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kNumerical);
    return error.what();
  }
  return "";
}

TEST(CheckedOps, RightResultsPass) {
  const auto device = make_cpu_device();
  const auto ops = checked(*device);
  const Matrix matrix(DType::kQ40, Packing::kTile16, 1, 32, 64, 91);
  Floats x(3, 64, 92), out(3, 32), weight(1, 64, 93);
  ops->rms_norm(x.view(), x.view(), weight.vector(), 1e-5f);  // in place
  ops->linear(out.view(), x.view(), matrix.weight());
  Floats half(3, 16);
  ops->gate_up(half.view(), x.view(), matrix.weight());
  ops->add(x.view(), x.view());
  Floats weights(1, 8, 94);
  ops->head_norm(x.view(), 1, 5, 8, weights.vector(), 1e-5f);
}

TEST(CheckedOps, WeightsThatAreNotFiniteAreNamed) {
  const auto device = make_cpu_device();
  const auto ops = checked(*device);
  std::vector<float> values = random_values(16 * 64, 95);
  values[5 * 64 + 3] = HUGE_VALF;
  const Matrix matrix(DType::kF32, Packing::kRows, 1, 16, 64, values);
  Floats x(2, 64, 96), out(2, 16);
  const std::string text = complaint([&] { ops->linear(out.view(), x.view(), matrix.weight()); });
  EXPECT_NE(text.find("linear: element [0, 5]"), std::string::npos) << text;
}

// A backend that is wrong in one element of one operation: the reference on other inputs.
class WrongCache {
 public:
  WrongCache() : device_(make_cpu_device()), ops_(checked(*device_)) {}
  std::unique_ptr<Device> device_;
  std::unique_ptr<Ops> ops_;
};

TEST(CheckedOps, StoreKvKeepsTheOtherPages) {
  const WrongCache setup;
  const HeadLayout heads{1, 1, 8, 1, 0};
  Cache cache(KvDType::kQ8, 1, 8, 64);
  Floats qkv(3, heads.row_width(), 97);
  Ints slots({5, 47, 6}, 1);
  setup.ops_->store_kv(cache.layer, qkv.view(), slots.vector(), heads);
  const auto bytes = static_cast<size_t>(KvLayer::page_bytes(KvDType::kQ8, 1, 8));
  for (const size_t page : {size_t{1}, size_t{3}})
    for (size_t i = 0; i < bytes; ++i) ASSERT_EQ(cache.keys[page * bytes + i], 0xFF);
}

TEST(Compare, NamesTheFirstAndTheWorst) {
  Floats expected(1, 4, 98);
  Floats actual = expected;
  actual.data[1] += 3e-3f;
  actual.data[3] += 9e-3f;
  const Deviation deviation = compare(actual.view(), expected.view(), Tolerances(4, 1e-3));
  EXPECT_TRUE(deviation.found);
  EXPECT_EQ(deviation.index, 1);
  EXPECT_NEAR(deviation.share, 3, 0.01);
  EXPECT_NEAR(deviation.worst_share, 9, 0.01);
  EXPECT_FALSE(compare(expected.view(), expected.view(), Tolerances(4, 0.0)).found);
  actual.data[0] = NAN;
  EXPECT_EQ(compare(actual.view(), expected.view(), Tolerances(4, 1e9)).index, 0);
}

}  // namespace
}  // namespace glm::testing
