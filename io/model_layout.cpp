// What the model file's schema derives from a tensor's dtype, packing and dims, and the text of its
// index. SPDX-License-Identifier: MIT
#include "io/model_layout.h"

#include <algorithm>
#include <array>

#include "io/crc32c.h"
#include "io/json.h"

namespace glm {
namespace {

bool plain_tensor_name(std::string_view name) {
  constexpr std::string_view kLetters =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
  return !name.empty() && name.size() <= 200 && name.front() != '.' &&
         name.find_first_not_of(kLetters) == name.npos && !name.ends_with(kScalesSuffix);
}

PlaneLayout make_plane(std::string name,
                       Element element,
                       std::vector<int64_t> dims,
                       const std::string& where,
                       ExitCode code) {
  const std::string what = fmt::format("{}: {}", where, name);
  int64_t bytes = element_bytes(element);
  for (const int64_t dim : dims) bytes = checked_mul(bytes, dim, what, code);
  return {std::move(name), element, std::move(dims), bytes};
}

Element plain_element(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return Element::kF32;
    case DType::kF16:
      return Element::kF16;
    case DType::kBF16:
      return Element::kU16;
    case DType::kI32:
      return Element::kI32;
    default:
      return Element::kU8;
  }
}

}  // namespace

int64_t element_bytes(Element element) {
  switch (element) {
    case Element::kF32:
    case Element::kI32:
    case Element::kU32:
      return 4;
    case Element::kF16:
    case Element::kU16:
      return 2;
    default:
      return 1;
  }
}

std::vector<PlaneLayout> plane_layouts(const std::string& name,
                                       DType dtype,
                                       Packing packing,
                                       std::span<const int64_t> dims,
                                       const std::string& where,
                                       ExitCode code) {
  if (!plain_tensor_name(name))
    fail(code, "{}: \"{}\" is no name of a tensor in a model file", where, escaped(name));
  if (dims.empty() || dims.size() > 3 || std::ranges::any_of(dims, [](int64_t d) { return d < 1; }))
    fail(code,
         "{}: {}: dims [{}] are not 1 to 3 positive sizes",
         where,
         name,
         fmt::join(dims, ", "));
  if (!is_quantized(dtype)) {
    if (packing != Packing::kRows)
      fail(code, "{}: {}: {} is never packed as tile16", where, name, dtype_name(dtype));
    return {make_plane(name, plain_element(dtype), {dims.begin(), dims.end()}, where, code)};
  }
  const bool tiles = packing == Packing::kTile16;
  if (dims.size() < 2 || dims.back() % kQuantBlock != 0 ||
      (tiles && dims[dims.size() - 2] % kTileRows != 0))
    fail(code,
         "{}: {}: dims [{}] do not go with {} packed as {}",
         where,
         name,
         fmt::join(dims, ", "),
         dtype_name(dtype),
         packing_name(packing));
  const int64_t rows = dims[dims.size() - 2];
  const int64_t cols = dims.back();
  const int64_t blocks = cols / kQuantBlock;
  const bool q40 = dtype == DType::kQ40;
  std::vector<int64_t> values(dims.begin(), dims.end() - 2);
  std::vector<int64_t> scales = values;
  if (tiles) {
    const int64_t tile_bytes = kTileRows * kQuantBlock / (q40 ? 2 : 1);
    values.insert(values.end(), {rows / kTileRows, blocks, tile_bytes});
    scales.insert(scales.end(), {rows / kTileRows, blocks, kTileRows});
  } else {
    values.insert(values.end(), {rows, q40 ? cols / 2 : cols});
    scales.insert(scales.end(), {rows, blocks});
  }
  return {
      make_plane(name, q40 ? Element::kU8 : Element::kI8, std::move(values), where, code),
      make_plane(name + std::string(kScalesSuffix), Element::kF16, std::move(scales), where, code)};
}

std::span<const TextPlace> text_places() {
  static constexpr std::array<TextPlace, 5> kPlaces = {
      {{"texts", "config.json", &ModelTexts::config},
       {"texts", "generation_config.json", &ModelTexts::generation_config},
       {"tokenizer", "tokenizer.json", &ModelTexts::tokenizer},
       {"tokenizer", "tokenizer_config.json", &ModelTexts::tokenizer_config},
       {"tokenizer", "chat_template.jinja", &ModelTexts::chat_template}}};
  return kPlaces;
}

int64_t block_count(int64_t bytes, int64_t block_bytes) {
  return bytes / block_bytes + (bytes % block_bytes != 0 ? 1 : 0);
}

uint32_t index_checksum(const ModelIndex& index, std::string_view index_text) {
  uint32_t crc = 0;
  const auto add = [&crc](std::string_view part) {
    const uint64_t length = part.size();
    crc = crc32c(crc, &length, sizeof length);
    crc = crc32c(crc, part.data(), part.size());
  };
  add(index.architecture);
  add(index.converter_version);
  add(index.source_fingerprint);
  for (const TextPlace& place : text_places()) add(index.texts.*place.member);
  add(index_text);
  add({reinterpret_cast<const char*>(index.checksums.data()),
       index.checksums.size() * sizeof(uint32_t)});
  return crc;
}

