// SPDX-License-Identifier: MIT
#include "apps/eval_options.h"

#include <limits>

#include <CLI/CLI.hpp>

#include "apps/program.h"

namespace glm {
namespace {

constexpr int64_t kMost = int64_t{1} << 31;

void add_text_options(CLI::App& app, EvalOptions& o) {
  app.add_option("--window", o.window, "Tokens that the model sees at once")
      ->check(integer_in(2, kMost))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--stride", o.stride, "Tokens of a window that count; the rest is context")
      ->check(integer_in(1, kMost))
      ->type_name("N")
      ->capture_default_str();
}

void add_common_options(CLI::App& app, EvalOptions& o, const std::string& what) {
  app.add_option("--limit", o.limit, "Only the first N " + what)
      ->check(integer_in(1, std::numeric_limits<int64_t>::max()))
      ->type_name("N");
  app.add_flag("--json", o.job.json, "The last line of stdout is a JSON object");
  add_rank_options(app, o.job);
}

CLI::Option* add_model(CLI::App& app, EvalOptions& o) {
  return app.add_option("--model", o.job.model, "Model file of glm_convert")
      ->type_name("PATH")
      ->required();
}

CLI::App* add_perplexity(CLI::App& app, EvalOptions& o) {
  CLI::App* sub = app.add_subcommand("perplexity", "How well a model predicts a text");
  add_model(*sub, o);
  sub->add_option("--text", o.text, "The text, UTF-8")->type_name("PATH")->required();
  add_text_options(*sub, o);
  add_common_options(*sub, o, "tokens of the text");
  return sub;
}

CLI::App* add_answers(CLI::App& app, EvalOptions& o) {
  CLI::App* sub = app.add_subcommand("answers", "How many answers are right to the letter");
  add_model(*sub, o);
  sub->add_option("--jsonl", o.questions, "Lines like {\"prompt\": \"...\", \"answer\": \"...\"}")
      ->type_name("PATH")
      ->required();
  sub->add_option("--max-tokens", o.job.max_tokens, "Longest answer in tokens (default: 1024)")
      ->check(integer_in(1, kMost))
      ->type_name("N");
  sub->add_option("--context", o.job.context, "Positions of the cache")
      ->check(integer_in(1, kMost))
      ->type_name("N");
  add_mtp_option(*sub, o.job);
  sub->add_option("--system", o.job.system, "A system message before each question")
      ->type_name("TEXT");
  add_common_options(*sub, o, "questions");
  return sub;
}

CLI::App* add_compare(CLI::App& app, EvalOptions& o) {
  CLI::App* sub = app.add_subcommand("compare", "How far a model's predictions are from another's");
  sub->add_option("A", o.job.model, "Model file to compare with, say in f32")->required();
  sub->add_option("B", o.other, "Model file that is judged, say in q40")->required();
  sub->add_option("--text", o.text, "The text, UTF-8 (default: a short sample)")->type_name("PATH");
  add_text_options(*sub, o);
  add_common_options(*sub, o, "tokens of the text");
  return sub;
}

void judge(EvalOptions& o) {
  judge_rank_options(o.job);
  if (o.stride > o.window)
    fail(ExitCode::kUsage, "--stride {} is beyond the --window of {}", o.stride, o.window);
}

}  // namespace

EvalCommand parse_eval_command(int argc, char** argv) {
  EvalCommand command;
  EvalOptions& o = command.options;
  CLI::App app("Measures a model: mpirun -np 4 glm_eval perplexity --model M.h5 --text F",
               "glm_eval");
  app.get_formatter()->column_width(34);
  app.set_version_flag("--version", [] { return version_text("glm_eval"); });
  app.require_subcommand(1);
  const CLI::App* answers = add_answers(app, o);
  const CLI::App* compare = add_compare(app, o);
  add_perplexity(app, o);
  try {
    if (!parse_options(app, argc, argv, command.text)) {
      command.kind = Launch::Kind::kText;
      return command;
    }
    if (answers->parsed()) {
      o.what = EvalOptions::What::kAnswers;
      o.job.batch = o.questions;  // as many at once as in a batch
      o.job.temperature = 0.0f;
      o.job.mtp = o.job.mtp.value_or(DraftMode::kOff);
    } else {
      o.what = compare->parsed() ? EvalOptions::What::kCompare : EvalOptions::What::kPerplexity;
      o.job.score_window = o.window;
    }
    judge(o);
  } catch (const Error& error) {
    command.kind = Launch::Kind::kError;
    command.text = error.what();
  }
  return command;
}

}  // namespace glm
