// SPDX-License-Identifier: MIT
#include "apps/infer_options.h"

#include <cmath>
#include <limits>

#include <CLI/CLI.hpp>

#include "apps/option_choice.h"
#include "apps/program.h"

namespace glm {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

void add_prompt_options(CLI::App& app, InferOptions& o) {
  app.add_option(
         "--model", o.model, "Model file of glm_convert; a folder with config.json for --dry-run")
      ->type_name("PATH")
      ->group("Prompt");
  auto* prompt = app.add_option("--prompt", o.prompt, "The user's message")->type_name("TEXT");
  auto* file = app.add_option("--prompt-file", o.prompt_file, "Read the message from a file")
                   ->type_name("PATH");
  auto* tokens = app.add_option("--tokens", o.tokens, "Token ids as the whole prompt, e.g. 1,2,3")
                     ->type_name("IDS");
  auto* raw =
      app.add_flag("--raw",
                   o.raw,
                   "Continue the text as it is: no chat template, control tokens are recognised");
  auto* system = app.add_option("--system", o.system, "The system message")->type_name("TEXT");
  prompt->excludes(file)->excludes(tokens);
  file->excludes(tokens);
  raw->excludes(system)->excludes(tokens);
  tokens->excludes(system);
  for (CLI::Option* option : {prompt, file, tokens, raw, system}) option->group("Prompt");
  add_choice<bool>(app,
                   "--thinking",
                   o.thinking,
                   {{"on", true}, {"off", false}},
                   "Let the model reason first (default: as the template decides)")
      ->group("Prompt");
  app.add_option("--tools", o.tools, "Offer the tools of a JSON file; calls are shown as JSON")
      ->type_name("FILE")
      ->excludes(raw)
      ->excludes(tokens)
      ->group("Prompt");
  app.add_flag("--show-thinking", o.show_thinking, "Show the reasoning in a chat (default: folded)")
      ->group("Prompt");
}

void add_synthetic_options(CLI::App& app, InferOptions& o) {
  const auto group = [](CLI::Option* option) {
    option->group("Models without a file");
    return option;
  };
  auto* synthetic =
      group(app.add_option("--synthetic",
                           o.synthetic,
                           "Random weights in the shape of this config.json, made by each rank for "
                           "itself: those that glm_convert --synthetic writes")
                ->type_name("CONFIG.json")
                ->excludes(app.get_option("--model")));
  group(app.add_option("--synthetic-seed", o.synthetic_seed, "Seed of the random weights")
            ->check(integer_in(0, std::numeric_limits<int64_t>::max()))
            ->type_name("N")
            ->needs(synthetic)
            ->capture_default_str());
  const std::vector<std::pair<std::string, DType>> dtypes = {{"f32", DType::kF32},
                                                             {"bf16", DType::kBF16},
                                                             {"f16", DType::kF16},
                                                             {"q80", DType::kQ80},
                                                             {"q40", DType::kQ40}};
  group(add_choice<DType>(app,
                          "--dtype",
                          o.dtype,
                          dtypes,
                          "Their matrices, or those to plan for when --model is a folder (default "
                          "q40)"));
  group(add_choice<DType>(app,
                          "--embedding-dtype",
                          o.embedding_dtype,
                          dtypes,
                          "The embedding (default: q80 with --dtype q40, else as --dtype)"));
  group(add_choice<DType>(
      app, "--head-dtype", o.head_dtype, dtypes, "The output head (default: likewise)"));
}

void add_generation_options(CLI::App& app, InferOptions& o) {
  const int64_t max = int64_t{1} << 31;
  const auto group = [](CLI::Option* option) {
    option->group("Generation (defaults: the model's generation_config.json)");
  };
  group(app.add_option("--max-tokens",
                       o.max_tokens,
                       "Longest answer in tokens (default: 1024 or what the context leaves)")
            ->check(integer_in(1, max))
            ->type_name("N"));
  group(app.add_option("--temperature", o.temperature, "0 takes the most likely token")
            ->check(number_in(0, 100))
            ->type_name("X"));
  group(app.add_option("--top-p", o.top_p, "Keep the smallest set of this probability")
            ->check(number_in(0, 1, true))
            ->type_name("X"));
  group(app.add_option("--top-k", o.top_k, "Keep the k most likely tokens; 0: all")
            ->check(integer_in(0, max - 1))
            ->type_name("N"));
  group(app.add_option("--min-p", o.min_p, "Keep tokens this likely relative to the best")
            ->check(number_in(0, 1))
            ->type_name("X"));
  group(app.add_option("--repetition-penalty", o.repetition_penalty, "Above 1: fewer repetitions")
            ->check(number_in(0, 100, true))
            ->type_name("X"));
  group(app.add_option("--seed", o.seed, "Seed of the sampler")
            ->check(integer_in(0, std::numeric_limits<int64_t>::max()))
            ->type_name("N")
            ->capture_default_str());
  group(app.add_option("--stop", o.stop, "End the answer before this text (repeatable)")
            ->type_name("TEXT")
            ->allow_extra_args(false));
  group(app.add_option("--context",
                       o.context,
                       "Positions of the cache (default: the model's maximum, at most 8192)")
            ->check(integer_in(1, max))
            ->type_name("N"));
  add_mtp_option(app, o);
  group(app.get_option("--mtp"));
}

void add_batch_options(CLI::App& app, InferOptions& o) {
  const auto group = [](CLI::Option* option) { option->group("Many requests"); };
  group(app.add_option("--batch", o.batch, "Answer the requests of a file of JSON lines")
            ->type_name("IN.jsonl"));
  group(app.add_option("--output", o.output, "The answers, a line each as soon as it is complete")
            ->type_name("OUT.jsonl"));
  group(app.add_flag("--resume", o.resume, "Go on with an output: leave out what it has answered"));
  group(app.add_option("--state",
                       o.state,
                       "Stop on SIGUSR1 or SIGTERM with exit code 75; what is under way is kept in "
                       "this file, and the same command goes on from it")
            ->type_name("FILE")
            ->excludes(app.get_option("--resume")));
  group(app.add_option("--state-interval",
                       o.state_interval,
                       "Seconds from one save to the next (default: 600; 0: only when stopped)")
            ->check(number_in(0, 1e7))
            ->type_name("S")
            ->needs(app.get_option("--state")));
  group(app.add_option("--max-sequences",
                       o.max_sequences,
                       "Requests that run at once on each data rank (default: 8)")
            ->check(integer_in(1, 4096))
            ->type_name("N"));
  group(app.add_option("--cache-tokens",
                       o.cache_tokens,
                       "Positions of the cache that they share (default: the context for each, "
                       "or what the memory leaves)")
            ->check(integer_in(1, int64_t{1} << 40))
            ->type_name("N"));
}

// "24,24,80" in GB.
void add_report_options(CLI::App& app, InferOptions& o) {
  const auto group = [](CLI::Option* option) { option->group("Reports"); };
  group(app.add_flag("--dry-run", o.dry_run, "Print grid and bytes per rank, load nothing"));
  group(app.add_option(
               "--ranks", o.ranks, "Ranks to plan for with --dry-run (default: those running)")
            ->check(integer_in(1, 1 << 20))
            ->type_name("N"));
  group(app.add_option("--dump-logits", o.dump_logits, "Write all logits to this HDF5 file")
            ->type_name("PATH"));
  group(app.add_option("--record",
                       o.record,
                       "Write how the run went to this HDF5 file: configuration, each step of each "
                       "rank, memory, energy")
            ->type_name("PATH"));
  group(app.add_option("--price-per-hour",
                       o.price_per_hour,
                       "What the whole job costs per hour, in any currency: adds the cost of a "
                       "million tokens to the summary")
            ->check(number_in(0, kInfinity, true))
            ->type_name("X"));
  group(app.add_flag("--json", o.json, "The last line of stdout is a JSON object"));
  group(app.add_flag("--benchmark", o.benchmark, "Measure prefill and decode on random tokens"));
  group(app.add_option("--prompt-tokens", o.prompt_tokens, "Prompt length of --benchmark")
            ->check(integer_in(1, 1 << 30))
            ->type_name("N")
            ->capture_default_str());
  group(app.add_option("--sequences", o.sequences, "Prompts that --benchmark runs at once")
            ->check(integer_in(1, 4096))
            ->type_name("N")
            ->capture_default_str());
  group(app.add_option("--repeat", o.repeat, "Runs of --benchmark; medians are reported")
            ->check(integer_in(1, 10000))
            ->type_name("N")
            ->capture_default_str());
  group(app.add_flag_callback(
      "--no-roofs",
      [&o] { o.roofs = false; },
      "Leave out what --benchmark measures of the machine itself"));
}

void judge_batch(const InferOptions& o, bool has_prompt) {
  if (!o.batch) {
    if (o.output || o.resume || o.state || o.max_sequences || o.cache_tokens)
      fail(ExitCode::kUsage,
           "--output, --resume, --state, --max-sequences and --cache-tokens go with --batch only");
    return;
  }
  if (has_prompt || o.benchmark || o.dump_logits)
    fail(ExitCode::kUsage,
         "--batch brings its own prompts: leave out --prompt, --prompt-file, --tokens, --benchmark "
         "and --dump-logits");
  if (!o.output && !o.dry_run)
    fail(ExitCode::kUsage, "--batch needs --output, a file for the answers");
  if (o.state && (o.state->empty() || o.state == o.output))
    fail(ExitCode::kUsage, "--state needs a file of its own");
}

// Of a synthetic model, which has no tokenizer.
void judge_synthetic(const InferOptions& o) {
  if (!o.synthetic) return;
  if (o.synthetic->empty()) fail(ExitCode::kUsage, "--synthetic needs a path");
  if (o.prompt || o.prompt_file || o.chat)
    fail(ExitCode::kUsage,
         "--synthetic: the model has no tokenizer; give ids with --tokens or --batch, or use "
         "--benchmark");
}

// Nothing else to do: a conversation.
void settle_chat(InferOptions& o) {
  o.chat = !o.prompt && !o.prompt_file && !o.tokens && !o.dry_run && !o.benchmark && !o.batch;
}

void judge(const InferOptions& o) {
  if (o.model.empty() && !o.synthetic)
    fail(ExitCode::kUsage, "--model needs a path (or --synthetic a config.json); try --help");
  judge_synthetic(o);
  judge_rank_options(o);
  const bool has_prompt = o.prompt || o.prompt_file || o.tokens;
  if (o.chat && (o.raw || o.dump_logits))
    fail(ExitCode::kUsage,
         "no prompt: --raw and --dump-logits need --prompt or --prompt-file, not a chat");
  if (o.show_thinking && !o.chat)
    fail(ExitCode::kUsage, "--show-thinking is for a chat; leave out the prompt");
  judge_batch(o, has_prompt);
  if (o.benchmark && (has_prompt || o.dump_logits || o.tools))
    fail(ExitCode::kUsage,
         "--benchmark makes its own prompt: leave out --prompt, --tokens, --tools and "
         "--dump-logits");
  if (o.record && o.dry_run) fail(ExitCode::kUsage, "--record needs a run: leave out --dry-run");
  if (o.record && o.record->empty()) fail(ExitCode::kUsage, "--record needs a path");
  for (const std::string& stop : o.stop)
    if (stop.empty()) fail(ExitCode::kUsage, "--stop needs a text of at least one byte");
  if (o.ranks && !o.dry_run)
    fail(ExitCode::kUsage, "--ranks belongs to --dry-run; start ranks with mpirun -np N");
}

}  // namespace

