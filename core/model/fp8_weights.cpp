// The two FP8 schemes in which GLM models are published. SPDX-License-Identifier: MIT
#include "core/model/fp8_weights.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/check.h"

namespace glm {
namespace {

constexpr int64_t kBlock = 128;

// What a value of a config looks like in a message.
std::string shown(const Json& value) {
  return value.is_structured() && value.size() > 4
             ? std::string(value.type_name())
             : escaped(value.dump(-1, ' ', false, Json::error_handler_t::replace), 60);
}

void expect(const Json& object, const char* key, const Json& wanted, const std::string& where) {
  const auto at = object.find(key);
  if (at != object.end() && *at == wanted) return;
  fail(ExitCode::kModelFile,
       "{}.{} is {}, and only {} is supported; take another release of the model, bf16 or FP8",
       where,
       key,
       at == object.end() ? "absent" : shown(*at),
       shown(wanted));
}

void check_block_config(const Json& config, const std::string& where) {
  expect(config, "weight_block_size", Json::array({kBlock, kBlock}), where);
  if (json_has(config, "fmt")) expect(config, "fmt", "e4m3", where);
}

void check_channel_config(const Json& config, const std::string& where) {
  expect(config, "format", "float-quantized", where);
  const auto groups = config.find("config_groups");
  if (groups == config.end() || !groups->is_object() || groups->empty())
    fail(ExitCode::kModelFile,
         "{}.config_groups must be an object that names groups of weights",
         where);
  for (const auto& [name, group] : groups->items()) {
    const std::string of = fmt::format("{}.config_groups.{}.weights", where, escaped(name, 40));
    const auto weights = group.is_object() ? group.find("weights") : group.end();
    if (weights == group.end() || !weights->is_object())
      fail(ExitCode::kModelFile, "{} must be an object", of);
    expect(*weights, "num_bits", 8, of);
    expect(*weights, "type", "float", of);
    expect(*weights, "strategy", "channel", of);
  }
}

// How rows and columns of a weight fall into scales.
struct Groups {
  Groups(const CheckpointTensor& weight, Fp8Scheme scheme) {
    const std::vector<int64_t>& shape = weight.shape;
    matrix_rows = shape[shape.size() - 2];
    cols = shape.back();
    rows_each = scheme == Fp8Scheme::kBlock ? kBlock : 1;
    cols_each = scheme == Fp8Scheme::kBlock ? kBlock : std::max<int64_t>(cols, 1);
    row_groups = (matrix_rows + rows_each - 1) / rows_each;
    col_groups = (cols + cols_each - 1) / cols_each;
  }
  // Of a row, matrices taken together.
  int64_t group_of(int64_t row) const {
    return row / matrix_rows * row_groups + row % matrix_rows / rows_each;
  }

  int64_t matrix_rows, cols, rows_each, cols_each, row_groups, col_groups;
};

}  // namespace

Fp8Scheme fp8_scheme(const Json& config, const std::string& source) {
  if (!json_has(config, "quantization_config")) return Fp8Scheme::kNone;
  const Json& quantisation = config["quantization_config"];
  const std::string where = escaped(source) + ": quantization_config";
  if (!quantisation.is_object())
    fail(ExitCode::kModelFile, "{}: expected an object, found {}", where, shown(quantisation));
  const auto method = quantisation.find("quant_method");
  if (method != quantisation.end() && *method == Json("fp8")) {
    check_block_config(quantisation, where);
    return Fp8Scheme::kBlock;
  }
  if (method != quantisation.end() && *method == Json("compressed-tensors")) {
    check_channel_config(quantisation, where);
    return Fp8Scheme::kChannel;
  }
  fail(ExitCode::kModelFile,
       "{}.quant_method is {}, and only \"fp8\" and \"compressed-tensors\" are supported; take "
       "another release of the model, bf16 or FP8",
       where,
       method == quantisation.end() ? "absent" : shown(*method));
}

std::string Fp8Weights::where(const CheckpointTensor& tensor) const {
  return fmt::format(
      "{}: tensor {}", escaped((folder_ / tensor.file).string()), escaped(tensor.name));
}

const CheckpointTensor& Fp8Weights::scales_of(const CheckpointTensor& weight) const {
  if (scheme_ == Fp8Scheme::kNone)
    fail(ExitCode::kModelFile,
         "{}: dtype F8_E4M3, but config.json has no quantization_config that says how it is scaled",
         where(weight));
  if (weight.shape.size() < 2)
    fail(ExitCode::kModelFile, "{}: dtype F8_E4M3 is supported for matrices only", where(weight));
  const bool block = scheme_ == Fp8Scheme::kBlock;
  const std::string name = weight.name + (block ? "_scale_inv" : "_scale");
  const CheckpointTensor* scales = checkpoint_.find(name);
  if (scales == nullptr)
    fail(ExitCode::kModelFile,
         "{}: dtype F8_E4M3, and its scales {} are missing",
         where(weight),
         escaped(name));
  const Groups groups(weight, scheme_);
  std::vector<int64_t> expected(weight.shape.begin(), weight.shape.end() - 2);
  expected.push_back(groups.row_groups);
  const bool flat = !block && scales->shape == expected;  // [rows] for [rows, 1]
  expected.push_back(groups.col_groups);
  if (!flat && scales->shape != expected)
    fail(ExitCode::kModelFile,
         "{}: shape [{}] where a weight of [{}] needs [{}]",
         where(*scales),
         fmt::join(scales->shape, ", "),
         fmt::join(weight.shape, ", "),
         fmt::join(expected, ", "));
  if (scales->dtype != "F32" && scales->dtype != "BF16" && scales->dtype != "F16")
    fail(ExitCode::kModelFile,
         "{}: scales of dtype {} are not supported; F32, BF16 and F16 are",
         where(*scales),
         escaped(scales->dtype));
  return *scales;
}

void Fp8Weights::apply(const CheckpointTensor& weight,
                       int64_t first,
                       int64_t count,
                       float* values) const {
  if (count == 0) return;
  const CheckpointTensor& source = scales_of(weight);
  const Groups groups(weight, scheme_);
  const int64_t first_group = groups.group_of(first);
  const int64_t begin = first_group * groups.col_groups;
  std::vector<float> scales(
      static_cast<size_t>((groups.group_of(first + count - 1) + 1) * groups.col_groups - begin));
  checkpoint_.read_f32(source, begin, static_cast<int64_t>(scales.size()), scales.data());
  const auto bad = std::find_if(
      scales.begin(), scales.end(), [](float s) { return !(s >= 0.0f) || std::isinf(s); });
  if (bad != scales.end())
    fail(ExitCode::kModelFile,
         "{}: element {} is {}, which is no scale",
         where(source),
         begin + (bad - scales.begin()),
         *bad);
  for (int64_t row = first; row < first + count; ++row, values += groups.cols) {
    const float* scale = scales.data() + (groups.group_of(row) - first_group) * groups.col_groups;
    for (int64_t col = 0; col < groups.cols; col += groups.cols_each, ++scale) {
      const int64_t end = std::min(groups.cols, col + groups.cols_each);
      for (int64_t i = col; i < end; ++i) values[i] *= *scale;
    }
  }
}

}  // namespace glm
