// Headers of safetensors files are judged completely before any value is read: every offset that is
// kept lies inside its file. SPDX-License-Identifier: MIT
#include "io/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "core/base/check.h"
#include "io/fp8.h"
#include "io/json.h"
#include "io/raw_file.h"

namespace glm {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "values are read as they lie");

constexpr ExitCode kBroken = ExitCode::kModelFile;
constexpr int64_t kMaxHeaderBytes = 100'000'000;  // as the reference reader
constexpr int64_t kMaxTensors = 250'000;          // of one file; the largest known shards have 1e4
// Header: a tensor is one object, a dtype, two arrays, two offsets and its dims.
constexpr JsonLimits kHeaderLimits = {kMaxHeaderBytes, 8, kMaxTensors * 10};
constexpr JsonLimits kIndexLimits = {kMaxHeaderBytes, 16, kMaxTensors * 10};
constexpr int64_t kChunkBytes = int64_t{1} << 18;  // of values decoded at once
constexpr std::string_view kIndexName = "model.safetensors.index.json";
constexpr std::string_view kSingleName = "model.safetensors";

std::optional<int64_t> element_size(std::string_view dtype) {
  constexpr std::array<std::pair<std::string_view, int64_t>, 15> kSizes = {{{"F64", 8},
                                                                            {"F32", 4},
                                                                            {"F16", 2},
                                                                            {"BF16", 2},
                                                                            {"F8_E4M3", 1},
                                                                            {"F8_E5M2", 1},
                                                                            {"I64", 8},
                                                                            {"I32", 4},
                                                                            {"I16", 2},
                                                                            {"I8", 1},
                                                                            {"U64", 8},
                                                                            {"U32", 4},
                                                                            {"U16", 2},
                                                                            {"U8", 1},
                                                                            {"BOOL", 1}}};
  for (const auto& [name, size] : kSizes)
    if (name == dtype) return size;
  return std::nullopt;
}

// A size or an offset: a JSON integer from 0 to 2^63 - 1.
int64_t size_value(const Json& value, const std::string& where, const char* what) {
  if (!value.is_number_unsigned() || !std::in_range<int64_t>(value.get<uint64_t>()))
    fail(kBroken,
         "{}: {} must be an integer from 0 to 2^63 - 1, found {}",
         where,
         what,
         value.is_structured() ? value.type_name() : escaped(value.dump(), 40));
  return value.get<int64_t>();
}

const Json& field(const Json& info, const char* key, const std::string& where) {
  const auto at = info.find(key);
  if (at == info.end()) fail(kBroken, "{}: {} is missing", where, key);
  return *at;
}

// One entry of the header. `data_start`: where the values of the file begin.
CheckpointTensor parse_tensor(const std::string& name,
                              const Json& info,
                              const RawFile& file,
                              int64_t data_start) {
  const std::string where = fmt::format("{}: tensor \"{}\"", escaped(file.path()), escaped(name));
  if (!info.is_object()) fail(kBroken, "{}: expected an object, found {}", where, info.type_name());
  CheckpointTensor tensor;
  tensor.name = name;
  tensor.file = fs::path(file.path()).filename().string();
  const Json& dtype = field(info, "dtype", where);
  if (!dtype.is_string() || !element_size(dtype.get_ref<const std::string&>()))
    fail(kBroken,
         "{}: unknown dtype {}",
         where,
         dtype.is_structured() ? dtype.type_name() : escaped(dtype.dump(), 40));
  tensor.dtype = dtype.get<std::string>();
  const Json& shape = field(info, "shape", where);
  if (!shape.is_array())
    fail(kBroken, "{}: shape must be an array, found {}", where, shape.type_name());
  int64_t bytes = *element_size(tensor.dtype);
  for (const Json& dim : shape) {
    tensor.shape.push_back(size_value(dim, where, "a dimension"));
    bytes = checked_mul(bytes, tensor.shape.back(), where, kBroken);
  }
  const Json& offsets = field(info, "data_offsets", where);
  if (!offsets.is_array() || offsets.size() != 2)
    fail(kBroken, "{}: data_offsets must be an array of two integers", where);
  const int64_t begin = size_value(offsets[0], where, "data_offsets");
  const int64_t end = size_value(offsets[1], where, "data_offsets");
  if (end < begin) fail(kBroken, "{}: data_offsets [{}, {}] are reversed", where, begin, end);
  if (end > file.size() - data_start)
    fail(kBroken,
         "{}: data_offsets [{}, {}] end beyond the {} bytes of values in the file",
         where,
         begin,
         end,
         file.size() - data_start);
  if (end - begin != bytes)
    fail(kBroken,
         "{}: data_offsets [{}, {}] hold {} bytes, dtype and shape need {}",
         where,
         begin,
         end,
         end - begin,
         bytes);
  tensor.offset = data_start + begin;
  tensor.bytes = bytes;
  return tensor;
}

