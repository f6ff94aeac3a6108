// The arithmetic of an evaluation: a text as windows, probabilities of tokens, the distance between
// two distributions, an answer without its reasoning. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace glm {

// Part of a text: what the model reads, and which of its predictions count.
struct TextWindow {
  std::vector<int32_t> prompt;   // prefix and tokens, without the last one, which predicts nothing
  int64_t first_row = 0;         // of the prompt: predicts counted[0]; the others follow
  int64_t first_place = 0;       // of counted[0] among all counted tokens
  std::vector<int32_t> counted;  // tokens that are predicted
};

// Windows of at most `window` tokens, each begun by `prefix`: `stride` tokens count, those in front
// of them are context. Without a prefix the first token of the text cannot be predicted.
std::vector<TextWindow> cut_windows(std::span<const int32_t> ids,
                                    std::span<const int32_t> prefix,
                                    int64_t window,
                                    int64_t stride);
int64_t counted_tokens(std::span<const TextWindow> windows);

// Natural logarithm of the probability that softmax(logits) gives to `token`.
double log_probability(std::span<const float> logits, int32_t token);

// How far q is from p at one position.
struct RowDistance {
  double divergence = 0;  // Kullback-Leibler, sum of p ln(p / q), in nats
  bool same_top = false;  // both hold the same token for the most likely one
};
RowDistance row_distance(std::span<const float> p_logits, std::span<const float> q_logits);

// exp(-mean).
double perplexity(std::span<const double> log_probabilities);

struct Spread {
  double mean = 0, median = 0, percentile_99 = 0, largest = 0;
};
Spread spread(std::vector<double> values);

// What an answer says behind its reasoning (</think>), without white space around it.
std::string final_answer(std::string_view text);

// One line of the file of `glm_eval answers`; other keys are left alone.
struct Question {
  int64_t line = 0;  // counted from 1
  std::string prompt, answer;
};
// Throws Error(kUsage) that names the file and the first bad line.
std::vector<Question> read_questions(const std::string& path);

}  // namespace glm
