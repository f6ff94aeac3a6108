// glm_plan --measure: what this host's kernels and ranks reach, as a machine description.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <vector>

#include "core/model/machine.h"
#include "parallel/mpi_session.h"

namespace glm {

struct MeasureOptions {
  std::vector<DType> dtypes = {DType::kQ40};
  int threads = 0;     // 0: all cores
  double seconds = 2;  // for each of the measurements, roughly
};

// Everything but what lies between ranks, in this process.
MachineSpec measure_host(const MeasureOptions& options);
// Between the ranks of this job: those of one host, and of two where there are. Collective.
void measure_links(MpiSession& session, MachineSpec& spec);

}  // namespace glm
