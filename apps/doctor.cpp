// SPDX-License-Identifier: MIT
#include "apps/doctor.h"

#include <algorithm>
#include <chrono>

#include "apps/doctor_checks.h"
#include "apps/doctor_self_test.h"
#include "apps/infer_device.h"
#include "apps/launch.h"
#include "apps/program.h"

namespace glm {
namespace {

const char* word_of(FindingKind verdict) {
  switch (verdict) {
    case FindingKind::kOk:
      return "ok";
    case FindingKind::kNote:
      return "note";
    case FindingKind::kWarning:
      return "warn";
    case FindingKind::kFailure:
      return "FAIL";
  }
  return "";
}

// Lines as they are found; only rank 0 shows them.
class Report {
 public:
  explicit Report(bool shown) : shown_(shown) {}

  void add(const Findings& findings) {
    for (const Finding& finding : findings) {
      all_.push_back(finding);
      if (!shown_) continue;
      std::string text =
          fmt::format("{:<5} {:<10} {}\n", word_of(finding.verdict), finding.section, finding.text);
      if (!finding.advice.empty()) text += fmt::format("{:<16} -> {}\n", "", finding.advice);
      write_out(text);
    }
  }
  const Findings& all() const { return all_; }
  int count(FindingKind verdict) const {
    return static_cast<int>(std::count_if(all_.begin(), all_.end(), [&](const Finding& finding) {
      return finding.verdict == verdict;
    }));
  }

 private:
  bool shown_;
  Findings all_;
};

Json findings_json(const Findings& findings) {
  Json json = Json::array();
  for (const Finding& finding : findings)
    json.push_back({{"verdict", word_of(finding.verdict)},
                    {"section", finding.section},
                    {"text", finding.text},
                    {"advice", finding.advice},
                    {"code", static_cast<int>(finding.code)}});
  return json;
}

Json self_test_json(const SelfTest& test) {
  return {{"layouts", test.possible},
          {"tried", test.tried},
          {"largest_deviation", test.deviation},
          {"allowed_deviation", test.allowed},
          {"seconds", test.seconds}};
}

// The device of this rank; absent where ranks cannot have what was asked for.
std::unique_ptr<Device> give_devices(MpiSession& session,
                                     const InferOptions& options,
                                     std::vector<RankFacts>& ranks,
                                     Report& report) {
  const bool blind = std::any_of(
      ranks.begin(), ranks.end(), [](const RankFacts& rank) { return !rank.gpu_error.empty(); });
  std::unique_ptr<Device> device;
  Findings failed;
  if (!blind) {
    try {
      device = open_device(session, options);
    } catch (const AgreedError& error) {
      failed.push_back(failure_of("gpus", error, "compare with the ranks and GPUs listed here"));
    }
  }
  if (device) {
    const auto names = all_gather_strings(session.world(), device->name());
    const auto ids = all_gather_strings(session.world(), device->id());
    for (size_t r = 0; r < ranks.size(); ++r) {
      ranks[r].device = names[r];
      ranks[r].device_id = ids[r];
    }
  }
  report.add(failed.empty() ? judge_gpus(ranks) : failed);
  return device;
}

// The grid at least, as one of a mixture-of-experts model.
Finding no_model(int world, const InferOptions& options) {
  try {
    complete_grid(options.grid, world, true);
  } catch (const Error& error) {
    return failure_of("launch", error, "choose another grid, or leave it to the program");
  }
  return {FindingKind::kNote, "model", "none named: --model FILE looks at one, and at its plan"};
}

// The model on all hosts, and its plan on these ranks.
void check_model(MpiSession& session,
                 Job& job,
                 const std::vector<RankFacts>& ranks,
                 Report& report) {
  if (job.options.model.empty()) {
    report.add({no_model(session.world().size(), job.options)});
    return;
  }
  try {
    share_model(session, job);
  } catch (const AgreedError& error) {
    report.add({failure_of("model", error, "the plan for it was not made")});
    return;
  }
  report.add(check_blocks(session, job));
  if (!job.device) return;
  try {
    settle_job(session, job);
  } catch (const AgreedError& error) {
    report.add({failure_of("memory", error, "there is no plan to hold against the memory")});
    return;
  }
  report.add(check_plan(session, job, ranks));
}

void finish(MpiSession& session,
            const InferOptions& options,
            const std::vector<RankFacts>& ranks,
            const Report& report,
            const SelfTest& test,
            double seconds) {
  session.on_root([&] {
    const ExitCode code = code_of(report.all());
    const int failures = report.count(FindingKind::kFailure);
    const int warnings = report.count(FindingKind::kWarning);
    write_out(fmt::format("{} ok, {} warning{}, {} failure{} in {:.1f} s\n",
                          report.count(FindingKind::kOk),
                          warnings,
                          warnings == 1 ? "" : "s",
                          failures,
                          failures == 1 ? "" : "s",
                          seconds));
    if (options.json) {
      Json all = Json::array();
      for (const RankFacts& rank : ranks) all.push_back(to_json(rank));
      const Json json = {{"program", "glm_infer doctor"},
                         {"version", program_versions().number},
                         {"exit_code", static_cast<int>(code)},
                         {"findings", findings_json(report.all())},
                         {"self_test", self_test_json(test)},
                         {"ranks", all},
                         {"seconds", seconds}};
      write_out(json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
    }
    if (code == ExitCode::kOk) return;
    const auto first = std::find_if(report.all().begin(), report.all().end(), [](const Finding& f) {
      return f.verdict == FindingKind::kFailure;
    });
    fail(code,
         "doctor: {} check{} failed, first {}: {}",
         failures,
         failures == 1 ? "" : "s",
         first->section,
         first->text);
  });
}

}  // namespace

int run_doctor(MpiSession& session, const InferOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  Communicator& world = session.world();
  Report report(world.rank() == 0);
  Job job = begin_job(session, options);
  const std::vector<std::string> hosts = all_gather_strings(world, session.host());
  std::vector<RankFacts> ranks = gather_facts(world, rank_facts(session, job, hosts));
  bind_process(job.cores);
  for (const auto& judge : {judge_launch, judge_versions, judge_cores}) report.add(judge(ranks));
  report.add(check_messages(session));
  job.device = give_devices(session, options, ranks, report);
  const bool devices = job.device != nullptr;
  report.add(judge_limits(ranks));
  check_model(session, job, ranks, report);
  job.device.reset();
  SelfTest test;
  if (options.self_test_seconds > 0 && devices) {
    test = run_self_test(session, options, options.self_test_seconds);
    report.add(test.findings);
  } else {
    report.add(
        {{FindingKind::kNote, "self-test", devices ? "left out" : "needs the ranks' devices"}});
  }
  finish(session, options, ranks, report, test, seconds_since(start));
  return 0;
}

}  // namespace glm
