// One prompt, one answer: streamed as text, or as ids where the model has no tokenizer, or as JSON.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <system_error>

#include "apps/infer_run.h"
#include "apps/infer_text.h"
#include "core/model/token_bytes.h"
#include "io/logits_file.h"

namespace glm {
namespace {

constexpr int64_t kDefaultMaxTokens = 1024;

// What rank 0 alone has.
struct Leader {
  Leader(const Job& job, const ModelTexts& texts);

  TextSide text;
  Request request;
  std::unique_ptr<LogitsWriter> logits;
};

Request make_request(const Job& job, const TextSide& text) {
  Request request;
  request.prompt = text.prompt_ids(job.options);
  request.sampling = text.sampling(job.options);
  request.stop_ids = text.stop_ids();
  request.all_logits = job.options.dump_logits.has_value();
  const int64_t room = job.model.limits.max_context - static_cast<int64_t>(request.prompt.size());
  if (job.options.max_tokens.value_or(1) > room)
    fail(ExitCode::kUsage,
         "a prompt of {} tokens and --max-tokens {} exceed the context of {}; shorten the prompt, "
         "lower --max-tokens or raise --context (at most {})",
         request.prompt.size(),
         job.options.max_tokens.value_or(1),
         job.model.limits.max_context,
         job.config.max_positions);
  request.max_tokens = job.options.max_tokens.value_or(std::min(room, kDefaultMaxTokens));
  return request;
}

Leader::Leader(const Job& job, const ModelTexts& texts)
    : text(texts, job.config, job.source.path), request(make_request(job, text)) {
  if (!job.options.dump_logits) return;
  std::error_code ignored;  // of a file that does not exist yet
  if (std::filesystem::equivalent(*job.options.dump_logits, job.source.path, ignored))
    fail(ExitCode::kUsage,
         "--dump-logits {} is the model file itself",
         escaped(*job.options.dump_logits));
  logits = std::make_unique<LogitsWriter>(*job.options.dump_logits, job.config.vocab);
}

Json answer_json(const Job& job,
                 const Worker& worker,
                 const Leader& leader,
                 const AnswerStream& stream,
                 const std::vector<RankReport>& reports) {
  const EngineStats& stats = worker.engine.stats();
  const bool length = worker.engine.sequence(0).finish == FinishReason::kLength;
  return {{"text", stream.text()},
          {"tokens", stream.tokens()},
          {"prompt_tokens", leader.request.prompt},
          {"finish_reason", length ? "length" : "stop"},
          {"usage",
           {{"prompt_tokens", leader.request.prompt.size()},
            {"completion_tokens", stream.tokens().size()}}},
          {"grid", grid_json(job)},
          {"ops", worker.ops->name()},
          {"model_bytes", job.plan.model_bytes},
          {"bytes_per_token", bytes_per_token(job.config, job.stored)},
          {"ranks", ranks_json(job, reports)},
          {"timing",
           {{"first_token_seconds", stats.first_token_seconds},
            {"prefill_tokens", stats.prefill_tokens},
            {"prefill_seconds", stats.prefill_seconds},
            {"decode_tokens", stats.decode_tokens},
            {"decode_seconds", stats.decode_seconds}}}};
}

// The end of the answer on rank 0: what is left of the text, the summary, the JSON object.
void report(const Job& job,
            const Worker& worker,
            const Leader& leader,
            AnswerStream& stream,
            const std::vector<RankReport>& reports) {
  const std::string rest = stream.finish();
  if (leader.logits) leader.logits->finish();
  if (job.options.json)
    write_out(answer_json(job, worker, leader, stream, reports)
                  .dump(-1, ' ', false, Json::error_handler_t::replace) +
              "\n");
  else if (leader.text.tokenizer() != nullptr)
    write_out(rest + "\n");
  else
    write_out(fmt::format("{}\n", fmt::join(stream.tokens(), ",")));
  const std::string summary =
      summary_text(job, reports, worker.engine.stats(), bytes_per_token(job.config, job.stored));
  std::fputs(summary.c_str(), stderr);
}

}  // namespace

int run_answer(MpiSession& session, const Job& job, StepContext& where) {
  std::optional<Leader> leader;
  session.on_root([&] { leader.emplace(job, job.source.texts); });
  check_memory(session, job);
  where.phase = "load";
  Worker worker(session, job, where);
  if (leader) worker.engine.submit(leader->request);

  AnswerStream stream(leader ? leader->text.tokenizer() : nullptr, job.options.stop);
  EngineListener listener;
  listener.on_token = [&](int32_t, int32_t token) {
    const std::string piece = stream.push(token);
    if (!job.options.json && !piece.empty()) write_out(piece);
    return !stream.stopped();
  };
  listener.on_logits = [&](int32_t id, int64_t position, std::span<const float> row) {
    const int32_t token = worker.engine.sequence(id).tokens[static_cast<size_t>(position)];
    leader->logits->append(token, row);
  };
  const RunClock clock(session, job, worker);
  worker.engine.run(listener);
  const std::vector<RankReport> reports = clock.reports();
  if (leader) report(job, worker, *leader, stream, reports);
  return 0;
}

}  // namespace glm
