// From a Hugging Face checkpoint to the model file: everything is checked before a byte is written.
// SPDX-License-Identifier: MIT
#include "core/model/convert.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/model/fp8_weights.h"
#include "core/model/model_source.h"
#include "core/model/weight_stream.h"
#include "io/chat_template.h"
#include "io/safetensors.h"
#include "io/tokenizer.h"

namespace glm {
namespace {

namespace fs = std::filesystem;

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

void check_choice(const DTypeChoice& choice) {
  for (const DType dtype : {choice.body, choice.embedding, choice.head})
    if (dtype == DType::kI32 || dtype == DType::kU8)
      fail(ExitCode::kUsage, "{} is not a dtype of weights", dtype_name(dtype));
}

// Some tools dump experts as they lie in memory: one tensor for all of a layer.
void use_fused_experts(TensorSpec& spec, const Checkpoint& checkpoint) {
  if (!spec.experts) return;
  const std::string& first = spec.sources.front().name;
  const std::string base = first.substr(0, first.find("experts.")) + "experts.";
  const std::string fused = base + (spec.gated ? "gate_up_proj" : "down_proj");
  if (checkpoint.find(fused) == nullptr) return;
  spec.sources.clear();
  for (int64_t e = 0; e < spec.n_matrices(); ++e)
    spec.sources.push_back({fused, e, e * spec.rows(), spec.rows()});
}

// Buffers that some checkpoints carry and that follow from the config.
bool is_ignorable(const std::string& name) {
  return name.ends_with("rotary_emb.inv_freq") || name.ends_with("rotary_pos_emb.inv_freq");
}

// Pairs the table of tensors with the tensors of a checkpoint.
class Pairing {
 public:
  Pairing(const fs::path& folder,
          const Checkpoint& checkpoint,
          const Fp8Weights& fp8,
          const ModelConfig& config,
          const ConvertOptions& options)
      : folder_(folder), checkpoint_(checkpoint), fp8_(fp8), config_(config), options_(options) {}

  // Fills `tensors`; throws for whatever does not fit.
  void run(ConvertReport& report) {
    report.has_mtp = has_mtp();
    for (TensorSpec& spec : tensor_specs(config_, report.has_mtp)) {
      use_fused_experts(spec, checkpoint_);
      if (spec.optional && checkpoint_.find(spec.sources.front().name) == nullptr) continue;
      check_sources(spec);
      report.parameters += spec.elements();
      const StoredType type = stored_type(spec, config_, options_.dtypes);
      tensors.push_back({std::move(spec), type});
    }
    check_tied(report);
    refuse_extra();
    if (config_.announces_mtp && !report.has_mtp)
      report.warnings.push_back(
          "config.json announces an MTP layer that the checkpoint does not have");
  }

  std::vector<StreamTensor> tensors;

 private:
  bool has_mtp() const {
    return config_.family == Family::kGlm4Moe &&
           checkpoint_.find(fmt::format("model.layers.{}.enorm.weight", config_.n_layers)) !=
               nullptr;
  }

  std::string where(const CheckpointTensor& tensor) const {
    return fmt::format(
        "{}: tensor {}", escaped((folder_ / tensor.file).string()), escaped(tensor.name));
  }

  void check_sources(const TensorSpec& spec) {
    for (size_t i = 0; i < spec.sources.size();) {
      // Neighbouring parts of one source tensor are its rows in order.
      size_t end = i + 1;
      while (end < spec.sources.size() && spec.sources[end].name == spec.sources[i].name) ++end;
      const auto parts = static_cast<int64_t>(end - i);
      std::vector<int64_t> expected = {spec.sources[i].rows};
      if (spec.dims.size() > 1) expected.push_back(spec.cols());
      const bool stacked =
          parts > 1 || (spec.experts && !spec.sources[i].name.ends_with(".weight"));
      if (stacked) expected.insert(expected.begin(), parts);
      check_source(spec, spec.sources[i].name, expected);
      i = end;
    }
  }

  void check_source(const TensorSpec& spec,
                    const std::string& name,
                    const std::vector<int64_t>& expected) {
    const CheckpointTensor* tensor = checkpoint_.find(name);
    if (tensor == nullptr)
      fail(ExitCode::kModelFile,
           "{}: tensor {} is missing ({} of the model)",
           escaped(folder_.string()),
           name,
           spec.name);
    used_.insert(name);
    if (tensor->shape != expected) {
      const bool transposed = std::equal(
          expected.rbegin(), expected.rend(), tensor->shape.begin(), tensor->shape.end());
      fail(ExitCode::kModelFile,
           "{}: shape {} where config.json asks for {}{}",
           where(*tensor),
           shape_text(tensor->shape),
           shape_text(expected),
           transposed ? " (transposed)" : "");
    }
    if (tensor->dtype == "F8_E4M3")
      used_.insert(fp8_.scales_of(*tensor).name);
    else if (tensor->dtype != "BF16" && tensor->dtype != "F16" && tensor->dtype != "F32")
      fail(ExitCode::kModelFile,
           "{}: dtype {} is not supported; BF16, F16, F32 and F8_E4M3 can be converted",
           where(*tensor),
           escaped(tensor->dtype));
  }

