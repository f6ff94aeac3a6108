// Whether drafts of the MTP layer pay: pure arithmetic on the times of decode steps. Some steps
// with drafts, then a few without; whichever gives more tokens per second goes on. While drafts pay
// they are judged again now and then, each time after twice as many steps. SPDX-License-Identifier:
// MIT
#pragma once

#include <cstdint>

namespace glm {

// --mtp: auto drafts greedy answers only, since when it gives up is for the clock to say, and the
// text of a sampled answer must depend on its seed alone.
enum class DraftMode : uint8_t { kOff, kOn, kAuto };

class DraftJudge {
 public:
  // Steps of a first trial; those without drafts are as many in every later one.
  static constexpr int kDraftedSteps = 16;
  static constexpr int kPlainSteps = 6;

  // A decode step, and the tokens it gave. drafted: it verified drafts.
  void add_step(double seconds, int64_t tokens, bool drafted);
  // A pass that guesses tokens: part of the price of drafts.
  void add_pass(double seconds) { with_.seconds += seconds; }

  // Whether drafts are to be made now.
  bool wants_drafts() const { return !gave_up_ && with_.steps < drafted_steps_; }
  // They do not pay: final.
  bool gave_up() const { return gave_up_; }
  // Tokens per second with drafts over those without, of the last trial; 0 before its end.
  double gain() const { return gain_; }

 private:
  // The slowest step is left out of a rate: the machine may have had something else to do.
  struct Part {
    int steps = 0;
    double seconds = 0;
    int64_t tokens = 0;
    double slowest_seconds = 0;
    int64_t slowest_tokens = 0;

    void add(double step_seconds, int64_t step_tokens);
    double rate() const;
  };
  void judge();

  Part with_, without_;
  int drafted_steps_ = kDraftedSteps;
  bool gave_up_ = false;
  double gain_ = 0;
};

}  // namespace glm
