// Small model files for the tests of writer and reader. SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "io/model_file.h"

namespace glm {

// Bytes that differ with plane and position.
inline std::string sample_bytes(std::string_view plane, int64_t bytes) {
  uint64_t state = 1469598103934665603u;
  for (const char c : plane) state = (state ^ static_cast<unsigned char>(c)) * 1099511628211u;
  std::string out(static_cast<size_t>(bytes), '\0');
  for (char& c : out) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    c = static_cast<char>(state >> 56);
  }
  return out;
}

// Every dtype and packing; "big" and "head" span several blocks and do not end at a border.
inline std::vector<ModelWriter::TensorShape> sample_shapes() {
  return {{"norm", DType::kF32, Packing::kRows, {96}},
          {"layers.0.attention.qkv", DType::kQ40, Packing::kTile16, {32, 96}},
          {"layers.0.mlp.gate_up", DType::kQ80, Packing::kTile16, {3, 16, 64}},
          {"layers.0.mlp.down", DType::kQ40, Packing::kRows, {3, 5, 64}},
          {"layers.10.mlp.down", DType::kQ80, Packing::kRows, {5, 64}},
          {"layers.2.half", DType::kF16, Packing::kRows, {7, 9}},
          {"brain", DType::kBF16, Packing::kRows, {2, 3, 5}},
          {"ids", DType::kI32, Packing::kRows, {11}},
          {"bytes", DType::kU8, Packing::kRows, {13}},
          {"big", DType::kF32, Packing::kRows, {700, 1000}},
          {"head", DType::kQ80, Packing::kTile16, {1600, 1024}}};
}

inline ModelTexts sample_texts() {
  return {"{\"model_type\": \"glm4_moe\"}\n", "{}", "{\"model\": {}}", "", "[gMASK]<sop>\xC3\xA9"};
}

// Sizes by the tables of docs/file_format.md, apart from the code under test.
inline int64_t sample_plane_bytes(const ModelWriter::TensorShape& shape, bool scales) {
  int64_t count = 1;
  for (const int64_t dim : shape.dims) count *= dim;
  if (scales) return shape.dtype == DType::kQ40 || shape.dtype == DType::kQ80 ? count / 16 : 0;
  switch (shape.dtype) {
    case DType::kF32:
    case DType::kI32:
      return 4 * count;
    case DType::kF16:
    case DType::kBF16:
      return 2 * count;
    case DType::kQ40:
      return count / 2;
    default:
      return count;
  }
}

inline void write_sample_tensor(ModelWriter& writer,
                                const ModelWriter::TensorShape& shape,
                                int64_t step = int64_t{1} << 30) {
  for (const bool scales : {false, true}) {
    const int64_t bytes = sample_plane_bytes(shape, scales);
    const std::string data = sample_bytes(shape.name + (scales ? ".scales" : ""), bytes);
    const auto plane = scales ? WeightReader::Plane::kScales : WeightReader::Plane::kValues;
    for (int64_t at = 0; at < bytes; at += step)
      writer.write(shape.name, plane, at, data.data() + at, std::min(step, bytes - at));
  }
}

inline void write_sample(const std::filesystem::path& path, int64_t step = int64_t{1} << 30) {
  const auto shapes = sample_shapes();
  ModelWriter writer(path, "glm4_moe", sample_texts(), "0123456789abcdef", shapes);
  for (const auto& shape : shapes) write_sample_tensor(writer, shape, step);
  writer.finish();
}

}  // namespace glm
