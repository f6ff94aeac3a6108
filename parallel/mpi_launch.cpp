// SPDX-License-Identifier: MIT
#include "parallel/mpi_launch.h"

#include <algorithm>
#include <cstdlib>

#include "parallel/mpi_session.h"

namespace glm {
namespace {

int number(const char* text) {
  return text == nullptr ? 0 : static_cast<int>(std::min(std::strtol(text, nullptr, 10), 1L << 20));
}

// The largest count of a list like "4(x2),3".
int largest_of_list(const char* text) {
  int largest = number(text);
  for (; text != nullptr && *text != '\0'; ++text)
    if (*text == ',') largest = std::max(largest, number(text + 1));
  return largest;
}

}  // namespace

int announced_local_ranks() {
  if (const int ranks = number(std::getenv("OMPI_COMM_WORLD_LOCAL_SIZE")); ranks > 0) return ranks;
  if (started_alone()) return 1;
  if (const int ranks = largest_of_list(std::getenv("SLURM_STEP_TASKS_PER_NODE")); ranks > 0)
    return ranks;
  return std::max(1, number(std::getenv("SLURM_NTASKS_PER_NODE")));
}

bool started_alone() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMIX_NAMESPACE", "PMI_RANK"})
    if (std::getenv(name) != nullptr) return false;
  return true;
}

bool split_slurm_step() {
  return number(std::getenv("SLURM_STEP_NUM_TASKS")) > 1 &&
         std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr;
}

void prepare_environment() {
  // A waiting rank inside MPI gives its core away; without this 4 ranks on 2 cores take
  // milliseconds for what takes microseconds.
  if (ranks_exceed_cores(announced_local_ranks())) setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
  // A rank of its own needs no daemon beside it.
  if (started_alone()) setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
}

}  // namespace glm
