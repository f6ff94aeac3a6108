// Runs a model file on ranks that are threads of the test: the same engine and model code that the
// MPI job runs. SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/engine/engine.h"
#include "core/model/convert.h"
#include "core/model/division.h"
#include "core/model/model.h"
#include "io/chat_template.h"
#include "io/tokenizer.h"

namespace glm::testing_support {

struct RunOptions {
  GridShape shape = {};
  Capacities capacities = {};  // of each rank, relative; empty: all the same
  Numerics numerics = Numerics::kDefault;
  ExchangeKind exchange = ExchangeKind::kAuto;
  OpsKind ops = OpsKind::kAuto;
  // Makes the device of a rank in place of make_cpu_device, and its operations in place of
  // make_ops.
  std::function<std::unique_ptr<Device>(int rank)> device_of_rank = {};
  std::function<std::unique_ptr<Ops>(int rank, Device&, const OpsLimits&)> ops_of_rank = {};
  std::optional<NcclUse> nccl = {};  // absent: devices talk by way of their hosts
  KvDType kv_dtype = KvDType::kF32;
  int threads = 1;        // of each rank
  int64_t max_rows = 64;  // chunk of a prompt
  int64_t context = 256;
  int64_t max_sequences = 16;  // that run at once on a data rank
  int64_t kv_blocks = 0;       // of each data rank; 0: enough for all of these at their longest
  double timeout_seconds = 120;
  DraftMode drafts = DraftMode::kOff;  // with the model's MTP layer
  // Drives the engine on the leader in place of the requests, until it is idle; stop() is called
  // for it. RunResult::answers stays empty then.
  std::function<void(Engine&)> lead = {};
  // Likewise, on every rank and to the end.
  std::function<void(Engine&, Communicator& world)> drive = {};
};

struct RunResult {
  std::vector<std::vector<int32_t>> answers;  // generated ids per request
  std::vector<std::vector<float>> logits;  // per request: [positions, vocabulary] where all_logits
  std::vector<ExchangeCounters> exchange;  // per rank
  int64_t preempted = 0;                   // how often a sequence lost its pages
  std::vector<int64_t> weight_bytes;       // per rank
  std::vector<int64_t> bytes_read;         // per rank
  EngineStats stats;
};

// Requests run together, in one engine. Throws what a rank throws.
RunResult run_on_threads(const std::filesystem::path& model,
                         const RunOptions& options,
                         const std::vector<Request>& requests);

// The model file of a checkpoint folder, converted once per test process into GLM_TEST_TMP.
std::filesystem::path converted(const std::filesystem::path& folder, DType dtype);

// What a folder of tests/data/golden expects.
struct Golden {
  std::vector<int32_t> prompt;
  std::vector<int32_t> greedy;
  double range = 0;
};
Golden read_golden(const std::filesystem::path& folder);

// A greedy request for all logits.
Request golden_request(const Golden& golden);

// The chat prompt of a message, by the tokenizer and template of a checkpoint folder.
class ChatPrompts {
 public:
  explicit ChatPrompts(const std::filesystem::path& folder);
  std::vector<int32_t> ids(const std::string& message) const;
  std::string text(const std::vector<int32_t>& ids) const { return tokenizer_.decode(ids, true); }

 private:
  ModelTexts texts_;
  Tokenizer tokenizer_;
  ChatTemplate template_;
};

// Every legal grid of `world` ranks for a model.
std::vector<GridShape> legal_grids(int world, bool is_moe);

}  // namespace glm::testing_support