std::string index_text(const ModelIndex& index) {
  std::string text = fmt::format("{{\"block_bytes\": {}, \"tensors\": [", index.block_bytes);
  const char* separator = "\n";
  for (const TensorEntry& entry : index.entries) {
    text += fmt::format(
        "{}{{\"name\": \"{}\", \"dtype\": \"{}\", \"packing\": \"{}\", \"dims\": [{}], "
        "\"offset\": {}, \"bytes\": {}, \"scales_offset\": {}, \"scales_bytes\": {}, "
        "\"first_block\": {}}}",
        separator,
        entry.name,
        dtype_name(entry.dtype),
        packing_name(entry.packing),
        fmt::join(entry.dims, ", "),
        entry.values_offset,
        entry.values_bytes,
        entry.scales_offset,
        entry.scales_bytes,
        entry.first_block);
    separator = ",\n";
  }
  return text + "\n]}\n";
}

namespace {

TensorEntry parse_entry(const Json& object, const std::string& path, int64_t file_bytes) {
  const std::string where = path + ": /index";
  TensorEntry entry;
  entry.name = json_string(object, "name", where, ExitCode::kModelFile);
  const std::string of = fmt::format("{}: {}", where, entry.name);
  const auto dtype = parse_dtype(json_string(object, "dtype", of, ExitCode::kModelFile));
  const auto packing = parse_packing(json_string(object, "packing", of, ExitCode::kModelFile));
  if (!dtype || !packing) fail(ExitCode::kModelFile, "{}: unknown dtype or packing", escaped(of));
  entry.dtype = *dtype;
  entry.packing = *packing;
  const auto dims = object.find("dims");
  if (dims == object.end() || !dims->is_array() || dims->size() > 3)
    fail(ExitCode::kModelFile, "{}: dims must be an array of 1 to 3 integers", escaped(of));
  for (const Json& dim : *dims) {
    if (!dim.is_number_unsigned() || dim.get<uint64_t>() > uint64_t{1} << 40)
      fail(ExitCode::kModelFile, "{}: dims: {} is no size", escaped(of), escaped(dim.dump(), 40));
    entry.dims.push_back(dim.get<int64_t>());
  }
  const auto size = [&](const char* key, int64_t max) {
    return json_int(object, key, 0, max, of, ExitCode::kModelFile);
  };
  entry.values_offset = size("offset", file_bytes);
  entry.values_bytes = size("bytes", file_bytes - entry.values_offset);
  entry.scales_offset = size("scales_offset", file_bytes);
  entry.scales_bytes = size("scales_bytes", file_bytes - entry.scales_offset);
  entry.first_block = size("first_block", int64_t{1} << 40);
  const auto planes = plane_layouts(
      entry.name, entry.dtype, entry.packing, entry.dims, escaped(where), ExitCode::kModelFile);
  const int64_t scales = planes.size() > 1 ? planes[1].bytes : 0;
  if (entry.values_bytes != planes[0].bytes || entry.scales_bytes != scales)
    fail(ExitCode::kModelFile,
         "{}: {} + {} bytes where dims and dtype need {} + {}",
         escaped(of),
         entry.values_bytes,
         entry.scales_bytes,
         planes[0].bytes,
         scales);
  return entry;
}

// Planes of different tensors must not share bytes.
void check_disjoint(const ModelIndex& index, const std::string& path) {
  struct Extent {
    int64_t begin, end;
    const TensorEntry* entry;
  };
  std::vector<Extent> extents;
  for (const TensorEntry& entry : index.entries) {
    extents.push_back({entry.values_offset, entry.values_offset + entry.values_bytes, &entry});
    if (entry.scales_bytes > 0)
      extents.push_back({entry.scales_offset, entry.scales_offset + entry.scales_bytes, &entry});
  }
  std::ranges::sort(extents, {}, &Extent::begin);
  for (size_t i = 1; i < extents.size(); ++i)
    if (extents[i].begin < extents[i - 1].end)
      fail(ExitCode::kModelFile,
           "{}: /index: the bytes of {} and {} overlap",
           path,
           extents[i - 1].entry->name,
           extents[i].entry->name);
}

}  // namespace

void parse_index_text(std::string_view text, ModelIndex& index) {
  const std::string path = escaped(index.path);
  const JsonLimits limits = {kMaxIndexBytes, 8, kMaxPlanes * 16};
  const Json root = parse_json(text, index.path + ": /index", ExitCode::kModelFile, limits);
  index.block_bytes = json_int(
      root, "block_bytes", 4096, int64_t{1} << 26, index.path + ": /index", ExitCode::kModelFile);
  const auto tensors = root.find("tensors");
  if (tensors == root.end() || !tensors->is_array())
    fail(ExitCode::kModelFile, "{}: /index: tensors must be an array", path);
  if (std::cmp_greater(tensors->size(), kMaxPlanes / 2))
    fail(ExitCode::kModelFile,
         "{}: /index: {} tensors are more than {}",
         path,
         tensors->size(),
         kMaxPlanes / 2);
  int64_t blocks = 0;
  for (const Json& object : *tensors) {
    TensorEntry entry = parse_entry(object, index.path, index.file_bytes);
    if (!index.entries.empty() && index.entries.back().name >= entry.name)
      fail(ExitCode::kModelFile, "{}: /index: {} is not in order of names", path, entry.name);
    if (entry.first_block != blocks)
      fail(ExitCode::kModelFile,
           "{}: /index: {}: first_block is {} where {} is due",
           path,
           entry.name,
           entry.first_block,
           blocks);
    blocks += block_count(entry.values_bytes, index.block_bytes) +
              block_count(entry.scales_bytes, index.block_bytes);
    index.entries.push_back(std::move(entry));
  }
  if (std::cmp_not_equal(blocks, index.checksums.size()))
    fail(ExitCode::kModelFile,
         "{}: {} block checksums where the index needs {}",
         path,
         index.checksums.size(),
         blocks);
  check_disjoint(index, path);
}

}  // namespace glm
