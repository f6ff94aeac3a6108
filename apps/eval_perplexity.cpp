// SPDX-License-Identifier: MIT
#include <optional>

#include "apps/eval_run.h"

namespace glm {

int run_perplexity(MpiSession& session, const EvalOptions& options) {
  const Job job = prepare_job(session, options.job);
  bind_process(job.cores);
  std::vector<TextWindow> windows;  // of rank 0
  session.on_root([&] {
    const TextSide text(job.source.texts, job.config, job.source.path);
    windows = text_windows(options, job, text);
  });
  std::vector<double> scores(static_cast<size_t>(counted_tokens(windows)));
  run_windows(
      session, job, windows, "", [&](int64_t place, int32_t token, std::span<const float> logits) {
        scores[static_cast<size_t>(place)] = log_probability(logits, token);
      });
  if (session.world().rank() != 0) return 0;
  const double result = perplexity(scores);
  if (options.job.json)
    write_out(Json{{"perplexity", result},
                   {"tokens", scores.size()},
                   {"window", options.window},
                   {"stride", options.stride},
                   {"windows", windows.size()},
                   {"grid", grid_json(job)},
                   {"model_bytes", job.plan.model_bytes}}
                  .dump() +
              "\n");
  else
    write_out(fmt::format("perplexity {:.4f} of {} tokens in windows of {}, {} of them counted\n",
                          result,
                          scores.size(),
                          options.window,
                          options.stride));
  return 0;
}

}  // namespace glm
