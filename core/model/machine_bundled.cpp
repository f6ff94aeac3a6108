// Machine descriptions that come with glm_plan. Peaks are those of the makers' data sheets; shares
// reached, launches and latencies are assumed from published measurements of other programs, not
// measured with this one (docs/planning.md). SPDX-License-Identifier: MIT
#include "core/model/machine.h"

namespace glm {

const std::vector<std::pair<std::string, std::string>>& bundled_machines() {
  static const std::vector<std::pair<std::string, std::string>> machines = {
      {"h200", R"json({
  "name": "one node of 8 H200 SXM (NVSwitch)",
  "figures": "data sheet; shares, launches and latencies assumed",
  "device": "gpu", "nodes": 1, "ranks_per_node": 8,
  "memory_gb": 141, "read_gb_per_s": 4800, "tera_operations_per_s": 1979,
  "reached": {"read": 0.5, "products": 0.15, "cache": 0.3, "attention": 0.05},
  "layer_us": 30, "step_us": 150,
  "inside": {"latency_us": 10, "latency_us_per_rank": 1, "gb_per_s": 350},
  "between": {"latency_us": 30, "gb_per_s": 20}
})json"},
      {"a100-80", R"json({
  "name": "one node of 4 A100-80GB SXM (NVLink)",
  "figures": "data sheet; shares, launches and latencies assumed",
  "device": "gpu", "nodes": 1, "ranks_per_node": 4,
  "memory_gb": 80, "read_gb_per_s": 2039, "tera_operations_per_s": 624,
  "reached": {"read": 0.75, "products": 0.2, "cache": 0.35, "attention": 0.05},
  "layer_us": 30, "step_us": 150,
  "inside": {"latency_us": 10, "latency_us_per_rank": 3.5, "gb_per_s": 200},
  "between": {"latency_us": 30, "gb_per_s": 20}
})json"},
      {"a100-40", R"json({
  "name": "one node of 4 A100-40GB SXM (NVLink)",
  "figures": "data sheet; shares, launches and latencies assumed",
  "device": "gpu", "nodes": 1, "ranks_per_node": 4,
  "memory_gb": 40, "read_gb_per_s": 1555, "tera_operations_per_s": 624,
  "reached": {"read": 0.75, "products": 0.2, "cache": 0.35, "attention": 0.05},
  "layer_us": 30, "step_us": 150,
  "inside": {"latency_us": 10, "latency_us_per_rank": 3.5, "gb_per_s": 200},
  "between": {"latency_us": 30, "gb_per_s": 20}
})json"},
      {"rtx4090", R"json({
  "name": "one node of 4 RTX 4090 (PCIe 4, no peer access)",
  "figures": "data sheet; shares, launches and latencies assumed",
  "device": "gpu", "nodes": 1, "ranks_per_node": 4,
  "memory_gb": 24, "read_gb_per_s": 1008, "tera_operations_per_s": 660,
  "reached": {"read": 0.75, "products": 0.2, "cache": 0.35, "attention": 0.05},
  "layer_us": 30, "step_us": 150,
  "inside": {"latency_us": 30, "latency_us_per_rank": 5, "gb_per_s": 12},
  "between": {"latency_us": 30, "gb_per_s": 20}
})json"},
      {"rtx3090", R"json({
  "name": "one node of 4 RTX 3090 (PCIe 4)",
  "figures": "data sheet; shares, launches and latencies assumed",
  "device": "gpu", "nodes": 1, "ranks_per_node": 4,
  "memory_gb": 24, "read_gb_per_s": 936, "tera_operations_per_s": 284,
  "reached": {"read": 0.75, "products": 0.2, "cache": 0.35, "attention": 0.05},
  "layer_us": 30, "step_us": 150,
  "inside": {"latency_us": 20, "latency_us_per_rank": 5, "gb_per_s": 12},
  "between": {"latency_us": 30, "gb_per_s": 20}
})json"},
      {"cpu", R"json({
  "name": "one node of two 32-core CPUs with 8 channels of DDR5-4800 each",
  "figures": "data sheet; shares and latencies assumed",
  "device": "cpu", "nodes": 1, "ranks_per_node": 2, "cores_per_node": 64,
  "memory_gb": 512, "read_gb_per_s": 614, "core_read_gb_per_s": 15, "tera_operations_per_s": 30,
  "reached": {"read": 0.6, "products": 0.4, "cache": 0.5, "attention": 0.1},
  "process_mb": 60, "layer_us": 20, "step_us": 100,
  "inside": {"latency_us": 5, "crowded_latency_us": 30, "gb_per_s": 5},
  "between": {"latency_us": 20, "gb_per_s": 10}
})json"},
  };
  return machines;
}

}  // namespace glm
