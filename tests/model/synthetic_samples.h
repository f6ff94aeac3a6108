// A file of glm_convert --synthetic, and the shares of ranks made without it: byte by byte the
// same. SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/model/convert.h"
#include "core/model/division.h"
#include "core/model/synthetic.h"
#include "core/model/weights.h"
#include "kernels/ops.h"
#include "tests/model/model_samples.h"

namespace glm {

class SyntheticCase {
 public:
  // mtp: the config announces an MTP layer.
  SyntheticCase(const std::string& golden, const DTypeChoice& dtypes, bool mtp = false)
      : folder_("synthetic"), model_{41, dtypes}, mtp_(mtp) {
    Json json = golden_config(golden);
    if (mtp) json["num_nextn_predict_layers"] = 1;
    config_ = parsed(json);
    write_bytes(folder_ / "config.json", json.dump());
    ConvertOptions options;
    options.dtypes = dtypes;
    options.seed = model_.seed;
    convert_synthetic(folder_ / "config.json", folder_ / "m.h5", options);
    index_ = read_model_index(folder_ / "m.h5");
  }

  // Makes each rank's share on `device`, where it may be no host memory.
  void expect_same(const GridShape& shape, Numerics numerics, Device& device, Ops& ops) const {
    const Division division = divide_model(config_, model_.dtypes, shape, {}, mtp_);
    for (int rank = 0; rank < shape.world(); ++rank) {
      const Placement placement = division.placement(rank, numerics);
      const auto host = make_cpu_device();
      const Weights read(config_, index_, placement, *host, true);
      const Weights made(config_, model_, placement, device, ops);
      EXPECT_EQ(made.bytes(), read.bytes());
      EXPECT_EQ(made.bytes_read(), 0);
      for (const TensorSpec& spec : tensor_specs(config_, mtp_)) {
        ASSERT_EQ(made.contains(spec.name), read.contains(spec.name)) << spec.name;
        if (!read.contains(spec.name)) continue;
        const Weight& expected = read.matrix(spec.name);
        const Weight& actual = made.matrix(spec.name);
        ASSERT_EQ(actual.dtype, expected.dtype);
        ASSERT_EQ(actual.packing, expected.packing);
        const std::string where =
            fmt::format("{}, grid {}, rank {}", spec.name, shape.text(), rank);
        expect_plane(device,
                     actual.values,
                     expected.values,
                     expected.n_matrices * expected.value_stride(),
                     where);
        expect_plane(device,
                     actual.scales,
                     expected.scales,
                     expected.n_matrices * expected.scale_stride(),
                     where);
      }
    }
  }

 private:
  static void expect_plane(Device& device,
                           const void* actual,
                           const void* expected,
                           int64_t n,
                           const std::string& where) {
    if (n == 0) return;
    std::vector<char> bytes(static_cast<size_t>(n));
    Tensor plane = host_tensor(const_cast<void*>(actual), DType::kU8, {n});
    plane.device = &device;
    device.copy(host_tensor(bytes.data(), DType::kU8, {n}), plane);
    device.wait();
    EXPECT_EQ(std::memcmp(bytes.data(), expected, static_cast<size_t>(n)), 0) << where;
  }

  TempFolder folder_;
  SyntheticModel model_;
  bool mtp_;
  ModelConfig config_;
  ModelIndex index_;
};

// Rows, heads, columns, experts and layers divided in all ways.
inline std::vector<GridShape> synthetic_grids(bool is_moe) {
  if (!is_moe) return {{1, 1, 1, 1}, {1, 1, 2, 1}, {1, 2, 2, 1}, {2, 3, 1, 1}};
  return {{1, 1, 1, 1}, {1, 1, 2, 1}, {1, 1, 2, 2}, {2, 1, 1, 2}, {1, 3, 1, 1}, {2, 1, 2, 4}};
}

}  // namespace glm
