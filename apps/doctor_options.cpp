// The command line of `glm_infer doctor`. SPDX-License-Identifier: MIT
#include <CLI/CLI.hpp>

#include "apps/infer_options.h"
#include "apps/program.h"

namespace glm {
namespace {

// A rank that does not answer shall not keep the doctor waiting as long as it may a job.
constexpr const char* kTimeout = "20";

}  // namespace

CLI::App* add_doctor_command(CLI::App& app, InferOptions& o) {
  CLI::App* doctor = app.add_subcommand(
      "doctor",
      "Look for what would go wrong: all ranks, hosts, GPUs, the model file, a self-test");
  doctor->add_option("--model", o.model, "Model file to look at on all hosts, and to plan for")
      ->type_name("PATH");
  doctor->add_option("--context", o.context, "Positions of the cache to plan for")
      ->check(integer_in(1, int64_t{1} << 31))
      ->type_name("N");
  doctor
      ->add_option("--self-test",
                   o.self_test_seconds,
                   "Seconds for layouts of a tiny model against one rank; 0 leaves it out")
      ->check(number_in(0, 3600))
      ->type_name("S")
      ->capture_default_str();
  doctor->add_flag("--json", o.json, "The last line of stdout is a JSON object");
  add_rank_options(*doctor, o);
  doctor->get_option("--timeout")->default_str(kTimeout);
  return doctor;
}

void settle_doctor(const CLI::App& app, const CLI::App& doctor, InferOptions& o) {
  o.doctor = true;
  for (const CLI::Option* option : app.get_options())
    if (option->count() > 0)
      fail(ExitCode::kUsage,
           "{} stands before the word doctor; its options follow it, try glm_infer doctor --help",
           option->get_name());
  if (doctor.count("--timeout") == 0) o.timeout = std::stod(kTimeout);
  judge_rank_options(o);
}

}  // namespace glm
