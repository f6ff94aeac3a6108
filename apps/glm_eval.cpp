// glm_eval: one MPI job that measures a model: perplexity of a text, rate of right answers,
// distance between two files. SPDX-License-Identifier: MIT
#include "apps/eval_run.h"
#include "apps/launch.h"

int main(int argc, char** argv) {
  const glm::EvalCommand command = glm::parse_eval_command(argc, argv);
  const glm::EvalOptions& options = command.options;
  const auto run = [&](glm::MpiSession& session) {
    switch (options.what) {
      case glm::EvalOptions::What::kAnswers:
        return glm::run_answers(session, options);
      case glm::EvalOptions::What::kCompare:
        return glm::run_compare(session, options);
      case glm::EvalOptions::What::kPerplexity:
        break;
    }
    return glm::run_perplexity(session, options);
  };
  return glm::run_ranks(argc, argv, "glm_eval", command, options.job.timeout, run);
}
