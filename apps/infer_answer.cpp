// One prompt, one answer: streamed as text, or as ids where the model has no tokenizer, or as JSON.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <system_error>

#include "apps/chat_output.h"
#include "apps/infer_prediction.h"
#include "apps/infer_run.h"
#include "apps/infer_text.h"
#include "apps/infer_tools.h"
#include "core/model/token_bytes.h"
#include "io/answer_parts.h"
#include "io/logits_file.h"

namespace glm {
namespace {

// What rank 0 alone has.
struct Leader {
  Leader(const Job& job, const ModelTexts& texts);

  TextSide text;
  OrderedJson tools;  // null: none
  Request request;
  std::unique_ptr<LogitsWriter> logits;
};

Request make_request(const Job& job, const TextSide& text, const OrderedJson& tools) {
  Request request;
  request.prompt = text.prompt_ids(job.options, tools);
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
    : text(texts, job.config, job.source.path),
      tools(read_tools(job.options.tools)),
      request(make_request(job, text, tools)) {
  if (!job.options.dump_logits) return;
  std::error_code ignored;  // of a file that does not exist yet
  if (std::filesystem::equivalent(*job.options.dump_logits, job.source.path, ignored))
    fail(ExitCode::kUsage,
         "--dump-logits {} is the model file itself",
         escaped(*job.options.dump_logits));
  logits = std::make_unique<LogitsWriter>(*job.options.dump_logits, job.config.vocab);
}

// What a chat template would take as the next message: reasoning and calls apart.
Json answer_message(const Leader& leader, const AnswerStream& stream, bool complete) {
  const bool inside = opens_thinking(*leader.text.tokenizer(), leader.request.prompt);
  return Json(message_json(parse_answer(stream.text(), inside, leader.tools, complete)));
}

Json answer_json(const Job& job,
                 const Worker& worker,
                 const Leader& leader,
                 const AnswerStream& stream,
                 const std::vector<RankReport>& reports,
                 const Json& prediction) {
  const EngineStats& stats = worker.engine.stats();
  const bool length = worker.engine.sequence(0).finish == FinishReason::kLength;
  Json json = {{"text", stream.text()},
               {"tokens", stream.tokens()},
               {"prompt_tokens", leader.request.prompt},
               {"finish_reason", length ? "length" : "stop"},
               {"usage",
                {{"prompt_tokens", leader.request.prompt.size()},
                 {"completion_tokens", stream.tokens().size()}}},
               {"model", model_json(job)},
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
                 {"decode_seconds", stats.decode_seconds}}},
               {"drafts", drafts_json(job, stats)},
               {"cost", cost_json(job, reports, stats)},
               {"prediction", prediction}};
  if (!job.options.raw && !job.options.tokens)
    json["message"] = answer_message(leader, stream, !length);
  return json;
}

// Shows an answer that may call tools: the calls behind it, as JSON. Without tools the text is
// shown as it comes.
class Display {
 public:
  Display(const Leader& leader, bool silent)
      : leader_(leader),
        silent_(silent),
        output_(nullptr, true, silent),
        splitter_(!leader.tools.empty() &&
                      opens_thinking(*leader.text.tokenizer(), leader.request.prompt),
                  true) {}

  void show(const std::string& text, size_t n_tokens) {
    if (!leader_.tools.empty())
      output_.show(splitter_.push(text), static_cast<int64_t>(n_tokens));
    else if (!silent_ && !text.empty())
      write_out(text);
  }
  void end(bool complete) {
    if (leader_.tools.empty()) return write_out("\n");
    output_.show(splitter_.finish(), 0);
    output_.end(answer_parts(splitter_, leader_.tools, complete));
  }

 private:
  const Leader& leader_;
  bool silent_;
  ChatOutput output_;
  AnswerSplitter splitter_;
};

// The end of the answer on rank 0: what is left of the text, the summary, the JSON object.
void report(const Job& job,
            const Worker& worker,
            const Leader& leader,
            AnswerStream& stream,
            Display& display,
            const std::vector<RankReport>& reports) {
  display.show(stream.finish(), stream.tokens().size());
  if (leader.logits) leader.logits->finish();
  const EngineStats& stats = worker.engine.stats();
  const MeasuredRates rates = {rate(stats.prefill_tokens, stats.prefill_seconds),
                               rate(stats.decode_tokens, stats.decode_seconds)};
  const Prediction prediction =
      predict_run(job, reports, stats, {stats.prefill_tokens, stats.decode_tokens});
  if (job.options.json)
    write_out(answer_json(
                  job, worker, leader, stream, reports, prediction_json(prediction, reports, rates))
                  .dump(-1, ' ', false, Json::error_handler_t::replace) +
              "\n");
  else if (leader.text.tokenizer() != nullptr)
    display.end(worker.engine.sequence(0).finish != FinishReason::kLength);
  else
    write_out(fmt::format("{}\n", fmt::join(stream.tokens(), ",")));
  const std::string summary =
      summary_text(job, reports, stats, bytes_per_token(job.config, job.stored)) +
      prediction_text(prediction, reports, rates);
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
  std::optional<Display> display;
  if (leader) display.emplace(*leader, job.options.json);
  EngineListener listener;
  listener.on_token = [&](int32_t, int32_t token) {
    display->show(stream.push(token), stream.tokens().size());
    return !stream.stopped();
  };
  listener.on_logits = [&](int32_t id, int64_t position, std::span<const float> row) {
    const int32_t token = worker.engine.sequence(id).tokens[static_cast<size_t>(position)];
    leader->logits->append(token, row);
  };
  RunClock clock(session, job, worker);
  worker.engine.run(listener);
  const std::vector<RankReport> reports = clock.reports();
  const RecordedRun record = clock.recorded();
  if (leader) report(job, worker, *leader, stream, *display, reports);
  write_record(job, record, {"answer", reports, worker.engine.stats(), nullptr});
  return 0;
}

}  // namespace glm
