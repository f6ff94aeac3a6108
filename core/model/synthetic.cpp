// Random models of any size, streamed: every number is a function of seed, tensor name and index.
// SPDX-License-Identifier: MIT
#include "core/model/synthetic.h"

#include <cmath>

#include "core/base/rng.h"
#include "core/model/convert.h"
#include "core/model/model_source.h"
#include "core/model/weight_stream.h"

namespace glm {
namespace {

// Uniform in [centre - spread, centre + spread).
struct Distribution {
  float centre = 0.0f;
  float spread = 0.0f;
};

Distribution distribution_of(const TensorSpec& spec) {
  const float unit = std::sqrt(3.0f);  // spread of variance one
  if (spec.role == Role::kEmbedding) return {0.0f, unit};
  if (spec.dims.size() > 1) return {0.0f, unit / std::sqrt(static_cast<float>(spec.cols()))};
  if (spec.name.ends_with("norm")) return {1.0f, 0.1f};
  if (spec.kind == Kind::kRouter || spec.name.ends_with("router_bias")) return {0.0f, 0.01f};
  return {0.0f, 0.1f};
}

class SyntheticRows : public RowSource {
 public:
  SyntheticRows(const std::vector<StreamTensor>& tensors, uint64_t seed) {
    for (const StreamTensor& tensor : tensors)
      streams_.push_back(synthetic_rows(tensor.spec, tensor.type, seed));
  }

  void read(size_t tensor, int64_t first, int64_t count, float* out) const override {
    const RandomRows& stream = streams_[tensor];
    const int64_t n = count * stream.cols;
    fill_uniform(out, n, stream.key, first * stream.cols);
    for (int64_t i = 0; i < n; ++i) out[i] = stream.low + stream.width * out[i];
  }

 private:
  std::vector<RandomRows> streams_;
};

}  // namespace

RandomRows synthetic_rows(const TensorSpec& spec, StoredType type, uint64_t seed) {
  const Distribution distribution = distribution_of(spec);
  const bool vector = spec.dims.size() == 1;
  RandomRows rows;
  rows.key = stream_key(seed, spec.name);
  rows.low = distribution.centre - distribution.spread;
  rows.width = 2.0f * distribution.spread;
  rows.rows = vector ? spec.dims[0] : spec.rows();
  rows.cols = vector ? 1 : spec.cols();
  rows.alternate = spec.gated && type.packing == Packing::kTile16;
  return rows;
}

ConvertReport convert_synthetic(const std::filesystem::path& config_json,
                                const std::filesystem::path& out,
                                const ConvertOptions& options) {
  const std::string source = config_json.string();
  constexpr int64_t kMaxConfigBytes = int64_t{16} << 20;
  ModelTexts texts;
  texts.config = read_file(config_json, kMaxConfigBytes, ExitCode::kModelFile);
  const ModelConfig config = parse_config(texts.config, source);
  ConvertReport report;
  report.has_mtp = config.announces_mtp;
  std::vector<StreamTensor> tensors;
  for (TensorSpec& spec : tensor_specs(config, report.has_mtp)) {
    if (spec.optional) continue;
    const StoredType type = stored_type(spec, config, options.dtypes);
    report.parameters += spec.elements();
    report.bytes += stored_bytes(spec, type);
    spec.sources.clear();
    tensors.push_back({std::move(spec), type});
  }
  report.tensors = static_cast<int64_t>(tensors.size());
  report.warnings = {"synthetic weights: the model takes and gives token ids only (--tokens)"};
  stream_model(out,
               {std::string(family_name(config.family)),
                texts,
                fmt::format("synthetic, seed {}", options.seed),
                ""},
               tensors,
               SyntheticRows(tensors, options.seed),
               options,
               report);
  return report;
}

}  // namespace glm