  // Some writers keep a copy of the embedding under the head's name.
  void check_tied(ConvertReport& report) {
    if (!config_.tied) return;
    const char* name =
        config_.family == Family::kChatGlm ? "transformer.output_layer.weight" : "lm_head.weight";
    const CheckpointTensor* copy = checkpoint_.find(name);
    if (copy == nullptr || copy->shape != std::vector<int64_t>{config_.vocab, config_.hidden})
      return;
    used_.insert(name);
    report.warnings.push_back(
        fmt::format("{} is ignored: config.json ties the head to the embedding", where(*copy)));
  }

  void refuse_extra() const {
    const CheckpointTensor* first = nullptr;
    int64_t count = 0;
    for (const auto& [name, tensor] : checkpoint_.tensors()) {
      if (used_.contains(name) || is_ignorable(name)) continue;
      if (first == nullptr) first = &tensor;
      ++count;
    }
    if (first == nullptr) return;
    const std::string others = count > 1 ? fmt::format(" (and {} more)", count - 1) : "";
    fail(ExitCode::kModelFile,
         "{}: not a tensor of a {} model with this config.json{}",
         where(*first),
         family_name(config_.family),
         others);
  }

  const fs::path& folder_;
  const Checkpoint& checkpoint_;
  const Fp8Weights& fp8_;
  const ModelConfig& config_;
  const ConvertOptions& options_;
  std::set<std::string> used_;
};

// Rows of the model's tensors out of the source tensors.
class CheckpointRows : public RowSource {
 public:
  CheckpointRows(const fs::path& folder,
                 const Checkpoint& checkpoint,
                 const Fp8Weights& fp8,
                 const std::vector<StreamTensor>& tensors)
      : folder_(folder),
        checkpoint_(checkpoint),
        fp8_(fp8),
        tensors_(tensors),
        starts_(tensors.size()) {
    for (size_t i = 0; i < tensors.size(); ++i) {
      int64_t row = 0;
      for (const SourcePart& part : tensors[i].spec.sources) {
        starts_[i].push_back(row);
        row += part.rows;
      }
    }
  }

  void read(size_t tensor, int64_t first, int64_t count, float* out) const override {
    const TensorSpec& spec = tensors_[tensor].spec;
    const std::vector<int64_t>& starts = starts_[tensor];
    const int64_t cols = spec.dims.size() == 1 ? 1 : spec.cols();
    while (count > 0) {
      const auto after = std::upper_bound(starts.begin(), starts.end(), first);
      const auto index = static_cast<size_t>(after - starts.begin()) - 1;
      const SourcePart& part = spec.sources[index];
      const int64_t within = first - starts[index];
      const int64_t rows = std::min(count, part.rows - within);
      const CheckpointTensor& source = *checkpoint_.find(part.name);
      const int64_t element = (part.first_row + within) * cols;
      checkpoint_.read_f32(source, element, rows * cols, out);
      if (source.dtype == "F8_E4M3") fp8_.apply(source, part.first_row + within, rows, out);
      check_values(source, element, out, rows * cols, tensors_[tensor].type.dtype);
      first += rows;
      count -= rows;
      out += rows * cols;
    }
  }

 private:
  void check_values(const CheckpointTensor& source,
                    int64_t first,
                    const float* values,
                    int64_t count,
                    DType dtype) const {
    const float limit = largest_storable(dtype);
    int64_t bad = 0;
    for (int64_t i = 0; i < count; ++i) bad += std::fabs(values[i]) <= limit ? 0 : 1;
    if (bad == 0) return;
    const float* at =
        std::find_if(values, values + count, [&](float x) { return !(std::fabs(x) <= limit); });
    const std::string where = fmt::format("{}: tensor {}: element {} is {}",
                                          escaped((folder_ / source.file).string()),
                                          escaped(source.name),
                                          first + (at - values),
                                          *at);
    if (std::isfinite(*at))
      fail(ExitCode::kModelFile,
           "{}, too large for {}; choose bf16 or f32",
           where,
           dtype_name(dtype));
    fail(ExitCode::kModelFile, "{}, not a finite number", where);
  }

