// What has to be known and set before MPI_Init. SPDX-License-Identifier: MIT
#pragma once

namespace glm {

// Ranks of this host according to the launcher's environment; 1 when there is none.
int announced_local_ranks();
// A process that nobody launched as a rank: no mpirun, no PMIx.
bool started_alone();
// A Slurm step of several tasks, none of which the step's launcher has told of the others.
bool split_slurm_step();
// Sets what Open MPI reads at start, unless the user has.
void prepare_environment();

}  // namespace glm
