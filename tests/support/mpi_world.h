// For test programs that run under mpirun (tests/support/mpi_main.cpp is their main): all ranks run
// the same tests in the same order; failures of other ranks are printed by rank 0.
// SPDX-License-Identifier: MIT
#pragma once

#include "parallel/mpi_session.h"

namespace glm {

// The session of this process.
MpiSession& mpi_session();
inline Communicator& mpi_world() { return mpi_session().world(); }

}  // namespace glm
