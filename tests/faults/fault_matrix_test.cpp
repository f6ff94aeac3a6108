// Every fault of the matrix ends the job in time, with its exit code, with one line that says
// where, and leaves nothing behind: no process, no shared memory, no session folder.
// SPDX-License-Identifier: MIT
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include <unistd.h>

#include "tests/apps/programs.h"
#include "tests/faults/fault_cases.h"

namespace glm::testing_support {
namespace {

namespace fs = std::filesystem;

constexpr double kLongest = 15;  // seconds from the start to the end of a job that fails

// Folders of this process for what Open MPI puts into shared memory and beside it, so that other
// jobs of the machine are not taken for ours.
struct JobFolders {
  fs::path shared = fs::path("/dev/shm") / ("glm_fault." + std::to_string(getpid()));
  fs::path session = fs::path(scratch() / "s");

  JobFolders() {
    fs::create_directories(shared);
    fs::create_directories(session);
  }
  ~JobFolders() {
    std::error_code error;
    fs::remove_all(shared, error);
    fs::remove_all(session, error);
  }
  JobFolders(const JobFolders&) = delete;
  JobFolders& operator=(const JobFolders&) = delete;

  // Files in either; folders that Open MPI keeps for the next job are empty.
  std::string left() const {
    std::string text;
    for (const fs::path& folder : {shared, session})
      for (const auto& entry : fs::recursive_directory_iterator(folder))
        if (!entry.is_directory()) text += entry.path().string() + " ";
    return text;
  }
};

const JobFolders& folders() {
  static const JobFolders made;
  return made;
}

// Runs that have to succeed are given more time: the machine may be busy.
Command faulty_run(int ranks,
                   const std::string& program,
                   const std::string& fault,
                   int deadline = 5 * kDeadline) {
  Command command;
  command.argv = {GLM_MPIEXEC,
                  "--oversubscribe",
                  "-np",
                  std::to_string(ranks),
                  program,
                  "--model",
                  model_file("tiny", "q80"),
                  "--prompt",
                  kFrance,
                  "--temperature",
                  "0",
                  "--pipeline",
                  std::to_string(ranks / 2),
                  "--tensor",
                  "2",
                  "--expert-exchange",
                  "alltoall",
                  "--timeout",
                  std::to_string(deadline)};
  command.env = {{"GLM_FAULT", fault},
                 {"TMPDIR", folders().session},
                 {"OMPI_MCA_btl_vader_backing_directory", folders().shared},
                 {"OMPI_MCA_osc_sm_backing_directory", folders().shared}};
  command.timeout = 60;
  return command;
}

std::string shown(const Outcome& outcome) {
  return "code " + std::to_string(outcome.code) + ", " + std::to_string(outcome.seconds) +
         " s\nstdout:\n" + outcome.out + "\nstderr:\n" + outcome.err.substr(0, 4000);
}

// run() has seen that no process is left.
void expect_nothing_left(const Outcome& outcome) {
  EXPECT_FALSE(outcome.timed_out) << shown(outcome);
  for (int i = 0; i < 20 && !folders().left().empty(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(folders().left(), "") << shown(outcome);
}

class FaultMatrix : public testing::TestWithParam<FaultCase> {};

TEST_P(FaultMatrix, EndsAsDocumented) {
  const FaultCase& c = GetParam();
  const int deadline = c.code == 0 ? 5 * kDeadline : kDeadline;
  const Outcome outcome = run(faulty_run(c.ranks, GLM_INFER_FAULTS, c.fault(), deadline));
  const std::vector<std::string> errors = errors_of("glm_infer", outcome);
  std::printf("%s: code %d, %.1f s%s%s\n",
              c.fault().c_str(),
              outcome.code,
              outcome.seconds,
              errors.empty() ? "" : ": ",
              errors.empty() ? "" : errors[0].c_str());
  EXPECT_EQ(outcome.code, c.code) << shown(outcome);
  if (c.code != 0) {
    EXPECT_LT(outcome.seconds, kLongest) << shown(outcome);
  }
  ASSERT_EQ(errors.size(), static_cast<size_t>(c.lines)) << shown(outcome);
  for (const std::string& error : errors)
    for (const std::string& text : c.texts)
      EXPECT_NE(error.find(text), std::string::npos) << "no \"" << text << "\": " << error;
  // A short sleep changes nothing; of a damaged answer no wrong text has been written.
  if (c.code == 0) {
    EXPECT_EQ(outcome.out, kParis);
  }
  if (c.code == 6) {
    EXPECT_EQ(kParis.find(outcome.out), 0u) << outcome.out;
  }
  expect_nothing_left(outcome);
}

INSTANTIATE_TEST_SUITE_P(All,
                         FaultMatrix,
                         testing::ValuesIn(fault_cases(chosen_part())),
                         [](const auto& test) { return test.param.name(); });

TEST(FaultPart, QuartersMakeTheWhole) {
  std::printf("GLM_FAULT_PART=%s repeats this run\n", chosen_part().c_str());
  size_t sum = 0;
  for (const char* part : {"0", "1", "2", "3"}) {
    EXPECT_GE(fault_cases(part).size(), 30u);
    sum += fault_cases(part).size();
  }
  EXPECT_EQ(sum, fault_cases("all").size());
  EXPECT_FALSE(fault_cases(chosen_part()).empty()) << "no such part";
}

TEST(FaultFree, TheTestProgramAnswersAsTheShippedOne) {
  Command command = faulty_run(2, GLM_INFER_FAULTS, "");
  command.env[0].second.reset();
  const Outcome outcome = expect_good(command);
  EXPECT_EQ(outcome.out, kParis);
  expect_nothing_left(outcome);
}

TEST(FaultFree, TheShippedProgramKnowsNoFaults) {
  const Outcome outcome =
      expect_good(faulty_run(2, program("glm_infer"), "rank=0,point=init,action=kill"));
  EXPECT_EQ(outcome.out, kParis);
  std::ifstream file(program("glm_infer"), std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  EXPECT_GT(bytes.size(), 100'000u);
  EXPECT_EQ(bytes.find("GLM_FAULT"), std::string::npos);
}

TEST(FaultFree, AFaultThatIsNotUnderstoodIsSaid) {
  expect_error(faulty_run(2, GLM_INFER_FAULTS, "rank=0,point=lunch,action=kill"),
               2,
               {"GLM_FAULT: \"point=lunch\""});
}

}  // namespace
}  // namespace glm::testing_support
