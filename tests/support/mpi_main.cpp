// SPDX-License-Identifier: MIT
#include <algorithm>
#include <iostream>

#include <gtest/gtest.h>

#include "tests/support/mpi_world.h"

namespace glm {
namespace {

MpiSession*& current_session() {
  static MpiSession* session = nullptr;
  return session;
}

// Gathers the failures of each test at its end. Collective: every rank ends every test.
class GatherFailures final : public testing::EmptyTestEventListener {
 public:
  explicit GatherFailures(Communicator& world) : world_(world) {}
  bool failed() const { return failed_; }

  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    const char* file = result.file_name() == nullptr ? "?" : result.file_name();
    text_ += std::string(file) + ":" + std::to_string(result.line_number()) + ": " +
             result.message() + "\n";
  }

  void OnTestEnd(const testing::TestInfo& info) override {
    const std::vector<std::string> texts = all_gather_strings(world_, text_);
    text_.clear();
    for (size_t rank = 0; rank < texts.size(); ++rank) {
      if (texts[rank].empty()) continue;
      failed_ = true;
      if (world_.rank() == 0 && rank != 0)
        std::cout << "[ RANK " << rank << " ] " << info.test_suite_name() << "." << info.name()
                  << "\n"
                  << texts[rank] << std::flush;
    }
  }

 private:
  Communicator& world_;
  std::string text_;
  bool failed_ = false;
};

int run_tests(MpiSession& session) {
  CommOptions options;
  options.timeout_seconds = 60;
  session.configure(options);
  current_session() = &session;
  testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
  if (session.world().rank() != 0) {
    delete listeners.Release(listeners.default_result_printer());
    delete listeners.Release(listeners.default_xml_generator());
  }
  auto* gather = new GatherFailures(session.world());  // the listeners own it
  listeners.Append(gather);
  const int own = RUN_ALL_TESTS();
  if (testing::UnitTest::GetInstance()->test_to_run_count() == 0) return 1;
  if (own == 0 && gather->failed() && session.world().rank() == 0)
    std::cout << "[  FAILED  ] tests failed on other ranks, see above" << std::endl;
  return own != 0 || gather->failed() ? 1 : 0;
}

}  // namespace

MpiSession& mpi_session() { return *current_session(); }

}  // namespace glm

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return glm::run_mpi_program(argc, argv, "glm_test", glm::run_tests);
}
