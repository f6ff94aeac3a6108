// SPDX-License-Identifier: MIT
#include "io/run_state.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "core/base/check.h"
#include "io/crc32c.h"
#include "io/run_state_columns.h"

namespace glm {
namespace {

template <class T>
uint32_t with_values(uint32_t crc, std::string_view name, const T& values) {
  const uint64_t count = values.size();
  crc = crc32c(crc, name.data(), name.size());
  crc = crc32c(crc, &count, sizeof count);
  return crc32c(crc, values.data(), values.size() * sizeof *values.data());
}

class ColumnJudge {
 public:
  ColumnJudge(const RunStateColumns& columns, const std::string& path) : c_(columns), path_(path) {}

  RunState state() {
    RunState out;
    out.model = c_.model;
    out.settings = c_.settings;
    out.finished = c_.finished == 1;
    out.requests = c_.requests;
    require(c_.finished <= 1 && c_.output.size() == 3 && c_.output[0] <= c_.requests.size() &&
                std::in_range<int64_t>(c_.output[1]) && std::in_range<uint32_t>(c_.output[2]),
            "output");
    out.output = {static_cast<int64_t>(c_.output[0]),
                  static_cast<int64_t>(c_.output[1]),
                  static_cast<uint32_t>(c_.output[2])};
    seen_.assign(c_.requests.size(), false);
    answers(out);
    sequences(out);
    return out;
  }

 private:
  void require(bool condition, const char* what) const {
    if (!condition)
      fail(ExitCode::kModelFile, "{}: the state contradicts itself ({})", escaped(path_), what);
  }
  // Every request at most once, in its order or not.
  int64_t request(int64_t at) {
    require(at >= 0 && std::cmp_less(at, seen_.size()) && !seen_[static_cast<size_t>(at)],
            "requests");
    seen_[static_cast<size_t>(at)] = true;
    return at;
  }
  // The next `count` values of a column.
  template <class T>
  std::pair<typename T::const_iterator, typename T::const_iterator> take(const T& column,
                                                                         size_t& at,
                                                                         int64_t count,
                                                                         const char* what) const {
    require(count >= 0 && std::cmp_less_equal(count, column.size() - at), what);
    const auto first = column.begin() + static_cast<int64_t>(at);
    at += static_cast<size_t>(count);
    return {first, first + count};
  }

  void answers(RunState& out) {
    const size_t n = c_.answer_requests.size();
    require(c_.answer_bytes.size() == n, "answers");
    size_t at = 0;
    for (size_t i = 0; i < n; ++i) {
      const auto [first, last] = take(c_.answer_lines, at, c_.answer_bytes[i], "answers");
      out.answers.push_back({request(c_.answer_requests[i]), std::string(first, last)});
      require(out.answers.back().line.find('\n') == std::string::npos, "answers");
    }
    require(at == c_.answer_lines.size(), "answers");
  }

  void sequences(RunState& out) {
    const size_t n = c_.sequence_requests.size();
    require(c_.seeds.size() == n && c_.draws.size() == n && c_.drafts.size() == n &&
                c_.guesses.size() == n && c_.guess_tokens.size() == c_.guess_probabilities.size(),
            "sequences");
    size_t token = 0, guess = 0;
    for (size_t i = 0; i < n; ++i) {
      RunState::Sequence sequence;
      sequence.request = request(c_.sequence_requests[i]);
      sequence.seed = c_.seeds[i];
      const auto [first, last] = take(c_.tokens, token, c_.draws[i], "tokens");
      sequence.tokens.assign(first, last);
      sequence.draft = c_.drafts[i];
      size_t same = guess;
      const auto [id, id_end] = take(c_.guess_tokens, guess, c_.guesses[i], "guesses");
      sequence.guess_tokens.assign(id, id_end);
      const auto [p, p_end] = take(c_.guess_probabilities, same, c_.guesses[i], "guesses");
      sequence.guess_probabilities.assign(p, p_end);
      judge(sequence);
      out.sequences.push_back(std::move(sequence));
    }
    require(token == c_.tokens.size() && guess == c_.guess_tokens.size(), "sequences");
  }

  void judge(const RunState::Sequence& s) const {
    const auto good = [](int32_t id) { return id >= 0; };
    require(std::all_of(s.tokens.begin(), s.tokens.end(), good) &&
                std::all_of(s.guess_tokens.begin(), s.guess_tokens.end(), good),
            "tokens");
    require(s.draft >= -1 && (s.draft >= 0) == !s.guess_tokens.empty(), "guesses");
    // Also false for what is not a number.
    const auto likely = [](double p) { return p >= 0 && p <= 1; };
    require(std::all_of(s.guess_probabilities.begin(), s.guess_probabilities.end(), likely),
            "guesses");
  }

  const RunStateColumns& c_;
  const std::string& path_;
  std::vector<bool> seen_;
};

}  // namespace

uint32_t RunStateColumns::checksum() const {
  uint32_t crc = with_values(0, "model", model);
  crc = with_values(crc, "settings", settings);
  crc = crc32c(crc, &finished, sizeof finished);
  each(*this, [&crc](const char* group, const char* name, const auto& values) {
    crc = with_values(crc, std::string(group) + "/" + name, values);
  });
  return crc;
}

RunStateColumns columns_of(const RunState& state) {
  RunStateColumns c;
  c.model = state.model;
  c.settings = state.settings;
  c.finished = state.finished ? 1 : 0;
  c.requests = state.requests;
  c.output = {static_cast<uint64_t>(state.output.lines),
              static_cast<uint64_t>(state.output.bytes),
              state.output.checksum};
  for (const RunState::Answer& answer : state.answers) {
    c.answer_requests.push_back(answer.request);
    c.answer_bytes.push_back(static_cast<int64_t>(answer.line.size()));
    c.answer_lines.insert(c.answer_lines.end(), answer.line.begin(), answer.line.end());
  }
  for (const RunState::Sequence& s : state.sequences) {
    c.sequence_requests.push_back(s.request);
    c.seeds.push_back(s.seed);
    c.draws.push_back(s.draws());
    c.tokens.insert(c.tokens.end(), s.tokens.begin(), s.tokens.end());
    c.drafts.push_back(s.draft);
    c.guesses.push_back(static_cast<int64_t>(s.guess_tokens.size()));
    c.guess_tokens.insert(c.guess_tokens.end(), s.guess_tokens.begin(), s.guess_tokens.end());
    c.guess_probabilities.insert(
        c.guess_probabilities.end(), s.guess_probabilities.begin(), s.guess_probabilities.end());
  }
  return c;
}

RunState state_of(const RunStateColumns& columns, const std::string& path) {
  return ColumnJudge(columns, path).state();
}

}  // namespace glm
