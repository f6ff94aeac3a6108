// Questions with one right answer each, asked greedily, many at once. SPDX-License-Identifier: MIT
#include <cstdio>
#include <map>
#include <optional>

#include "apps/eval_run.h"
#include "core/model/token_bytes.h"

namespace glm {
namespace {

// Wrong answers that are shown to people; --json has all.
constexpr size_t kShown = 20;

struct Wrong {
  const Question* question;
  std::string found;
};

// What rank 0 alone has: the questions, and their answers as they grow.
class Examiner {
 public:
  Examiner(const Job& job, const EvalOptions& options);

  void submit(Engine& engine);
  void report(const Job& job, bool json);

 private:
  struct Open {
    const Question* question;
    AnswerStream stream;
  };

  void judge(Engine& engine, int32_t id);

  TextSide text_;
  std::vector<Question> questions_;
  std::vector<Request> requests_;
  std::map<int32_t, Open> open_;    // by the engine's id
  std::map<int64_t, Wrong> wrong_;  // by line
  int64_t n_tokens_ = 0;
  std::optional<EvalProgress> progress_;
};

Examiner::Examiner(const Job& job, const EvalOptions& options)
    : text_(job.source.texts, job.config, job.source.path),
      questions_(read_questions(options.questions)) {
  if (options.limit && *options.limit < static_cast<int64_t>(questions_.size()))
    questions_.resize(static_cast<size_t>(*options.limit));
  const int64_t most = std::min(job.model.limits.max_context, job.model.kv_blocks * kKvBlockTokens);
  for (const Question& question : questions_) {
    Request request;
    request.prompt =
        text_.chat_ids(chat_messages(question.prompt, job.options.system), nullptr, std::nullopt);
    request.sampling.temperature = 0;
    request.stop_ids = text_.stop_ids();
    const int64_t room = most - static_cast<int64_t>(request.prompt.size());
    if (job.options.max_tokens.value_or(1) > room)
      fail(ExitCode::kUsage,
           "{}:{}: a prompt of {} tokens and {} answer tokens exceed the context of {}",
           escaped(options.questions),
           question.line,
           request.prompt.size(),
           job.options.max_tokens.value_or(1),
           most);
    request.max_tokens = job.options.max_tokens.value_or(std::min(room, kDefaultMaxTokens));
    requests_.push_back(std::move(request));
  }
}

void Examiner::submit(Engine& engine) {
  progress_.emplace("", "questions", static_cast<int64_t>(questions_.size()));
  EngineListener listener;
  listener.on_token = [this](int32_t id, int32_t token) {
    open_.at(id).stream.push(token);
    ++n_tokens_;
    progress_->add(0);
    return true;
  };
  listener.on_finish = [this, &engine](int32_t id) { judge(engine, id); };
  for (size_t i = 0; i < questions_.size(); ++i) {
    const int32_t id = engine.submit(std::move(requests_[i]), listener);
    open_.emplace(id, Open{&questions_[i], AnswerStream(text_.tokenizer(), {})});
  }
}

void Examiner::judge(Engine& engine, int32_t id) {
  const auto at = open_.find(id);
  at->second.stream.finish();
  const Question& question = *at->second.question;
  const std::string found = final_answer(at->second.stream.text());
  if (found != final_answer(question.answer))
    wrong_.emplace(question.line, Wrong{&question, found});
  open_.erase(at);
  engine.forget(id);
  progress_->add();
}

void Examiner::report(const Job& job, bool json) {
  progress_->finish();
  const size_t right = questions_.size() - wrong_.size();
  const double rate = static_cast<double>(right) / static_cast<double>(questions_.size());
  if (json) {
    Json wrong = Json::array();
    for (const auto& [line, answer] : wrong_)
      wrong.push_back({{"line", line},
                       {"prompt", answer.question->prompt},
                       {"answer", answer.question->answer},
                       {"found", answer.found}});
    const Json out = {{"questions", questions_.size()},
                      {"right", right},
                      {"rate", rate},
                      {"tokens", n_tokens_},
                      {"seconds", progress_->seconds()},
                      {"wrong", wrong},
                      {"grid", grid_json(job)},
                      {"model_bytes", job.plan.model_bytes}};
    write_out(out.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
    return;
  }
  size_t shown = 0;
  for (const auto& [line, answer] : wrong_) {
    if (++shown > kShown) break;
    write_out(fmt::format("line {}: expected \"{}\", found \"{}\"\n",
                          line,
                          escaped(answer.question->answer),
                          escaped(answer.found)));
  }
  if (wrong_.size() > kShown) write_out(fmt::format("and {} more\n", wrong_.size() - kShown));
  write_out(
      fmt::format("{} of {} answers are right, {:.1f} %\n", right, questions_.size(), 100 * rate));
}

}  // namespace

int run_answers(MpiSession& session, const EvalOptions& options) {
  const Job job = prepare_job(session, options.job);
  bind_process(job.cores);
  std::optional<Examiner> examiner;
  session.on_root([&] { examiner.emplace(job, options); });
  check_memory(session, job);
  StepContext& where = session.context();
  where.phase = "load";
  Worker worker(session, job, where);
  if (examiner) examiner->submit(worker.engine);
  const RunClock clock(session, job, worker);
  worker.engine.run({});
  const std::vector<RankReport> reports = clock.reports();
  if (!examiner) return 0;
  examiner->report(job, options.job.json);
  const std::string summary =
      summary_text(job, reports, worker.engine.stats(), bytes_per_token(job.config, job.stored));
  std::fputs(summary.c_str(), stderr);
  return 0;
}

}  // namespace glm
