// A conversation: rank 0 reads lines and shows answers, the others follow. The cache of a turn is
// left to the next one, which begins with the same tokens. SPDX-License-Identifier: MIT
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <optional>

#include "apps/chat_input.h"
#include "apps/chat_output.h"
#include "apps/chat_session.h"
#include "apps/infer_run.h"
#include "apps/infer_text.h"
#include "apps/infer_tools.h"
#include "core/model/token_bytes.h"
#include "parallel/mpi_launch.h"

namespace glm {
namespace {

using Clock = std::chrono::steady_clock;

// While nobody types the other ranks are told this often per --timeout that the job lives.
constexpr double kSignsOfLife = 8;

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of the prompts: the cache had them from the turn before
  int64_t completion_tokens = 0;
};

OrderedJson usage_json(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"cached_tokens", usage.cached_tokens},
          {"completion_tokens", usage.completion_tokens}};
}

const char* end_name(ChatAnswer::End end) {
  if (end == ChatAnswer::End::kInterrupted) return "interrupted";
  return end == ChatAnswer::End::kLength ? "length" : "stop";
}

// What rank 0 alone has.
class ChatLeader final : public ChatHost {
 public:
  explicit ChatLeader(const Job& job);

  // Until the input ends.
  void run(Engine& engine);
  ChatAnswer answer(const OrderedJson& messages, const OrderedJson& tools) override;
  void say(const std::string& line) override { output_.say(line); }
  // With --json, behind the answers' objects.
  OrderedJson summary_json() const;
  std::string summary_text() const;

 private:
  Request request(const OrderedJson& messages, const OrderedJson& tools) const;
  ChatAnswer::End compute(Request request, AnswerSplitter& splitter);
  void count(const Sequence& sequence);
  void read_lines(ChatInput& input);
  void stay_alive();

  const Job& job_;
  TextSide text_;
  OrderedJson tools_;
  std::unique_ptr<ChatTerminal> terminal_;
  ChatOutput output_;
  ChatSession session_;
  Engine* engine_ = nullptr;
  ChatInput* input_ = nullptr;
  Usage turn_, total_;
  Clock::time_point sign_ = Clock::now();
};

ChatLeader::ChatLeader(const Job& job)
    : job_(job),
      text_(job.source.texts, job.config, job.source.path),
      tools_(read_tools(job.options.tools)),
      terminal_(ChatTerminal::find(!started_alone())),
      output_(terminal_.get(), job.options.show_thinking, job.options.json),
      session_(*this, job.options.system, tools_) {
  // A template that the program cannot run is better known before the weights are loaded.
  text_.chat_ids(chat_messages("Hello", job.options.system), tools_, job.options.thinking);
}

Request ChatLeader::request(const OrderedJson& messages, const OrderedJson& tools) const {
  Request request;
  request.prompt = text_.chat_ids(messages, tools, job_.options.thinking);
  const auto n_prompt = static_cast<int64_t>(request.prompt.size());
  const int64_t room = job_.model.limits.max_context - n_prompt;
  if (n_prompt == 0) fail(ExitCode::kUsage, "the prompt is empty");
  if (room < 1)
    fail(ExitCode::kUsage,
         "the conversation would have {} tokens, the context has {}; the message is left out. "
         "/reset begins a new one, and --context N (at most {}) makes room for longer ones",
         n_prompt,
         job_.model.limits.max_context,
         job_.config.max_positions);
  request.sampling = text_.sampling(job_.options);
  request.sampling.seed += static_cast<uint64_t>(session_.n_turns());
  request.stop_ids = text_.stop_ids();
  request.max_tokens = std::min(room, job_.options.max_tokens.value_or(kDefaultMaxTokens));
  request.keep_cache = true;
  return request;
}

