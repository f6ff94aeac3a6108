// SPDX-License-Identifier: MIT
#include "core/base/step_log.h"

#include <algorithm>

#include "core/base/check.h"

namespace glm {
namespace {

StepLog::Part part_of(std::string_view group, std::string_view part) {
  if (part == "plan") return StepLog::kPlan;
  if (group == "world") return StepLog::kStage;
  if (part == "dispatch") return StepLog::kDispatch;
  return part == "combine" ? StepLog::kCombine : StepLog::kAllReduce;
}

bool traced(StepLog::Kind kind) { return kind != StepLog::Kind::kDraft; }

}  // namespace

StepLog::StepLog(const Limits& limits) : limits_(limits), counts_(2 * layer_entries()) {}

bool StepLog::full() const { return passes_.size() >= limits_.passes || n_verbs_ >= limits_.verbs; }

void StepLog::begin_pass(const Rows& rows) {
  end_pass();
  full_ = full_ || full();
  if (full_) {
    ++left_out_;
    return;
  }
  Pass pass;
  pass.rows = rows;
  pass.run = run_;
  pass.start = now();
  passes_.push_back(pass);
  open_ = true;
  tracing_ =
      traced(rows.kind) && layer_entries() > 0 && trace_.size() + layer_entries() <= limits_.traced;
  if (!tracing_) return;
  ++traced_;
  trace_.resize(trace_.size() + layer_entries());
}

void StepLog::end_pass() {
  if (!open_) return;
  open_ = false;
  passes_.back().seconds = now() - passes_.back().start;
}

void StepLog::add_verb(std::string_view group,
                       std::string_view part,
                       double seconds,
                       int64_t sent_bytes) {
  if (!open_) return;
  Pass& pass = passes_.back();
  const Part kind = part_of(group, part);
  pass.parts[kind] += seconds;
  pass.sent_bytes += sent_bytes;
  if (kind == kStage || kind == kPlan) return;
  auto found = std::find_if(
      verbs_.begin(), verbs_.end(), [&](const auto& known) { return known.first == group; });
  if (found == verbs_.end())
    found = verbs_.emplace(verbs_.end(), std::string(group), std::vector<Verb>());
  found->second.push_back(
      {static_cast<uint32_t>(passes_.size() - 1), kind, static_cast<float>(seconds)});
  ++n_verbs_;
}

void StepLog::add_experts(int64_t layer, std::span<const int32_t> offsets) {
  if (!open_) return;
  Pass& pass = passes_.back();
  pass.expert_rows += offsets.back() - offsets.front();
  const int64_t local = layer - limits_.first_layer;
  // The MTP layer stands behind all others.
  if (limits_.n_experts == 0 || local < 0 || local >= limits_.n_layers || !traced(pass.rows.kind))
    return;
  GLM_CHECK(static_cast<int64_t>(offsets.size()) == limits_.n_experts + 1,
            "rows of {} experts, this rank has {}",
            offsets.size() - 1,
            limits_.n_experts);
  const bool decode = pass.rows.kind == Kind::kDecode;
  int64_t* counts = counts_.data() + (decode ? layer_entries() : 0) +
                    static_cast<size_t>(local * limits_.n_experts);
  int32_t* trace = tracing_ ? trace_.data() + trace_.size() - layer_entries() +
                                  static_cast<size_t>(local * limits_.n_experts)
                            : nullptr;
  for (size_t i = 0; i + 1 < offsets.size(); ++i) {
    const int32_t rows = offsets[i + 1] - offsets[i];
    counts[i] += rows;
    if (trace != nullptr) trace[i] += rows;
  }
}

void StepLog::split_waits(std::string_view group, std::span<const float> least) {
  for (const auto& [name, verbs] : verbs_) {
    if (name != group) continue;
    GLM_CHECK(
        least.size() == verbs.size(), "{} least times of {} verbs", least.size(), verbs.size());
    for (size_t i = 0; i < verbs.size(); ++i) {
      Pass& pass = passes_[verbs[i].pass];
      const double waited = std::max(0.0, double{verbs[i].seconds} - double{least[i]});
      pass.wait += waited;
      pass.parts[verbs[i].part] -= waited;
    }
  }
}

}  // namespace glm
