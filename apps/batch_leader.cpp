// SPDX-License-Identifier: MIT
#include "apps/batch_leader.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <utility>

#include <unistd.h>

#include "apps/infer_tools.h"
#include "core/model/token_bytes.h"
#include "io/answer_parts.h"

namespace glm {
namespace {

// A crash of the host may cost the answers of this long; the end of the job alone costs none.
constexpr auto kSyncPause = std::chrono::seconds(5);

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

BatchProgress::BatchProgress() : terminal_(::isatty(STDERR_FILENO) != 0) {}

void BatchProgress::update(size_t done, size_t total, int64_t running, int64_t n_tokens) {
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

void BatchProgress::finish() {
  if (drawn_) std::fputs("\r\x1b[K", stderr);
  drawn_ = false;
}

BatchLeader::BatchLeader(const Job& job)
    : job_(job),
      text_(job.source.texts, job.config, job.source.path),
      tools_(read_tools(job.options.tools)) {
  const std::vector<BatchItem> items = read_batch(*job.options.batch, job.options);
  totals_.n_lines = items.size();
  LineErrors errors(*job.options.batch);
  std::vector<BatchRequest> all;
  for (const BatchItem& item : items) errors.check(item.line, [&] { all.push_back(judged(item)); });
  errors.finish();
  for (size_t i = 0; i < all.size(); ++i) all[i].place = i;
  if (job.options.state) {
    go_on(std::move(all));
  } else {
    output_ =
        std::make_unique<BatchOutput>(*job.options.output, *job.options.batch, job.options.resume);
    for (BatchRequest& open : all)
      if (!output_->done().contains(open.id)) open_.push_back(std::move(open));
  }
  totals_.n_skipped = items.size() - open_.size();
}

// With a state the output is in the order of the input, so that it is the same whatever was stopped
// when. What stands in it behind the last save was written before the job was killed.
void BatchLeader::go_on(std::vector<BatchRequest> all) {
  const InferOptions& o = job_.options;
  state_.emplace(job_, all);
  std::error_code none;
  if (!state_->found() && std::filesystem::file_size(*o.output, none) > 0 && !none)
    fail(ExitCode::kUsage,
         "--output {} has answers already, and --state {} is not there: put it back, or name "
         "another output (--resume in place of --state goes on with what is written)",
         escaped(*o.output),
         escaped(*o.state));
  output_ = std::make_unique<BatchOutput>(
      *o.output, *o.batch, state_->found(), state_->found() ? &state_->before().output : nullptr);
  n_written_ = output_->lines().size();
  for (size_t i = 0; i < n_written_; ++i)
    if (i >= all.size() || output_->lines()[i] != all[i].id)
      fail(ExitCode::kUsage,
           "--output {}: answer {} is not that of request {}; with --state they come in the order "
           "of the input",
           escaped(*o.output),
           i + 1,
           i + 1);
  open_ = state_->open(std::move(all), n_written_, held_);
  if (!state_->found()) save(nullptr, false);
  if (!open_.empty() || state_->before().finished) return;
  put_held();
  save(nullptr, true);
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

BatchRequest BatchLeader::judged(const BatchItem& item) const {
  BatchRequest open;
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
  for (BatchRequest& open : open_) {
    AnswerStream stream(text_.tokenizer(), std::move(open.stops));
    for (const int32_t token : open.so_far.tokens) stream.push(token);
    const int32_t id = engine.submit(std::move(open.request), listener, std::move(open.so_far));
    answers_.emplace(
        id, Answer{std::move(open.id), open.place, std::move(stream), std::move(open.tools)});
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
  put(at->second.place, line.dump(-1, ' ', false, OrderedJson::error_handler_t::replace));
  totals_.prompt_tokens += static_cast<int64_t>(n_prompt);
  ++totals_.n_done;
  answers_.erase(at);
  engine.forget(id);
  if (Clock::now() - synced_ < kSyncPause) return;
  output_->sync();
  synced_ = Clock::now();
}

// The line of an answer; with a state when all before it are out.
void BatchLeader::put(size_t place, std::string line) {
  if (!state_) return output_->append(std::move(line));
  held_.emplace(place, std::move(line));
  put_held();
}

void BatchLeader::put_held() {
  while (!held_.empty() && held_.begin()->first == n_written_) {
    output_->append(std::move(held_.begin()->second));
    held_.erase(held_.begin());
    ++n_written_;
  }
}

// The output first: a state never tells of answers that a crash of the host could take.
void BatchLeader::save(const Engine* engine, bool finished) {
  output_->sync();
  RunState now;
  now.finished = finished;
  now.output = output_->mark();
  for (const auto& [place, line] : held_)
    now.answers.push_back({static_cast<int64_t>(place), line});
  for (const auto& [id, answer] : answers_) {
    AnswerState known = engine->state(id);
    if (known.tokens.empty()) continue;
    RunState::Sequence& kept = now.sequences.emplace_back();
    kept.request = static_cast<int64_t>(answer.place);
    kept.seed = engine->sequence(id).request.sampling.seed;
    kept.tokens = std::move(known.tokens);
    kept.draft = known.draft;
    for (const Candidate& candidate : known.guess) {
      kept.guess_tokens.push_back(candidate.token);
      kept.guess_probabilities.push_back(candidate.probability);
    }
  }
  state_->save(std::move(now));
}

void BatchLeader::save_for_later(const Engine& engine) {
  try {
    save(&engine, false);
  } catch (const Error& error) {
    progress_.finish();
    const std::string line =
        fmt::format("glm_infer: warning: the state was not saved: {}\n", error.what());
    std::fputs(line.c_str(), stderr);
  }
}

void BatchLeader::finish(Engine& engine, int signal) {
  progress_.finish();
  totals_.stopped = signal != 0;
  if (state_) save(&engine, signal == 0);
  output_->sync();
  totals_.seconds = seconds_since(start_);
  totals_.preempted = engine.scheduler().n_preempted();
}

std::string BatchLeader::farewell(int signal) const {
  int64_t n_begun = 0;
  for (const auto& [id, answer] : answers_) n_begun += answer.stream.tokens().empty() ? 0 : 1;
  return fmt::format(
      "glm_infer: stopped by {}: {} of {} answers are complete, {} have begun; saved to {}, the "
      "same command goes on\n",
      signal_name(signal),
      totals_.n_skipped + totals_.n_done,
      totals_.n_lines,
      n_begun,
      escaped(state_->path()));
}

}  // namespace glm
