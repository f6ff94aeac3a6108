// The conformance cases on the ranks of mpirun. SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "tests/parallel/conformance.h"
#include "tests/support/mpi_world.h"

namespace glm {
namespace {

class MpiConformance : public testing::TestWithParam<size_t> {};

TEST_P(MpiConformance, Holds) { conformance_cases()[GetParam()].body(mpi_world()); }

std::string case_name(const testing::TestParamInfo<size_t>& info) {
  return conformance_cases()[info.param].name;
}

INSTANTIATE_TEST_SUITE_P(Cases,
                         MpiConformance,
                         testing::Range<size_t>(0, conformance_cases().size()),
                         case_name);

TEST(MpiSession, KnowsItsNode) {
  EXPECT_GE(mpi_session().node_rank(), 0);
  EXPECT_LT(mpi_session().node_rank(), mpi_session().node_size());
  EXPECT_LE(mpi_session().node_size(), mpi_world().size());
  EXPECT_FALSE(mpi_session().host().empty());
  EXPECT_NE(mpi_session().library_version().find("MPI"), std::string::npos);
}

TEST(MpiSession, AVerdictOfTheRootIsThrownOnAllRanks) {
  mpi_session().on_root([] {});
  try {
    mpi_session().on_root([] { fail(ExitCode::kModelFile, "no such file"); });
    ADD_FAILURE() << "rank " << mpi_world().rank() << " went on";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kModelFile);
    EXPECT_STREQ(error.what(), "no such file");
  }
}

}  // namespace
}  // namespace glm