  const fs::path& folder_;
  const Checkpoint& checkpoint_;
  const Fp8Weights& fp8_;
  const std::vector<StreamTensor>& tensors_;
  std::vector<std::vector<int64_t>> starts_;  // first row of each part
};

void warn_of_wide_storage(const std::vector<StreamTensor>& tensors,
                          const ConvertOptions& options,
                          ConvertReport& report) {
  std::set<int64_t> cols;
  int64_t count = 0;
  for (const StreamTensor& tensor : tensors) {
    const bool quantised = tensor.spec.role == Role::kEmbedding
                               ? is_quantized(options.dtypes.embedding)
                           : tensor.spec.role == Role::kHead   ? is_quantized(options.dtypes.head)
                           : tensor.spec.role == Role::kMatrix ? is_quantized(options.dtypes.body)
                                                               : false;
    if (!quantised || tensor.type.dtype != DType::kF16) continue;
    ++count;
    cols.insert(tensor.spec.cols());
  }
  if (count > 0)
    report.warnings.push_back(fmt::format(
        "{} tensors are stored as f16: their {} columns are no multiple of {}, the block of "
        "quantised dtypes",
        count,
        fmt::join(cols, ", "),
        kQuantBlock));
}

// The weights are good without them, and whoever runs the model is told again.
void warn_of_texts(const ModelTexts& texts,
                   const fs::path& folder,
                   const ModelConfig& config,
                   ConvertReport& report) {
  if (texts.tokenizer.empty()) {
    std::error_code ignored;
    report.warnings.push_back(
        fmt::format("no tokenizer.json{}: the model takes and gives token ids only (--tokens)",
                    fs::exists(folder / "tokenizer.model", ignored)
                        ? ", and tokenizer.model is not of the form that can be read (lines of "
                          "base64 and a rank)"
                        : ""));
    return;
  }
  try {
    const Tokenizer tokenizer(texts.tokenizer, (folder / "tokenizer.json").string());
    if (tokenizer.vocab_size() > config.vocab)
      report.warnings.push_back(
          fmt::format("tokenizer.json has ids up to {}, the embedding only {} rows",
                      tokenizer.vocab_size() - 1,
                      config.vocab));
    if (texts.chat_template.empty())
      report.warnings.push_back("no chat template: prompts need --raw");
    else
      ChatTemplate(texts.chat_template, (folder / "chat_template.jinja").string());
  } catch (const Error& error) {
    report.warnings.push_back(error.what());
  }
}

void warn_of_router_bias(const Checkpoint& checkpoint, ConvertReport& report) {
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    if (!name.ends_with("e_score_correction_bias") || tensor.dtype == "F32") continue;
    report.warnings.push_back(
        fmt::format("{} is {} in the checkpoint: a rounded router bias chooses other experts",
                    name,
                    tensor.dtype));
    return;
  }
}

// A header that takes one half type for the other gives other numbers, almost all of them finite.
void warn_of_half_types(const Json& config, const Checkpoint& checkpoint, ConvertReport& report) {
  const char* key = json_has(config, "dtype") ? "dtype" : "torch_dtype";
  if (!json_has(config, key)) return;
  const char* other = config[key] == Json("bfloat16")  ? "F16"
                      : config[key] == Json("float16") ? "BF16"
                                                       : "";
  int64_t count = 0;
  const CheckpointTensor* first = nullptr;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    if (tensor.dtype != other) continue;
    if (count++ == 0) first = &tensor;
  }
  if (first != nullptr)
    report.warnings.push_back(fmt::format(
        "{} tensors, {} among them, are {} where {} of config.json is {}; when the file is wrong, "
        "the numbers are too",
        count,
        escaped(first->name),
        other,
        key,
        config[key].get<std::string>()));
}

void count_tensors(const std::vector<StreamTensor>& tensors, ConvertReport& report) {
  report.tensors = static_cast<int64_t>(tensors.size());
  for (const StreamTensor& tensor : tensors) report.bytes += stored_bytes(tensor.spec, tensor.type);
}

}  // namespace

ConvertReport convert_checkpoint(const fs::path& folder,
                                 const fs::path& out,
                                 const ConvertOptions& options) {
  check_choice(options.dtypes);
  const Checkpoint checkpoint(folder);
  const ModelTexts texts = read_folder_texts(folder);
  const std::string source = (folder / "config.json").string();
  const ModelConfig config = parse_config(texts.config, source);
  const Json object = parse_json(texts.config, source, ExitCode::kModelFile);
  const Fp8Weights fp8(folder, checkpoint, fp8_scheme(object, source));
  parse_generation_config(
      texts.generation_config, (folder / "generation_config.json").string(), config);
  ConvertReport report;
  warn_of_texts(texts, folder, config, report);
  Pairing pairing(folder, checkpoint, fp8, config, options);
  pairing.run(report);
  warn_of_wide_storage(pairing.tensors, options, report);
  warn_of_router_bias(checkpoint, report);
  warn_of_half_types(object, checkpoint, report);
  count_tensors(pairing.tensors, report);
  const CheckpointRows rows(folder, checkpoint, fp8, pairing.tensors);
  stream_model(out,
               {std::string(family_name(config.family)),
                texts,
                checkpoint.fingerprint(),
                checkpoint.stamp()},
               pairing.tensors,
               rows,
               options,
               report);
  return report;
}

}  // namespace glm
