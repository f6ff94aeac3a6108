// --batch: the requests of a file, as many at once as the limits allow; answers are written as they
// end. SPDX-License-Identifier: MIT
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <optional>

#include <unistd.h>

#include "apps/batch_file.h"
#include "apps/infer_run.h"
#include "apps/infer_text.h"
#include "apps/infer_tools.h"
#include "core/model/token_bytes.h"
#include "io/answer_parts.h"

namespace glm {
namespace {

using Clock = std::chrono::steady_clock;

// A crash of the host may cost the answers of this long; the end of the job alone costs none.
constexpr auto kSyncPause = std::chrono::seconds(5);

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// How far the batch is, on stderr: redrawn on a terminal, else a line now and then.
class BatchProgress {
 public:
  BatchProgress() : terminal_(::isatty(STDERR_FILENO) != 0) {}

  void update(size_t done, size_t total, int64_t running, int64_t n_tokens) {
    const auto pause = terminal_ ? std::chrono::milliseconds(200) : std::chrono::milliseconds(5000);
    if (Clock::now() - last_ < pause) return;
    last_ = Clock::now();
    const std::string line =
        fmt::format("glm_infer: {} of {} answers, {} running, {:.1f} tokens/s",
                    done,
                    total,
                    running,
                    static_cast<double>(n_tokens) / std::max(1e-9, seconds_since(start_)));
    std::fputs((terminal_ ? "\r\x1b[K" + line : line + "\n").c_str(), stderr);
    std::fflush(stderr);
    drawn_ = terminal_;
  }
  void finish() {
    if (drawn_) std::fputs("\r\x1b[K", stderr);
    drawn_ = false;
  }

 private:
  bool terminal_;
  bool drawn_ = false;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_ = start_;
};

struct Totals {
  size_t n_lines = 0;
  size_t n_skipped = 0;
  size_t n_done = 0;
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  double seconds = 0;
  int64_t preempted = 0;
};

// What rank 0 alone has: the requests, and their answers as they grow.
class BatchLeader {
 public:
  explicit BatchLeader(const Job& job);

  // Requests that no earlier run has answered.
  size_t n_open() const { return open_.size(); }
  void submit(Engine& engine);
  const Totals& totals() const { return totals_; }
  void finish(Engine& engine);

 private:
  struct Open {
    std::string id;
    Request request;
    std::vector<std::string> stops;
    OrderedJson tools;  // null: none
  };
  struct Answer {
    std::string id;
    AnswerStream stream;
    OrderedJson tools;
  };

  Open judged(const BatchItem& item) const;
  OrderedJson tools_of(const BatchItem& item) const;
  std::vector<int32_t> prompt_ids(const BatchItem& item) const;
  void write(Engine& engine, int32_t id);