void check_metadata(const Json& metadata, const RawFile& file) {
  const std::string where = escaped(file.path());
  if (!metadata.is_object())
    fail(kBroken, "{}: __metadata__ must be an object, found {}", where, metadata.type_name());
  for (const auto& [key, value] : metadata.items())
    if (!value.is_string())
      fail(kBroken,
           "{}: __metadata__: \"{}\" must be a string, found {}",
           where,
           escaped(key),
           value.type_name());
}

// Values must fill the file from `data_start` to its end, without holes and overlaps.
void check_extents(std::vector<CheckpointTensor>& tensors,
                   const RawFile& file,
                   int64_t data_start) {
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
  });
  int64_t end = data_start;
  for (const CheckpointTensor& tensor : tensors) {
    if (tensor.offset != end)
      fail(kBroken,
           "{}: tensor \"{}\" begins at byte {} of the values where byte {} is due: {}",
           escaped(file.path()),
           escaped(tensor.name),
           tensor.offset - data_start,
           end - data_start,
           tensor.offset < end ? "it overlaps another tensor" : "there is a hole before it");
    end = tensor.offset + tensor.bytes;
  }
  if (end != file.size())
    fail(kBroken, "{}: {} bytes follow the last tensor", escaped(file.path()), file.size() - end);
}

std::vector<CheckpointTensor> parse_header(const RawFile& file) {
  const std::string path = escaped(file.path());
  if (file.size() < 8)
    fail(kBroken, "{}: {} bytes are no safetensors file; it begins with 8", path, file.size());
  uint64_t length = 0;
  file.read(0, &length, sizeof length);
  if (std::cmp_greater(length, kMaxHeaderBytes))
    fail(kBroken, "{}: header of {} bytes; at most {} are accepted", path, length, kMaxHeaderBytes);
  if (std::cmp_greater(length, file.size() - 8))
    fail(kBroken,
         "{}: header of {} bytes in a file of {}; the file is truncated",
         path,
         length,
         file.size());
  std::string text(length, '\0');
  file.read(8, text.data(), static_cast<int64_t>(length));
  if (!text.starts_with('{')) fail(kBroken, "{}: the header does not begin with '{{'", path);
  const Json header = parse_json(text, file.path() + " header", kBroken, kHeaderLimits);
  const auto data_start = static_cast<int64_t>(8 + length);
  std::vector<CheckpointTensor> tensors;
  if (std::cmp_greater(header.size(), kMaxTensors))
    fail(kBroken, "{}: {} tensors; at most {} are accepted", path, header.size(), kMaxTensors);
  tensors.reserve(header.size());
  for (const auto& [name, info] : header.items()) {
    if (name == "__metadata__")
      check_metadata(info, file);
    else
      tensors.push_back(parse_tensor(name, info, file, data_start));
  }
  check_extents(tensors, file, data_start);
  return tensors;
}