void add_mtp_option(CLI::App& app, InferOptions& o) {
  add_choice<DraftMode>(
      app,
      "--mtp",
      o.mtp,
      {{"on", DraftMode::kOn}, {"off", DraftMode::kOff}, {"auto", DraftMode::kAuto}},
      "Guess tokens with the model's MTP layer; auto: for greedy answers, while it pays (default "
      "auto; off for --benchmark)");
}

ParsedCommand parse_infer_command(int argc, char** argv) {
  ParsedCommand command;
  CLI::App app(
      "Runs a GLM mixture-of-experts model as one MPI job: mpirun -np 4 glm_infer --model M.h5 "
      "--prompt TEXT",
      "glm_infer");
  app.get_formatter()->column_width(34);
  app.set_version_flag("--version", [] { return version_text("glm_infer"); });
  add_prompt_options(app, command.options);
  add_synthetic_options(app, command.options);
  add_generation_options(app, command.options);
  add_batch_options(app, command.options);
  add_rank_options(app, command.options);
  add_report_options(app, command.options);
  command.options.command_line.assign(argv, argv + argc);
  const CLI::App* doctor = add_doctor_command(app, command.options);
  try {
    if (!parse_options(app, argc, argv, command.text)) {
      command.kind = ParsedCommand::Kind::kText;
      return command;
    }
    if (doctor->parsed()) {
      settle_doctor(app, *doctor, command.options);
      return command;
    }
    settle_chat(command.options);
    judge(command.options);
    command.stops_on_request = command.options.state.has_value();
    if (command.options.synthetic) command.options.model = *command.options.synthetic;
    if (command.options.benchmark && !command.options.max_tokens) command.options.max_tokens = 64;
  } catch (const Error& error) {
    command.kind = ParsedCommand::Kind::kError;
    command.text = error.what();
  }
  return command;
}

}  // namespace glm
