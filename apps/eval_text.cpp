// A text through a model, window by window. SPDX-License-Identifier: MIT
#include <cstdio>
#include <map>
#include <optional>

#include "apps/eval_run.h"
#include "core/model/token_bytes.h"

namespace glm {
namespace {

constexpr int64_t kMaxTextBytes = int64_t{256} << 20;

Request window_request(const TextWindow& window) {
  Request request;
  request.prompt = window.prompt;
  request.max_tokens = 1;  // the logits of the last row come with the token sampled from them
  request.sampling.temperature = 0;
  request.all_logits = true;
  request.first_logits = window.first_row;
  return request;
}

}  // namespace

std::vector<TextWindow> text_windows(const EvalOptions& options,
                                     const Job& job,
                                     const TextSide& text) {
  const std::string name = options.text ? escaped(*options.text) : "the sample text";
  std::string bytes =
      options.text ? read_file(*options.text, kMaxTextBytes, ExitCode::kUsage) : sample_text();
  if (bytes.empty()) fail(ExitCode::kUsage, "{}: the text is empty", name);
  std::vector<int32_t> ids = text.text_ids(bytes);
  if (options.limit && *options.limit < static_cast<int64_t>(ids.size()))
    ids.resize(static_cast<size_t>(*options.limit));
  if (ids.size() < 2)
    fail(ExitCode::kUsage, "{}: {} token is too short a text; give at least 2", name, ids.size());
  const std::vector<int32_t> prefix = text.prefix_ids();
  std::vector<TextWindow> windows = cut_windows(ids, prefix, options.window, options.stride);
  for (const TextWindow& window : windows)
    if (static_cast<int64_t>(window.prompt.size()) >= job.model.limits.max_context)
      fail(ExitCode::kUsage,
           "windows of {} tokens behind a prefix of {} exceed the model's {} positions; lower "
           "--window and --stride",
           options.window,
           prefix.size(),
           job.config.max_positions);
  return windows;
}

void run_windows(MpiSession& session,
                 const Job& job,
                 std::span<const TextWindow> windows,
                 const std::string& label,
                 const RowListener& on_row) {
  check_memory(session, job);
  StepContext& where = session.context();
  where.phase = "load";
  Worker worker(session, job, where);
  const RunClock clock(session, job, worker);
  std::map<int32_t, const TextWindow*> open;  // by the engine's id
  std::optional<EvalProgress> progress;
  EngineListener listener;
  if (session.world().rank() == 0) {
    progress.emplace(label, "tokens", counted_tokens(windows));
    listener.on_logits = [&](int32_t id, int64_t position, std::span<const float> logits) {
      const TextWindow& window = *open.at(id);
      const int64_t i = position - window.first_row;
      if (i < 0 || i >= static_cast<int64_t>(window.counted.size())) return;
      on_row(window.first_place + i, window.counted[static_cast<size_t>(i)], logits);
      progress->add();
    };
    listener.on_finish = [&](int32_t id) {
      open.erase(id);
      worker.engine.forget(id);
    };
    for (const TextWindow& window : windows)
      open.emplace(worker.engine.submit(window_request(window)), &window);
  }
  worker.engine.run(listener);
  if (progress) progress->finish();
  const std::vector<RankReport> reports = clock.reports();
  if (session.world().rank() != 0) return;
  const std::string summary =
      summary_text(job, reports, worker.engine.stats(), bytes_per_token(job.config, job.stored));
  std::fputs(summary.c_str(), stderr);
}

}  // namespace glm
