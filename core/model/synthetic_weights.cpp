// A rank's share of a synthetic model, made where it lives. SPDX-License-Identifier: MIT
#include <chrono>

#include "core/model/synthetic.h"
#include "core/model/weight_planes.h"
#include "core/model/weights.h"
#include "kernels/ops.h"

namespace glm {

Weights::Weights(const ModelConfig& config,
                 const SyntheticModel& model,
                 const Placement& placement,
                 Device& device,
                 Ops& ops,
                 const LoadWork& work)
    : device_(device) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<TensorSpec> specs = tensor_specs(config, placement.mtp);
  const auto type_of = [&](const TensorSpec& spec) {
    return stored_type(spec, config, model.dtypes);
  };
  allocate(specs, hold(specs, config, placement, type_of));
  for (const TensorSpec& spec : specs) {
    const auto found = held_.find(spec.name);
    if (found == held_.end()) continue;
    if (work.between) work.between();
    const auto& [slab, weight] = found->second;
    RandomRows rows = synthetic_rows(spec, {weight.dtype, weight.packing}, model.seed);
    rows.first_matrix = slab.matrices.begin;
    rows.first_col = slab.cols.begin;
    int64_t local = 0;
    for (const Range& range : slab.rows) {
      rows.first_row = range.begin;
      ops.fill_random(weight, local, range.size(), rows);
      local += range.size();
    }
  }
  device.wait();
  load_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace glm
