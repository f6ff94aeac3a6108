// SPDX-License-Identifier: MIT
#include "apps/batch_state.h"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <utility>

#include "io/sha256.h"
#include "kernels/types.h"

namespace glm {
namespace {

// Bytes of values, each behind its length, so that no two lists give the same bytes.
class Fingerprint {
 public:
  void text(std::string_view value) {
    number(value.size());
    hash_.update(value.data(), value.size());
  }
  template <class T>
  void number(T value) {
    hash_.update(&value, sizeof value);
  }
  void ids(const std::vector<int32_t>& values) {
    number(values.size());
    hash_.update(values.data(), values.size() * sizeof(int32_t));
  }
  std::string hex() { return hash_.hex(); }
  // The first 64 bits.
  uint64_t bits() { return std::stoull(hash_.hex().substr(0, 16), nullptr, 16); }

 private:
  Sha256 hash_;
};

// All that shapes the line of its answer.
uint64_t fingerprint(const BatchRequest& item) {
  Fingerprint print;
  print.text(item.id);
  const Request& request = item.request;
  print.ids(request.prompt);
  print.number(request.max_tokens);
  print.ids(request.stop_ids);
  const SamplingParams& s = request.sampling;
  for (const float x : {s.repetition_penalty, s.temperature, s.top_p, s.min_p}) print.number(x);
  print.number(s.top_k);
  print.number(s.seed);
  print.number(item.stops.size());
  for (const std::string& stop : item.stops) print.text(stop);
  print.text(item.tools.is_null() ? std::string() : item.tools.dump());
  return print.bits();
}

std::string model_text(const Job& job) {
  if (job.source.index) return "file " + job.source.index->digest;
  Fingerprint print;
  print.text(job.source.texts.config);
  print.number(job.options.synthetic_seed);
  for (const auto& [name, type] : job.stored) {
    print.text(name);
    print.text(dtype_name(type.dtype));
  }
  return "synthetic " + print.hex();
}

std::string settings_text(const Job& job) {
  return fmt::format("{} numerics, {} cache, {} operations, sampled answers {} drafts",
                     job.placement.numerics == Numerics::kReproducible ? "reproducible" : "default",
                     kv_dtype_name(job.model.kv_dtype),
                     job.options.ops == OpsKind::kRef ? "reference" : "fast",
                     job.drafts == DraftMode::kOn ? "with" : "without");
}

}  // namespace

BatchState::BatchState(const Job& job, const std::vector<BatchRequest>& requests)
    : path_(*job.options.state), vocab_(job.config.vocab) {
  job_.model = model_text(job);
  job_.settings = settings_text(job);
  for (const BatchRequest& item : requests) job_.requests.push_back(fingerprint(item));
  std::error_code error;
  found_ = std::filesystem::exists(path_, error) || error;
  if (!found_) return;
  before_ = read_run_state(path_);
  judge(*job.options.batch, requests);
}

void BatchState::judge(const std::string& input, const std::vector<BatchRequest>& requests) const {
  const auto refuse = [&](const std::string& reason) {
    fail(ExitCode::kUsage,
         "--state {}: {}; name another file for another job, or take this one and the output away "
         "to begin anew",
         escaped(path_),
         reason);
  };
  if (before_.model != job_.model) refuse("it was saved with another model");
  if (before_.settings != job_.settings)
    refuse(fmt::format("it was saved with other options: {}; now they say: {}",
                       escaped(before_.settings),
                       job_.settings));
  if (before_.requests.size() != job_.requests.size())
    refuse(fmt::format("it was saved with {} requests, {} has {}",
                       before_.requests.size(),
                       escaped(input),
                       job_.requests.size()));
  const auto at =
      std::mismatch(before_.requests.begin(), before_.requests.end(), job_.requests.begin()).first;
  if (at == before_.requests.end()) return;
  const auto place = static_cast<size_t>(at - before_.requests.begin());
  refuse(fmt::format("request {} (id \"{}\") of {}, or the options for it, have changed since",
                     place + 1,
                     escaped(requests[place].id),
                     escaped(input)));
}

std::vector<BatchRequest> BatchState::open(std::vector<BatchRequest> requests,
                                           size_t written,
                                           std::map<size_t, std::string>& held) const {
  std::map<size_t, const RunState::Sequence*> under_way;
  for (const RunState::Answer& answer : before_.answers)
    if (std::cmp_greater_equal(answer.request, written))
      held.emplace(static_cast<size_t>(answer.request), answer.line);
  for (const RunState::Sequence& sequence : before_.sequences)
    under_way.emplace(static_cast<size_t>(sequence.request), &sequence);
  std::vector<BatchRequest> left;
  for (size_t place = written; place < requests.size(); ++place) {
    if (held.contains(place)) continue;
    left.push_back(std::move(requests[place]));
    const auto saved = under_way.find(place);
    if (saved != under_way.end())
      left.back().so_far = answer_of(*saved->second, left.back().request);
  }
  return left;
}

AnswerState BatchState::answer_of(const RunState::Sequence& saved, const Request& request) const {
  const auto known = [this](int32_t id) { return id < vocab_; };
  const auto all_known = [&](const std::vector<int32_t>& ids) {
    return std::all_of(ids.begin(), ids.end(), known);
  };
  if (saved.seed != request.sampling.seed || saved.draws() >= request.max_tokens ||
      !all_known(saved.tokens) || !all_known(saved.guess_tokens) || !known(saved.draft))
    fail(ExitCode::kModelFile, "{}: the state contradicts its requests", escaped(path_));
  AnswerState answer;
  answer.tokens = saved.tokens;
  answer.draft = saved.draft;
  for (size_t i = 0; i < saved.guess_tokens.size(); ++i)
    answer.guess.push_back({saved.guess_tokens[i], saved.guess_probabilities[i]});
  return answer;
}

void BatchState::save(RunState now) const {
  now.model = job_.model;
  now.settings = job_.settings;
  now.requests = job_.requests;
  write_run_state(path_, now);
}

std::string signal_name(int signal) {
  if (signal == SIGUSR1) return "SIGUSR1";
  if (signal == SIGTERM) return "SIGTERM";
  return fmt::format("signal {}", signal);
}

}  // namespace glm