// `n` values of type Bits, which may lie unaligned.
template <class Bits, class Decode>
void decode(const char* bytes, int64_t n, float* out, const Decode& number) {
  for (int64_t i = 0; i < n; ++i) {
    Bits bits;
    std::memcpy(&bits, bytes + i * static_cast<int64_t>(sizeof bits), sizeof bits);
    out[i] = number(bits);
  }
}

// Something by that name is there, if only a dangling link.
bool present(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(fs::symlink_status(path, ignored));
}

bool plain_name(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
}

// Name of the only *.safetensors file of the folder.
std::string only_file(const fs::path& folder) {
  std::vector<std::string> found;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
    if (at->path().extension() == ".safetensors") found.push_back(at->path().filename().string());
  if (error) fail(kBroken, "{}: cannot list: {}", escaped(folder.string()), error.message());
  if (found.size() == 1) return found.front();
  if (found.empty())
    fail(kBroken,
         "{}: no weights: neither {} nor {} nor another *.safetensors file",
         escaped(folder.string()),
         kIndexName,
         kSingleName);
  fail(kBroken,
       "{}: {} *.safetensors files but neither {} nor {}; which ones belong to the model is not "
       "known",
       escaped(folder.string()),
       found.size(),
       kIndexName,
       kSingleName);
}

// weight_map of the index: shard -> its tensors.
std::map<std::string, std::vector<std::string>> read_index(const fs::path& path) {
  const std::string text = read_file(path, kMaxHeaderBytes, kBroken);
  const Json index = parse_json(text, path.string(), kBroken, kIndexLimits);
  const std::string where = escaped(path.string());
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || map == index.end() || !map->is_object())
    fail(kBroken, "{}: weight_map must be an object", where);
  if (map->empty()) fail(kBroken, "{}: weight_map is empty", where);
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [tensor, shard] : map->items()) {
    if (!shard.is_string() || !plain_name(shard.get_ref<const std::string&>()))
      fail(kBroken,
           "{}: tensor \"{}\": its file must be a plain name in the same folder, found {}",
           where,
           escaped(tensor),
           shard.is_structured() ? shard.type_name() : escaped(shard.dump(), 100));
    shards[shard.get_ref<const std::string&>()].push_back(tensor);
  }
  return shards;
}

}  // namespace

struct Checkpoint::Shard {
  explicit Shard(const fs::path& path) : file(path, kBroken), tensors(parse_header(file)) {}
  RawFile file;
  std::vector<CheckpointTensor> tensors;  // moved into the checkpoint once judged
};

Checkpoint::Checkpoint(const fs::path& folder) {
  std::error_code error;
  const fs::file_status status = fs::status(folder, error);
  if (!fs::exists(status)) fail(ExitCode::kUsage, "{}: no such folder", escaped(folder.string()));
  if (!fs::is_directory(status))
    fail(ExitCode::kUsage, "{}: not a folder", escaped(folder.string()));

  const fs::path index_path = folder / kIndexName;
  const bool indexed = present(index_path);
  std::map<std::string, std::vector<std::string>> listed;
  if (indexed)
    listed = read_index(index_path);
  else
    listed[present(folder / kSingleName) ? std::string(kSingleName) : only_file(folder)] = {};

  for (const auto& [name, names] : listed) {
    const auto shard = std::make_shared<Shard>(folder / name);
    for (CheckpointTensor& tensor : shard->tensors) {
      const auto [at, inserted] = tensors_.emplace(tensor.name, tensor);
      if (!inserted)
        fail(kBroken,
             "{}: tensor \"{}\" is in {} and in {}",
             escaped(folder.string()),
             escaped(tensor.name),
             escaped(at->second.file),
             escaped(name));
      // weight_map is sorted by tensor name, so each shard's list is.
      if (indexed && !std::binary_search(names.begin(), names.end(), tensor.name))
        fail(kBroken,
             "{}: tensor \"{}\" is in {} but the index does not say so",
             escaped(index_path.string()),
             escaped(tensor.name),
             escaped(name));
    }
    for (const std::string& tensor : names)
      if (const auto at = tensors_.find(tensor); at == tensors_.end() || at->second.file != name)
        fail(kBroken,
             "{}: tensor \"{}\" is not in {} where the index has it",
             escaped(index_path.string()),
             escaped(tensor),
             escaped(name));
    shard->tensors = {};
    shards_[name] = shard;
  }
}

