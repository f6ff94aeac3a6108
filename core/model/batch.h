// One step of the engine. StepPlan is what the leader decided, as integers, broadcast to all ranks;
// Batch is the part of one data rank on its device. Chunked prefill, decode, rows that verify a
// draft and the rows of several sequences are all this one description. SPDX-License-Identifier:
// MIT
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/device.h"
#include "kernels/types.h"

namespace glm {

// One sequence's part of a step.
struct PlanSequence {
  int32_t id = 0;         // of the engine, for the leader's use
  int32_t data_rank = 0;  // which data rank runs it
  int32_t position =
      0;  // positions in the cache before the step; smaller than before when drafts were refused
  int32_t n_logits = 0;         // logits are wanted for the last n_logits rows
  std::vector<int32_t> tokens;  // new rows
  std::vector<int32_t> blocks;  // the sequence's pages, in order; cover position + tokens
  int32_t n_drafts = 0;         // the last n_drafts tokens are guesses that the step verifies
  int32_t hidden_row = 0;       // of the first row, in a draft pass: its row among those kept
};

struct StepPlan {
  bool stop = false;  // the ranks leave the step loop
  bool ask = false;   // each rank tells the leader whether it was told to stop
  // A pass of the MTP layer over rows of an earlier step: at each position the token that follows
  // it. Its logits guess the token behind that one (docs/speculative.md).
  bool draft = false;
  int32_t hidden =
      -1;  // where the rows of hidden states are kept, or read by a draft pass; -1: not
  std::vector<PlanSequence> sequences;

  std::vector<int32_t> serialized() const;
  // Throws Error(kCommunication) when the integers are not what serialized() wrote.
  static StepPlan deserialized(std::span<const int32_t> data);
  // Rows whose logits are wanted, over all data ranks.
  int64_t n_logits() const;
};

// Upper bounds of a step on one rank, from which everything is allocated at start.
struct StepLimits {
  int64_t max_rows = 0;        // rows of one data rank
  int64_t max_sequences = 0;   // spans of one data rank
  int64_t max_logits = 0;      // rows with logits
  int64_t max_context = 0;     // positions of one sequence
  int64_t max_blocks() const;  // of one sequence
};

class Batch {
 public:
  Batch(Device& device, const StepLimits& limits);

  // The sequences of plan that belong to `data_rank`. Throws Error(kCommunication) when they exceed
  // the limits.
  void fill(const StepPlan& plan, int data_rank);

  const BatchRows& rows() const { return rows_; }
  int64_t n_rows() const { return rows_.n_rows; }
  // Rows whose logits are wanted, ascending: [n] i32.
  Tensor logit_rows() const { return logit_rows_; }
  // In a draft pass: which kept hidden state each row goes with, [n_rows] i32.
  Tensor hidden_rows() const { return hidden_rows_; }
  // StepPlan::hidden.
  int32_t hidden() const { return hidden_; }
  int64_t n_logits() const { return logit_rows_.rows(); }
  // Steps with the same key enqueue the same work on a device (Device::replay), on every rank: all
  // ranks see the same sequence of keys. Empty: a step that is not worth recording, with more than
  // kReplayedRows rows on some rank.
  static constexpr int kReplayedRows = 32;
  const std::vector<int64_t>& replay_key() const { return replay_key_; }
  // Rows of the step on any data rank.
  int64_t rows_of(int data_rank) const {
    const auto at = static_cast<size_t>(data_rank);
    return at < rows_of_data_rank_.size() ? rows_of_data_rank_[at] : 0;
  }

  // Taken on the device, and as much on the host of a device that is not the host's.
  static int64_t bytes(const StepLimits& limits) { return 4 * integers(limits); }

 private:
  static int64_t integers(const StepLimits& limits);
  void append_hidden_rows(int32_t first, int32_t count);
  void make_replay_key(const StepPlan& plan);
  void upload();

  Device& device_;
  StepLimits limits_;
  // All integers of a step side by side, so that they travel at once: on the device, and their host
  // side. The block table, whose length changes from step to step, is the last.
  Tensor memory_, host_memory_;
  std::vector<int32_t> ids_, positions_, slots_, spans_, table_, logits_, hidden_index_;
  BatchRows rows_;
  Tensor logit_rows_;
  Tensor hidden_rows_;
  int32_t hidden_ = -1;
  std::vector<int64_t> replay_key_;
  std::vector<int64_t> rows_of_data_rank_;  // up to the last one that has any
};

}  // namespace glm
