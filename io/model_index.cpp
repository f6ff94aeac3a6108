// Lookup in the index of a model file, and its form on the wire between ranks of one program.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

#include "core/base/check.h"
#include "io/crc32c.h"
#include "io/model_file.h"
#include "io/model_layout.h"

namespace glm {
namespace {

static_assert(std::endian::native == std::endian::little, "ranks exchange little-endian bytes");

constexpr uint64_t kMagic = 0x3230584449'4D4C47u;  // "GLMIDX02"

class Sink {
 public:
  template <class T>
  void number(T value) {
    static_assert(std::is_arithmetic_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void text(std::string_view value) {
    number<uint64_t>(value.size());
    bytes_ += value;
  }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class Source {
 public:
  explicit Source(std::string_view bytes) : left_(bytes) {}
  std::string_view raw(uint64_t bytes) {
    if (bytes > left_.size()) fail(ExitCode::kRuntime, "the index received is cut short");
    const std::string_view part = left_.substr(0, bytes);
    left_.remove_prefix(bytes);
    return part;
  }
  template <class T>
  T number() {
    T value = {};
    std::memcpy(&value, raw(sizeof value).data(), sizeof value);
    return value;
  }
  std::string text() { return std::string(raw(number<uint64_t>())); }
  // Number of items that follow, each of at least `item_bytes`.
  size_t count(uint64_t item_bytes) {
    const auto items = number<uint64_t>();
    if (items > left_.size() / item_bytes)
      fail(ExitCode::kRuntime, "the index received is cut short");
    return items;
  }
  bool empty() const { return left_.empty(); }

 private:
  std::string_view left_;
};

TensorEntry read_entry(Source& source) {
  TensorEntry entry;
  entry.name = source.text();
  const auto dtype = source.number<uint8_t>();
  const auto packing = source.number<uint8_t>();
  if (dtype > static_cast<uint8_t>(DType::kU8) || packing > static_cast<uint8_t>(Packing::kTile16))
    fail(ExitCode::kRuntime, "the index received holds an unknown dtype or packing");
  entry.dtype = static_cast<DType>(dtype);
  entry.packing = static_cast<Packing>(packing);
  entry.dims.resize(source.count(sizeof(int64_t)));
  for (int64_t& dim : entry.dims) dim = source.number<int64_t>();
  for (int64_t* field : {&entry.values_offset,
                         &entry.values_bytes,
                         &entry.scales_offset,
                         &entry.scales_bytes,
                         &entry.first_block})
    *field = source.number<int64_t>();
  return entry;
}

}  // namespace

std::string manifest_digest(const ModelIndex& index, const RawFile& file) {
  if (file.size() != index.file_bytes) return fmt::format("{} bytes", file.size());
  uint32_t crc = 0;
  std::string bytes;
  for (const ModelIndex::Extent& extent : index.manifest) {
    bytes.resize(static_cast<size_t>(extent.bytes));
    file.read(extent.offset, bytes.data(), extent.bytes);
    crc = crc32c(crc, bytes.data(), bytes.size());
  }
  return fmt::format("{}-{:08x}", file.size(), crc);
}

const TensorEntry* ModelIndex::find(std::string_view name) const {
  const auto at = std::ranges::lower_bound(
      entries, name, {}, [](const TensorEntry& entry) -> std::string_view { return entry.name; });
  return at != entries.end() && at->name == name ? &*at : nullptr;
}

std::string ModelIndex::serialized() const {
  Sink sink;
  sink.number(kMagic);
  for (const std::string* text : {&path, &architecture, &converter_version, &source_fingerprint})
    sink.text(*text);
  for (const TextPlace& place : text_places()) sink.text(texts.*place.member);
  sink.text(digest);
  sink.number(file_bytes);
  sink.number(block_bytes);
  sink.number<uint64_t>(manifest.size());
  for (const Extent& extent : manifest) {
    sink.number(extent.offset);
    sink.number(extent.bytes);
  }
  sink.number<uint64_t>(entries.size());
  for (const TensorEntry& entry : entries) {
    sink.text(entry.name);
    sink.number(static_cast<uint8_t>(entry.dtype));
    sink.number(static_cast<uint8_t>(entry.packing));
    sink.number<uint64_t>(entry.dims.size());
    for (const int64_t dim : entry.dims) sink.number(dim);
    for (const int64_t field : {entry.values_offset,
                                entry.values_bytes,
                                entry.scales_offset,
                                entry.scales_bytes,
                                entry.first_block})
      sink.number(field);
  }
  sink.text({reinterpret_cast<const char*>(checksums.data()), checksums.size() * sizeof(uint32_t)});
  return sink.take();
}

ModelIndex ModelIndex::deserialized(std::string_view bytes) {
  Source source(bytes);
  if (source.number<uint64_t>() != kMagic)
    fail(ExitCode::kRuntime, "what was received is no index of a model file");
  ModelIndex index;
  for (std::string* text :
       {&index.path, &index.architecture, &index.converter_version, &index.source_fingerprint})
    *text = source.text();
  for (const TextPlace& place : text_places()) index.texts.*place.member = source.text();
  index.digest = source.text();
  index.file_bytes = source.number<int64_t>();
  index.block_bytes = source.number<int64_t>();
  index.manifest.resize(source.count(2 * sizeof(int64_t)));
  for (ModelIndex::Extent& extent : index.manifest) {
    extent.offset = source.number<int64_t>();
    extent.bytes = source.number<int64_t>();
  }
  index.entries.resize(source.count(2 * sizeof(uint64_t)));
  for (TensorEntry& entry : index.entries) entry = read_entry(source);
  const std::string_view checksums = source.raw(source.number<uint64_t>());
  index.checksums.resize(checksums.size() / sizeof(uint32_t));
  if (!index.checksums.empty())
    std::memcpy(
        index.checksums.data(), checksums.data(), index.checksums.size() * sizeof(uint32_t));
  if (!source.empty()) fail(ExitCode::kRuntime, "the index received has bytes left over");
  return index;
}

}  // namespace glm
