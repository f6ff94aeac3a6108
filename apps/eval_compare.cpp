// Two models on one text, one after the other: the first one's logits wait in a file, so that
// memory has to hold one model at a time. SPDX-License-Identifier: MIT
#include <optional>

#include "apps/eval_rows.h"
#include "apps/eval_run.h"

namespace glm {
namespace {

struct Results {
  std::vector<double> divergence;  // per counted token
  std::vector<double> a_scores, b_scores;
  int64_t same_top = 0;
};

// Both must mean the same by every id.
void check_vocabularies(const EvalOptions& options,
                        const Job& a,
                        const TextSide& a_text,
                        const Job& b,
                        const TextSide& b_text) {
  const auto refuse = [&](const std::string& why) {
    fail(ExitCode::kUsage,
         "{} and {} have different vocabularies: {}; only files of one model can be compared",
         escaped(options.job.model),
         escaped(options.other),
         why);
  };
  if (a.config.vocab != b.config.vocab)
    refuse(fmt::format("{} and {} tokens", a.config.vocab, b.config.vocab));
  const Tokenizer* one = a_text.tokenizer();
  const Tokenizer* two = b_text.tokenizer();
  if ((one == nullptr) != (two == nullptr)) refuse("one has no tokenizer");
  for (int32_t id = 0; one != nullptr && id < a.config.vocab; ++id)
    if (one->token_bytes(id) != two->token_bytes(id)) refuse(fmt::format("token {} differs", id));
}

void report(const EvalOptions& options, const Results& results) {
  const Spread kl = spread(results.divergence);
  const auto n = static_cast<double>(results.divergence.size());
  const double agreement = static_cast<double>(results.same_top) / n;
  const double a = perplexity(results.a_scores);
  const double b = perplexity(results.b_scores);
  if (options.job.json) {
    write_out(Json{{"tokens", results.divergence.size()},
                   {"kl_divergence",
                    {{"mean", kl.mean},
                     {"median", kl.median},
                     {"p99", kl.percentile_99},
                     {"max", kl.largest}}},
                   {"top1_agreement", agreement},
                   {"perplexity_a", a},
                   {"perplexity_b", b}}
                  .dump() +
              "\n");
    return;
  }
  write_out(
      fmt::format("KL divergence of B from A over {} tokens, in nats: mean {:.3g}, median {:.3g}, "
                  "99 % below {:.3g}, largest {:.3g}\n"
                  "same most likely token: {:.2f} %\n"
                  "perplexity: A {:.4f}, B {:.4f}, {:+.2f} %\n",
                  results.divergence.size(),
                  kl.mean,
                  kl.median,
                  kl.percentile_99,
                  kl.largest,
                  100 * agreement,
                  a,
                  b,
                  100 * (b / a - 1)));
}

}  // namespace

int run_compare(MpiSession& session, const EvalOptions& options) {
  const Job a = prepare_job(session, options.job);
  InferOptions second = options.job;
  second.model = options.other;
  const Job b = prepare_job(session, second);
  bind_process(a.cores);
  std::vector<TextWindow> windows;  // of rank 0, as all below
  std::optional<RowFile> rows;
  Results results;
  session.on_root([&] {
    const TextSide a_text(a.source.texts, a.config, a.source.path);
    const TextSide b_text(b.source.texts, b.config, b.source.path);
    check_vocabularies(options, a, a_text, b, b_text);
    const bool shorter = b.model.limits.max_context < a.model.limits.max_context;
    windows = text_windows(options, shorter ? b : a, a_text);
    const auto n = static_cast<size_t>(counted_tokens(windows));
    rows.emplace(static_cast<int64_t>(n), a.config.vocab);
    results = {std::vector<double>(n), std::vector<double>(n), std::vector<double>(n), 0};
  });
  run_windows(session, a, windows, "A: ", [&](int64_t place, int32_t token, auto logits) {
    rows->write(place, logits);
    results.a_scores[static_cast<size_t>(place)] = log_probability(logits, token);
  });
  std::vector<float> of_a(static_cast<size_t>(a.config.vocab));
  run_windows(session, b, windows, "B: ", [&](int64_t place, int32_t token, auto logits) {
    rows->read(place, of_a);
    const RowDistance distance = row_distance(of_a, logits);
    results.divergence[static_cast<size_t>(place)] = distance.divergence;
    results.same_top += distance.same_top;
    results.b_scores[static_cast<size_t>(place)] = log_probability(logits, token);
  });
  if (session.world().rank() == 0) report(options, results);
  return 0;
}

}  // namespace glm
