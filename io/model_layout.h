// Shapes and sizes of the datasets of a model file, as they follow from a tensor's dtype, packing
// and dims. Writer and reader share it. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/check.h"
#include "core/base/dtype.h"
#include "io/model_file.h"

namespace glm {

inline constexpr std::string_view kModelFormat = "glm-hdf5";
inline constexpr int kSchemaMajor = 1;
inline constexpr int kSchemaMinor = 0;
inline constexpr int64_t kBlockBytes = int64_t{1} << 20;
inline constexpr int64_t kMaxPlanes = 200'000;
inline constexpr int64_t kMaxTextBytes = int64_t{100} << 20;
inline constexpr int64_t kMaxIndexBytes = int64_t{64} << 20;
inline constexpr std::string_view kScalesSuffix = ".scales";

// The names of root attributes and members.
inline constexpr const char* kFormatAttribute = "format";
inline constexpr const char* kSchemaAttribute = "schema_version";
inline constexpr const char* kArchitectureAttribute = "architecture";
inline constexpr const char* kConverterAttribute = "converter_version";
inline constexpr const char* kSourceAttribute = "source_fingerprint";
inline constexpr const char* kChecksumAttribute = "index_crc32c";
inline constexpr const char* kCompleteAttribute = "complete";
inline constexpr const char* kIndexDataset = "index";
inline constexpr const char* kChecksumsDataset = "checksums";
inline constexpr const char* kWeightsGroup = "weights";

// What the elements of a dataset are.
enum class Element : uint8_t { kF32, kF16, kU16, kI32, kU8, kI8, kU32 };
int64_t element_bytes(Element element);

// One dataset of a tensor.
struct PlaneLayout {
  std::string name;
  Element element = Element::kU8;
  std::vector<int64_t> dims;
  int64_t bytes = 0;
};

// The value plane, and the scale plane for quantised types. Throws Error(code) "name: ..." for
// dims, dtype and packing that do not go together or whose size overflows, and for names that are
// no plain words.
std::vector<PlaneLayout> plane_layouts(const std::string& name,
                                       DType dtype,
                                       Packing packing,
                                       std::span<const int64_t> dims,
                                       const std::string& where,
                                       ExitCode code);

// The texts with the path of the dataset that holds each.
struct TextPlace {
  const char* group;
  const char* name;
  std::string ModelTexts::*member;
};
std::span<const TextPlace> text_places();

int64_t block_count(int64_t bytes, int64_t block_bytes);

// CRC-32C over everything that describes the weights: attributes, texts, index text and block
// checksums, each preceded by its length as 8 bytes.
uint32_t index_checksum(const ModelIndex& index, std::string_view index_text);

// The text of /index, one tensor per line, and its way back. `index.entries` are sorted by name.
// Parsing checks that every entry follows from its dims and lies inside the file; throws
// Error(kModelFile).
std::string index_text(const ModelIndex& index);
void parse_index_text(std::string_view text, ModelIndex& index);

}  // namespace glm
