// SPDX-License-Identifier: MIT
#include "core/model/batch.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "core/base/check.h"

namespace glm {
namespace {

constexpr int32_t kMostDataRanks = 1 << 20;

constexpr int32_t kMagic = 0x474C4D32;  // "GLM2"

// Reads the integers of a plan, refusing to run past the end.
class Reader {
 public:
  explicit Reader(std::span<const int32_t> data) : data_(data) {}
  int32_t next() { return take(1)[0]; }
  std::vector<int32_t> list() {
    const int32_t count = next();
    const auto values = take(count);
    return {values.begin(), values.end()};
  }
  bool done() const { return used_ == data_.size(); }

 private:
  std::span<const int32_t> take(int32_t count) {
    if (count < 0 || static_cast<size_t>(count) > data_.size() - used_)
      fail(ExitCode::kCommunication, "a step plan of {} integers is cut short", data_.size());
    const auto part = data_.subspan(used_, static_cast<size_t>(count));
    used_ += static_cast<size_t>(count);
    return part;
  }
  std::span<const int32_t> data_;
  size_t used_ = 0;
};

void append_list(std::vector<int32_t>& out, const std::vector<int32_t>& values) {
  out.push_back(static_cast<int32_t>(values.size()));
  out.insert(out.end(), values.begin(), values.end());
}

// What arithmetic on a sequence's numbers relies on.
void check_sequence(const PlanSequence& sequence) {
  const auto n = static_cast<int64_t>(sequence.tokens.size());
  const auto is_page = [](int32_t block) {
    return block >= 0 && block < std::numeric_limits<int32_t>::max() / kKvBlockTokens;
  };
  if (sequence.data_rank < 0 || sequence.data_rank >= kMostDataRanks)
    fail(ExitCode::kCommunication, "a step plan names data rank {}", sequence.data_rank);
  if (sequence.position < 0 || sequence.position + n > std::numeric_limits<int32_t>::max() ||
      sequence.n_logits < 0 || sequence.n_logits > n || sequence.n_drafts < 0 ||
      sequence.n_drafts > n || sequence.hidden_row < 0 ||
      sequence.hidden_row + n > std::numeric_limits<int32_t>::max() ||
      !std::all_of(sequence.blocks.begin(), sequence.blocks.end(), is_page))
    fail(ExitCode::kCommunication,
         "a step plan has {} rows at position {}, logits of {}, drafts or pages that cannot be",
         n,
         sequence.position,
         sequence.n_logits);
}

}  // namespace

std::vector<int32_t> StepPlan::serialized() const {
  std::vector<int32_t> out = {
      kMagic, stop ? 1 : 0, draft ? 1 : 0, hidden, static_cast<int32_t>(sequences.size())};
  if (ask) out[1] |= 2;
  for (const PlanSequence& sequence : sequences) {
    out.insert(out.end(),
               {sequence.id,
                sequence.data_rank,
                sequence.position,
                sequence.n_logits,
                sequence.n_drafts,
                sequence.hidden_row});
    append_list(out, sequence.tokens);
    append_list(out, sequence.blocks);
  }
  return out;
}

StepPlan StepPlan::deserialized(std::span<const int32_t> data) {
  Reader reader(data);
  if (reader.next() != kMagic)
    fail(ExitCode::kCommunication, "what arrived is no step plan: do all ranks run one version?");
  StepPlan plan;
  const int32_t stop = reader.next();
  const int32_t draft = reader.next();
  plan.hidden = reader.next();
  const int32_t n = reader.next();
  if (n < 0 || stop < 0 || stop > 3 || draft < 0 || draft > 1 || plan.hidden < -1)
    fail(ExitCode::kCommunication,
         "a step plan begins with {}, {}, {} and {}",
         stop,
         draft,
         plan.hidden,
         n);
  plan.stop = (stop & 1) != 0;
  plan.ask = (stop & 2) != 0;
  plan.draft = draft == 1;
  for (int32_t i = 0; i < n; ++i) {
    PlanSequence sequence;
    sequence.id = reader.next();
    sequence.data_rank = reader.next();
    sequence.position = reader.next();
    sequence.n_logits = reader.next();
    sequence.n_drafts = reader.next();
    sequence.hidden_row = reader.next();
    sequence.tokens = reader.list();
    sequence.blocks = reader.list();
    check_sequence(sequence);
    plan.sequences.push_back(std::move(sequence));
  }
  if (!reader.done()) fail(ExitCode::kCommunication, "a step plan is longer than it says");
  return plan;
}

int64_t StepPlan::n_logits() const {
  int64_t sum = 0;
  for (const PlanSequence& sequence : sequences) sum += sequence.n_logits;
  return sum;
}

int64_t StepLimits::max_blocks() const {
  return (max_context + kKvBlockTokens - 1) / kKvBlockTokens;
}

Batch::Batch(Device& device, const StepLimits& limits)
    : device_(device),
      limits_(limits),
      memory_(device.allocate(DType::kI32, {integers(limits)})),
      host_memory_(device.allocate_host(DType::kI32, {integers(limits)})) {
  const auto size = [](int64_t n) { return static_cast<size_t>(n); };
  for (auto* list : {&ids_, &positions_, &slots_, &hidden_index_})
    list->reserve(size(limits.max_rows));
  spans_.reserve(size(limits.max_sequences * 4));
  table_.reserve(size(limits.max_sequences * limits.max_blocks()));
  logits_.reserve(size(limits.max_logits));
}

int64_t Batch::integers(const StepLimits& limits) {
  return 4 * limits.max_rows + limits.max_sequences * (4 + limits.max_blocks()) + limits.max_logits;
}

void Batch::fill(const StepPlan& plan, int data_rank) {
  for (auto* list : {&ids_, &positions_, &slots_, &spans_, &table_, &logits_, &hidden_index_})
    list->clear();
  rows_of_data_rank_.clear();
  hidden_ = plan.hidden;
  int32_t max_context = 0;
  for (const PlanSequence& sequence : plan.sequences) {
    const auto n = static_cast<int32_t>(sequence.tokens.size());
    if (sequence.data_rank < 0 || sequence.data_rank >= kMostDataRanks)
      fail(ExitCode::kCommunication, "a step plan names data rank {}", sequence.data_rank);
    const auto rank = static_cast<size_t>(sequence.data_rank);
    if (rank >= rows_of_data_rank_.size()) rows_of_data_rank_.resize(rank + 1);
    rows_of_data_rank_[rank] += n;
    if (sequence.data_rank != data_rank) continue;
    const auto first = static_cast<int32_t>(ids_.size());
    const int32_t end = sequence.position + n;
    if (end > limits_.max_context ||
        static_cast<int64_t>(sequence.blocks.size()) * kKvBlockTokens < end ||
        sequence.n_logits > n)
      fail(ExitCode::kCommunication,
           "a step plan asks for position {} with {} pages of 16, context {}",
           end,
           sequence.blocks.size(),
           limits_.max_context);
    spans_.insert(spans_.end(), {first, n, sequence.position, static_cast<int32_t>(table_.size())});
    table_.insert(table_.end(), sequence.blocks.begin(), sequence.blocks.end());
    ids_.insert(ids_.end(), sequence.tokens.begin(), sequence.tokens.end());
    for (int32_t p = sequence.position; p < end; ++p) {
      positions_.push_back(p);
      slots_.push_back(sequence.blocks[static_cast<size_t>(p / kKvBlockTokens)] * kKvBlockTokens +
                       p % kKvBlockTokens);
    }
    for (int32_t i = n - sequence.n_logits; i < n; ++i) logits_.push_back(first + i);
    if (plan.draft) append_hidden_rows(sequence.hidden_row, n);
    max_context = std::max(max_context, end);
  }
  rows_.n_rows = static_cast<int>(ids_.size());
  rows_.n_spans = static_cast<int>(spans_.size() / 4);
  rows_.max_context = max_context;
  make_replay_key(plan);
  upload();
}

// What a step enqueues follows from the numbers of rows, spans and logits of each data rank, and
// from the longest context. This counts by powers of two, so that keys are few as a sequence grows.
void Batch::make_replay_key(const StepPlan& plan) {
  replay_key_.clear();
  const auto most = std::max_element(rows_of_data_rank_.begin(), rows_of_data_rank_.end());
  if (most == rows_of_data_rank_.end() || *most > kReplayedRows) return;
  uint32_t context = 1;
  constexpr size_t kHead = 3, kParts = 3;
  replay_key_.resize(kHead + kParts * rows_of_data_rank_.size());
  for (const PlanSequence& sequence : plan.sequences) {
    const auto n = static_cast<int64_t>(sequence.tokens.size());
    const size_t at = kHead + kParts * static_cast<size_t>(sequence.data_rank);
    replay_key_[at] += n;
    replay_key_[at + 1] += 1;
    replay_key_[at + 2] += sequence.n_logits;
    context = std::max(context, static_cast<uint32_t>(sequence.position + n));
  }
  rows_.max_context =
      static_cast<int>(std::min<int64_t>(limits_.max_context, std::bit_ceil(context)));
  replay_key_[0] = plan.draft ? 1 : 0;
  replay_key_[1] = plan.hidden;
  replay_key_[2] = rows_.max_context;
}

void Batch::append_hidden_rows(int32_t first, int32_t count) {
  if (first + count > limits_.max_rows)
    fail(ExitCode::kCommunication,
         "a step plan asks for kept row {} of {}",
         first + count,
         limits_.max_rows);
  for (int32_t i = 0; i < count; ++i) hidden_index_.push_back(first + i);
}

void Batch::upload() {
  device_.wait();  // an earlier step may still read its integers
  int64_t used = 0;
  const auto place = [&](const std::vector<int32_t>& values, int64_t most) {
    const auto n = static_cast<int64_t>(values.size());
    if (n > most)
      fail(ExitCode::kCommunication, "a step plan has {} entries where {} fit", n, most);
    std::copy(values.begin(), values.end(), host_memory_.i32() + used);
    used += n;
    return memory_.slice(used - n, n);
  };
  rows_.ids = place(ids_, limits_.max_rows);
  rows_.positions = place(positions_, limits_.max_rows);
  rows_.slots = place(slots_, limits_.max_rows);
  hidden_rows_ = place(hidden_index_, limits_.max_rows);
  rows_.spans = place(spans_, 4 * limits_.max_sequences).reshaped({rows_.n_spans, 4});
  logit_rows_ = place(logits_, limits_.max_logits);
  rows_.block_table = place(table_, limits_.max_sequences * limits_.max_blocks());
  device_.copy(memory_.slice(0, used), host_memory_.slice(0, used));
}

}  // namespace glm