  const Job& job_;
  TextSide text_;
  OrderedJson tools_;  // of lines that bring none
  std::vector<Open> open_;
  std::unique_ptr<BatchOutput> output_;
  std::map<int32_t, Answer> answers_;  // by the engine's id
  Totals totals_;
  BatchProgress progress_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point synced_ = start_;
};

BatchLeader::BatchLeader(const Job& job)
    : job_(job),
      text_(job.source.texts, job.config, job.source.path),
      tools_(read_tools(job.options.tools)) {
  const std::vector<BatchItem> items = read_batch(*job.options.batch, job.options);
  totals_.n_lines = items.size();
  LineErrors errors(*job.options.batch);
  std::vector<Open> all;
  for (const BatchItem& item : items) errors.check(item.line, [&] { all.push_back(judged(item)); });
  errors.finish();
  output_ =
      std::make_unique<BatchOutput>(*job.options.output, *job.options.batch, job.options.resume);
  for (Open& open : all)
    if (!output_->done().contains(open.id)) open_.push_back(std::move(open));
  totals_.n_skipped = items.size() - open_.size();
}

OrderedJson BatchLeader::tools_of(const BatchItem& item) const {
  if (!item.tools.is_null()) return item.tools;
  return item.options.raw || !item.tokens.empty() ? OrderedJson() : tools_;
}

std::vector<int32_t> BatchLeader::prompt_ids(const BatchItem& item) const {
  for (const int32_t id : item.tokens)
    if (id >= job_.config.vocab)
      fail(
          ExitCode::kUsage, "tokens: id {} is outside the vocabulary of {}", id, job_.config.vocab);
  if (!item.tokens.empty()) return item.tokens;
  if (item.options.prompt && (item.options.raw || text_.tokenizer() == nullptr))
    return text_.prompt_ids(item.options);
  return text_.chat_ids(item.options.prompt
                            ? chat_messages(*item.options.prompt, item.options.system)
                            : item.messages,
                        tools_of(item),
                        item.options.thinking);
}

BatchLeader::Open BatchLeader::judged(const BatchItem& item) const {
  Open open;
  open.id = item.id;
  open.stops = item.options.stop;
  open.tools = tools_of(item);
  Request& request = open.request;
  request.prompt = prompt_ids(item);
  request.sampling = text_.sampling(item.options);
  request.stop_ids = text_.stop_ids();
  const auto n_prompt = static_cast<int64_t>(request.prompt.size());
  const int64_t room =
      std::min(job_.model.limits.max_context, job_.model.kv_blocks * kKvBlockTokens) - n_prompt;
  const int64_t wanted = item.options.max_tokens.value_or(1);
  if (n_prompt == 0) fail(ExitCode::kUsage, "the prompt is empty");
  if (wanted > room)
    fail(ExitCode::kUsage,
         "a prompt of {} tokens and {} answer tokens exceed the context of {} or the cache of {}; "
         "lower max_tokens or raise --context or --cache-tokens",
         n_prompt,
         wanted,
         job_.model.limits.max_context,
         job_.model.kv_blocks * kKvBlockTokens);
  request.max_tokens = item.options.max_tokens.value_or(std::min(room, kDefaultMaxTokens));
  return open;
}

void BatchLeader::submit(Engine& engine) {
  EngineListener listener;
  listener.on_token = [this, &engine](int32_t id, int32_t token) {
    AnswerStream& stream = answers_.at(id).stream;
    stream.push(token);
    ++totals_.completion_tokens;
    progress_.update(
        totals_.n_done, open_.size(), engine.scheduler().n_running(), totals_.completion_tokens);
    return !stream.stopped();
  };
  listener.on_finish = [this, &engine](int32_t id) { write(engine, id); };
  start_ = synced_ = Clock::now();
  for (Open& open : open_) {
    const int32_t id = engine.submit(std::move(open.request), listener);
    answers_.emplace(id,
                     Answer{std::move(open.id),
                            AnswerStream(text_.tokenizer(), std::move(open.stops)),
                            std::move(open.tools)});
  }
}

void BatchLeader::write(Engine& engine, int32_t id) {
  const auto at = answers_.find(id);
  AnswerStream& stream = at->second.stream;
  stream.finish();
  const Sequence& sequence = engine.sequence(id);
  const size_t n_prompt = sequence.request.prompt.size();
  const bool length = sequence.finish == FinishReason::kLength;
  OrderedJson line = {
      {"id", at->second.id},
      {"text", stream.text()},
      {"tokens", stream.tokens()},
      {"finish_reason", length ? "length" : "stop"},
      {"usage", {{"prompt_tokens", n_prompt}, {"completion_tokens", stream.tokens().size()}}}};
  const OrderedJson& tools = at->second.tools;
  if (!tools.empty()) {
    const bool inside = opens_thinking(*text_.tokenizer(), sequence.request.prompt);
    line["message"] = message_json(parse_answer(stream.text(), inside, tools, !length));
  }
  output_->append(line.dump(-1, ' ', false, OrderedJson::error_handler_t::replace));
  totals_.prompt_tokens += static_cast<int64_t>(n_prompt);
  ++totals_.n_done;
  answers_.erase(at);
  engine.forget(id);
  if (Clock::now() - synced_ < kSyncPause) return;
  output_->sync();
  synced_ = Clock::now();
}

void BatchLeader::finish(Engine& engine) {
  progress_.finish();
  output_->sync();
  totals_.seconds = seconds_since(start_);
  totals_.preempted = engine.scheduler().n_preempted();
}

Json totals_json(const Totals& totals) {
  return {{"lines", totals.n_lines},
          {"skipped", totals.n_skipped},
          {"answered", totals.n_done},
          {"prompt_tokens", totals.prompt_tokens},
          {"completion_tokens", totals.completion_tokens},
          {"seconds", totals.seconds},
          {"completion_tokens_per_second", rate(totals.completion_tokens, totals.seconds)},
          {"preemptions", totals.preempted}};
}

std::string totals_text(const Totals& totals) {
  return fmt::format(
      "batch: {} lines, {} answered before, {} answered in {:.2f} s; {} prompt tokens, {} answer "
      "tokens, {:.1f} of them per second; {} preemptions\n",
      totals.n_lines,
      totals.n_skipped,
      totals.n_done,
      totals.seconds,
      totals.prompt_tokens,
      totals.completion_tokens,
      rate(totals.completion_tokens, totals.seconds),
      totals.preempted);
}

void report(const Job& job,
            const Worker& worker,
            const Totals& totals,
            const std::vector<RankReport>& reports) {
  if (job.options.json) {
    const Json out = {{"batch", totals_json(totals)},
                      {"grid", grid_json(job)},
                      {"model_bytes", job.plan.model_bytes},
                      {"ops", worker.ops->name()},
                      {"drafts", drafts_json(job, worker.engine.stats())},
                      {"cost", cost_json(job, reports, worker.engine.stats())},
                      {"ranks", ranks_json(job, reports)}};
    write_out(out.dump() + "\n");
  }
  const std::string summary =
      summary_text(job, reports, worker.engine.stats(), bytes_per_token(job.config, job.stored));
  std::fputs((summary + totals_text(totals)).c_str(), stderr);
}

}  // namespace

int run_batch(MpiSession& session, const Job& job, StepContext& where) {
  std::optional<BatchLeader> leader;
  session.on_root([&] { leader.emplace(job); });
  std::string open = leader ? std::to_string(leader->n_open()) : std::string();
  broadcast_string(session.world(), open, 0);
  if (open == "0") {
    if (!leader) return 0;
    std::fputs(totals_text(leader->totals()).c_str(), stderr);
    if (job.options.json) write_out(Json{{"batch", totals_json(leader->totals())}}.dump() + "\n");
    return 0;
  }
  check_memory(session, job);
  where.phase = "load";
  Worker worker(session, job, where);
  if (leader) leader->submit(worker.engine);
  RunClock clock(session, job, worker);
  worker.engine.run({});
  if (leader) leader->finish(worker.engine);
  const std::vector<RankReport> reports = clock.reports();
  const RecordedRun record = clock.recorded();
  if (!leader) return 0;
  report(job, worker, leader->totals(), reports);
  write_record(
      job, record, {"batch", reports, worker.engine.stats(), totals_json(leader->totals())});
  return 0;
}

}  // namespace glm
