// The checked backend passes what is right and names what is not. SPDX-License-Identifier: MIT
#include "kernels/checked_ops.h"

#include <cmath>
#include <utility>

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

// Wrong in one element of every product, sum and route, and in one byte of the cache.
class Wrong final : public RefOps {
  void do_linear(Tensor out, Tensor x, const Weight& w, Tensor bias) override {
    reference_->linear(out, x, w, bias);
    out.f32()[out.cols() + 2] += 1e-3f;
  }
  void do_add(Tensor x, Tensor y) override {
    reference_->add(x, y);
    x.f32()[4] = std::nextafter(x.f32()[4], 9.0f);
  }
  void do_store_kv(const KvLayer& cache,
                   Tensor qkv,
                   Tensor slots,
                   const HeadLayout& heads) override {
    reference_->store_kv(cache, qkv, slots, heads);
    static_cast<uint8_t*>(cache.values)[0] ^= 1;
  }
  void do_route(Tensor experts,
                Tensor weights,
                Tensor logits,
                Tensor bias,
                const RouterConfig& config) override {
    reference_->route(experts, weights, logits, bias, config);
    std::swap(experts.i32()[0], experts.i32()[1]);
  }
  std::unique_ptr<Ops> reference_ = std::make_unique<RefOps>();
};

TEST(CheckedOps, WrongResultsAreNamed) {
  CheckedOps ops(std::make_unique<Wrong>(), std::make_unique<RefOps>());
  const Matrix matrix(DType::kQ80, Packing::kTile16, 1, 16, 64, 99);
  Floats x(2, 64, 100), out(2, 16), y(2, 64, 101);
  std::string text = complaint([&] { ops.linear(out.view(), x.view(), matrix.weight()); });
  EXPECT_NE(text.find("linear: element [1, 2] of [2, 16]"), std::string::npos) << text;
  EXPECT_NE(text.find("times the tolerance"), std::string::npos) << text;
  text = complaint([&] { ops.add(x.view(), y.view()); });
  EXPECT_NE(text.find("add: element [0, 4]"), std::string::npos) << text;

  const HeadLayout heads{1, 1, 8, 1, 0};
  Cache cache(KvDType::kF16, 1, 8, 16);
  Floats qkv(1, heads.row_width(), 102);
  Ints slots({0}, 1);
  text = complaint([&] { ops.store_kv(cache.layer, qkv.view(), slots.vector(), heads); });
  EXPECT_NE(text.find("store_kv: page 0"), std::string::npos) << text;

  Floats logits(1, 4, 103), weights(1, 2);
  Ints experts({0, 0}, 2);
  const RouterConfig config{RouterKind::kSoftmax, 4, 2, 1, 1, true, 1.0f};
  text = complaint([&] { ops.route(experts.view(), weights.view(), logits.view(), {}, config); });
  EXPECT_NE(text.find("route: element"), std::string::npos) << text;
}

TEST(CheckedOps, StoreKvKeepsTheOtherPages) {
  const auto device = make_cpu_device();
  const auto ops = checked(*device);
  const HeadLayout heads{1, 1, 8, 1, 0};
  Cache cache(KvDType::kQ8, 1, 8, 64);
  Floats qkv(3, heads.row_width(), 97);
  Ints slots({5, 47, 6}, 1);
  ops->store_kv(cache.layer, qkv.view(), slots.vector(), heads);
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