Checkpoint::~Checkpoint() = default;
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;

const CheckpointTensor* Checkpoint::find(const std::string& name) const {
  const auto at = tensors_.find(name);
  return at == tensors_.end() ? nullptr : &at->second;
}

void Checkpoint::read_f32(const CheckpointTensor& tensor,
                          int64_t first,
                          int64_t count,
                          float* out) const {
  const auto shard = shards_.find(tensor.file);
  GLM_CHECK(shard != shards_.end(), "{} is no shard of this checkpoint", escaped(tensor.file));
  const RawFile& file = shard->second->file;
  const bool f32 = tensor.dtype == "F32";
  const bool bf16 = tensor.dtype == "BF16";
  const bool f8 = tensor.dtype == "F8_E4M3";
  if (!f32 && !bf16 && !f8 && tensor.dtype != "F16")
    fail(kBroken,
         "{}: tensor \"{}\" has dtype {}; BF16, F16, F32 and F8_E4M3 can be read",
         escaped(file.path()),
         escaped(tensor.name),
         tensor.dtype);
  const int64_t size = f32 ? 4 : f8 ? 1 : 2;
  GLM_CHECK(first >= 0 && count >= 0 && first <= tensor.bytes / size - count,
            "elements {} + {} of {}",
            first,
            count,
            tensor.bytes / size);
  const auto read = [&](int64_t at, void* to, int64_t bytes) {
    if (const int64_t got = file.read_some(tensor.offset + at, to, bytes); got != bytes)
      fail(kBroken,
           "{}: tensor \"{}\": the file ends at byte {}; it has become shorter since it was opened",
           escaped(file.path()),
           escaped(tensor.name),
           tensor.offset + at + got);
  };
  if (f32) return read(first * size, out, count * size);
  std::vector<char> chunk(static_cast<size_t>(std::min(count * size, kChunkBytes)));
  for (int64_t done = 0; done < count;) {
    const int64_t n = std::min(count - done, kChunkBytes / size);
    read((first + done) * size, chunk.data(), n * size);
    if (f8)
      decode<uint8_t>(chunk.data(), n, out + done, [](uint8_t code) { return kF8E4M3[code]; });
    else if (bf16)
      decode<uint16_t>(chunk.data(), n, out + done, bf16_to_f32);
    else
      decode<uint16_t>(chunk.data(), n, out + done, f16_to_f32);
    done += n;
  }
}

std::string Checkpoint::fingerprint() const {
  uint64_t hash = 0xCBF29CE484222325u;  // FNV-1a, 64 bits
  const auto mix = [&hash](std::string_view text) {
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  };
  for (const auto& [name, tensor] : tensors_) {
    mix(fmt::format("{}:{}\n{}\n{}\n", name.size(), name, tensor.dtype, tensor.offset));
    for (const int64_t dim : tensor.shape) mix(fmt::format("{},", dim));
  }
  return fmt::format("{:016x}", hash);
}

std::string Checkpoint::stamp() const {
  std::string text;
  for (const auto& [name, shard] : shards_)
    text += fmt::format(
        "{}:{} {} {}\n", name.size(), name, shard->file.size(), shard->file.changed_nanoseconds());
  return text;
}

int64_t Checkpoint::total_bytes() const {
  int64_t total = 0;
  for (const auto& [name, tensor] : tensors_) total += tensor.bytes;
  return total;
}

}  // namespace glm