ChatAnswer ChatLeader::answer(const OrderedJson& messages, const OrderedJson& tools) {
  Request wanted = request(messages, tools);
  AnswerSplitter splitter(opens_thinking(*text_.tokenizer(), wanted.prompt), !tools.empty());
  output_.begin();
  ChatAnswer out;
  out.end = compute(std::move(wanted), splitter);
  out.parts = answer_parts(splitter, tools, out.end == ChatAnswer::End::kStop);
  output_.end(out.parts);
  if (job_.options.json) {
    const OrderedJson line = {{"turn", session_.n_turns() + 1},
                              {"message", message_json(out.parts)},
                              {"finish_reason", end_name(out.end)},
                              {"usage", usage_json(turn_)}};
    write_out(line.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n");
  }
  return out;
}

ChatAnswer::End ChatLeader::compute(Request wanted, AnswerSplitter& splitter) {
  AnswerStream stream(text_.tokenizer(), job_.options.stop);
  EngineListener listener;
  listener.on_token = [&](int32_t, int32_t token) {
    const AnswerSplitter::Piece piece = splitter.push(stream.push(token));
    output_.show(piece, static_cast<int64_t>(stream.tokens().size()));
    return !stream.stopped();
  };
  const int32_t id = engine_->submit(std::move(wanted), listener);
  bool interrupted = false;
  while (engine_->step())
    if (!interrupted && input_->interrupted()) {
      interrupted = true;
      engine_->cancel(id);
    }
  output_.show(splitter.push(stream.finish()), static_cast<int64_t>(stream.tokens().size()));
  output_.show(splitter.finish(), static_cast<int64_t>(stream.tokens().size()));
  const Sequence& sequence = engine_->sequence(id);
  count(sequence);
  const FinishReason finish = sequence.finish;
  engine_->forget(id);
  sign_ = Clock::now();
  if (finish == FinishReason::kCancelled) return ChatAnswer::End::kInterrupted;
  return finish == FinishReason::kLength ? ChatAnswer::End::kLength : ChatAnswer::End::kStop;
}

void ChatLeader::count(const Sequence& sequence) {
  turn_.prompt_tokens = static_cast<int64_t>(sequence.request.prompt.size());
  turn_.cached_tokens = sequence.cached;
  turn_.completion_tokens = sequence.n_generated();
  total_.prompt_tokens += turn_.prompt_tokens;
  total_.cached_tokens += turn_.cached_tokens;
  total_.completion_tokens += turn_.completion_tokens;
}

void ChatLeader::stay_alive() {
  if (Clock::now() - sign_ < std::chrono::duration<double>(job_.options.timeout / kSignsOfLife))
    return;
  sign_ = Clock::now();
  engine_->keep_alive();
}

void ChatLeader::run(Engine& engine) {
  engine_ = &engine;
  engine.clear_stats();
  ChatInput input(terminal_.get(), [this] { stay_alive(); });
  input_ = &input;
  if (terminal_)
    say(fmt::format("chat with {}; /help lists the commands, Ctrl-D ends",
                    escaped(job_.source.path)));
  read_lines(input);
  input_ = nullptr;
}

void ChatLeader::read_lines(ChatInput& input) {
  std::string line;
  for (;;) {
    try {
      const ChatInput::Event event = input.read(session_.continues() ? ". " : "> ", line);
      // Without a terminal nobody could try again.
      if (event == ChatInput::Event::kInterrupt && !terminal_) return;
      if (event == ChatInput::Event::kInterrupt) {
        session_.abandon();
        say("^C (/quit or Ctrl-D ends)");
        continue;
      }
      if (event == ChatInput::Event::kEnd && session_.continues()) line.clear();
      if (event == ChatInput::Event::kEnd && !session_.continues()) break;
    } catch (const Error& error) {
      if (error.code() != ExitCode::kUsage) throw;
      say(error.what());
      continue;
    }
    if (!session_.line(line)) return;
  }
  if (terminal_) say("");
}

OrderedJson ChatLeader::summary_json() const {
  OrderedJson json = {{"turns", session_.n_turns()}};
  json.update(usage_json(total_));
  return json;
}

std::string ChatLeader::summary_text() const {
  return fmt::format("chat: {} turns, {} prompt tokens, {} of them cached, {} answer tokens\n",
                     session_.n_turns(),
                     total_.prompt_tokens,
                     total_.cached_tokens,
                     total_.completion_tokens);
}

void report(const Job& job,
            const Worker& worker,
            const ChatLeader& leader,
            const std::vector<RankReport>& reports) {
  if (job.options.json) {
    const OrderedJson out = {{"chat", leader.summary_json()},
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
  std::fputs((summary + leader.summary_text()).c_str(), stderr);
}

}  // namespace

int run_chat(MpiSession& session, const Job& job, StepContext& where) {
  std::optional<ChatLeader> leader;
  session.on_root([&] { leader.emplace(job); });
  check_memory(session, job);
  where.phase = "load";
  Worker worker(session, job, where);
  RunClock clock(session, job, worker);
  if (leader) {
    leader->run(worker.engine);
    worker.engine.stop();
  } else {
    std::signal(SIGINT, SIG_IGN);  // some launchers hand Ctrl-C to all ranks; it is for rank 0
    worker.engine.follow();
  }
  const std::vector<RankReport> reports = clock.reports();
  const RecordedRun record = clock.recorded();
  if (leader) report(job, worker, *leader, reports);
  write_record(job, record, {"chat", reports, worker.engine.stats(), nullptr});
  return 0;
}

}  // namespace glm
