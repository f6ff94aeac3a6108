// A machine as a user describes it, or as glm_plan --measure found it: a small JSON object
// (docs/planning.md lists its keys). From it come the constants of the model of time.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/dtype.h"
#include "core/model/grid_planner.h"
#include "io/json.h"

namespace glm {

// What the kernels reach, as shares of the machine's peaks, with weights of one type.
struct ReachedShares {
  double read = 0.6;       // reading weights for one row
  double products = 0.3;   // products of many rows
  double cache = 0.5;      // reading keys and values for one row
  double attention = 0.1;  // attention over many rows
};

// Messages among ranks of a node, or of several nodes.
struct LinkSpec {
  double latency = 20e-6;         // seconds until two ranks have met
  double crowded_latency = 0;     // the same where ranks share cores; 0: not known
  double latency_per_rank = 0;    // for each rank beyond two
  double bytes_per_second = 5e9;  // from each rank
};

// One rank's memory and peaks, where ranks differ.
struct RankSpec {
  int64_t memory_bytes = 0;
  double read_rate = 0;
  double operations = 0;
};

struct MachineSpec {
  std::string name;
  std::string figures;  // where they come from: "data sheet", "measured"
  std::string cpu;      // of measured hosts: /proc/cpuinfo
  bool gpu = false;
  int nodes = 1;
  int ranks_per_node = 1;
  int cores_per_node = 1;     // of a machine of CPUs
  int64_t memory_bytes = 0;   // of a GPU, or of a node
  double read_rate = 0;       // bytes/s of a GPU, or of all cores of a node
  double core_read_rate = 0;  // of one core alone
  double operations = 0;      // per second of a GPU or a node; a multiply and an add are two
  double sum_rate = 5e9;      // bytes/s of sums of expert rows, of a GPU or a core
  double touch_rate = 2e8;    // values/s of norms, rotation, routing: of a GPU or a core
  double layer_seconds = 0;   // of a layer, whatever it does
  double step_seconds = 0;    // of a step: planning, sampling
  int64_t process_bytes = 0;  // of a rank before it loads anything
  ReachedShares reached;
  std::map<DType, ReachedShares> reached_by_dtype;
  LinkSpec inside;
  std::optional<LinkSpec> between;
  std::vector<RankSpec> ranks;  // in rank order, where they differ; else empty

  int n_ranks() const { return nodes * ranks_per_node; }
  const ReachedShares& reached_with(DType dtype) const;
  RankSpec rank(int r) const;
};

// Throws Error(kModelFile) that names `source`, the key and what is accepted.
MachineSpec parse_machine(std::string_view text, const std::string& source);
OrderedJson machine_json(const MachineSpec& spec);

// The machine for the model of time: ranks on `hosts` (a number for each) with `threads` each.
// Throws Error(kUsage) where ranks of several hosts have no figures of what lies between them.
Machine machine_for(
    const MachineSpec& spec, DType weights, const std::vector<int>& hosts, int cores, int threads);

// Descriptions that come with the program: name -> JSON text. Data-sheet figures; the shares
// reached are assumed.
const std::vector<std::pair<std::string, std::string>>& bundled_machines();

}  // namespace glm
