// What glm_eval does, and what its parts share. Each run is collective, works in memory that
// prepare_job() has planned, and returns the exit code. SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "apps/eval_options.h"
#include "apps/eval_progress.h"
#include "apps/eval_score.h"
#include "apps/infer_run.h"
#include "apps/infer_text.h"

namespace glm {

int run_perplexity(MpiSession& session, const EvalOptions& options);
int run_answers(MpiSession& session, const EvalOptions& options);
int run_compare(MpiSession& session, const EvalOptions& options);

// The text of the options as windows of tokens. Throws Error(kUsage) for texts that cannot be read
// or have less than two tokens, and for windows beyond the context.
std::vector<TextWindow> text_windows(const EvalOptions& options,
                                     const Job& job,
                                     const TextSide& text);

// Called on rank 0 once for each counted token: its place among them, itself, and the logits that
// predict it. Places come in any order.
using RowListener =
    std::function<void(int64_t place, int32_t token, std::span<const float> logits)>;

// Loads the model and runs the windows (of rank 0) through it; says on stderr how it went.
// Collective.
void run_windows(MpiSession& session,
                 const Job& job,
                 std::span<const TextWindow> windows,
                 const std::string& label,
                 const RowListener& on_row);

// A text for compare where none is given: English prose, figures, code, other scripts.
std::string sample_text();

}  // namespace glm
