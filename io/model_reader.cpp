// Judges a model file before anything in it is believed: superblock first, by our own reading; then
// the library's view of every dataset against the checksummed index. SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <charconv>
#include <system_error>

#include "core/base/check.h"
#include "io/hdf5_file.h"
#include "io/hdf5_walk.h"
#include "io/model_file.h"
#include "io/model_layout.h"
#include "io/raw_file.h"

namespace glm {
namespace {

constexpr hsize_t kMaxRootMembers = 64;

using Extent = ModelIndex::Extent;

class Judge {
 public:
  Judge(const RawFile& file, ModelIndex& index)
      : file_(file), index_(index), calls_(file.path(), ExitCode::kModelFile) {
    const Hdf5Handle access = hdf5_access(calls_);
    hdf5_ = calls_.handle(H5Fopen(file.path().c_str(), H5F_ACC_RDONLY, access), H5Fclose, "open");
    root_ = open_group(hdf5_, "/");
    constexpr std::array kElements = {Element::kF32,
                                      Element::kF16,
                                      Element::kU16,
                                      Element::kI32,
                                      Element::kU8,
                                      Element::kI8,
                                      Element::kU32};
    for (const Element element : kElements) types_.push_back(hdf5_type(calls_, element));
  }

  void run() {
    check_header();
    check_hard_links(root_, "/", kMaxRootMembers);
    read_texts();
    const std::string text = read_bytes(root_, kIndexDataset, kMaxIndexBytes);
    read_checksums();
    const uint32_t expected = read_u32_attribute(calls_, root_, kChecksumAttribute);
    if (const uint32_t found = index_checksum(index_, text); found != expected)
      calls_.reject(
          "the index is damaged: its checksum is {:08x} where {:08x} is recorded", found, expected);
    parse_index_text(text, index_);
    check_weights();
  }

 private:
  void check_header() {
    const std::string format = read_text_attribute(calls_, root_, kFormatAttribute);
    if (format != kModelFormat)
      calls_.reject("format \"{}\" is not {}", escaped(format), kModelFormat);
    const std::string schema = read_text_attribute(calls_, root_, kSchemaAttribute);
    int major = 0;
    const char* end = schema.data() + schema.size();
    const auto parsed = std::from_chars(schema.data(), end, major);
    if (parsed.ec != std::errc() || parsed.ptr == end || *parsed.ptr != '.' || major < 1)
      calls_.reject("schema_version \"{}\" is not MAJOR.MINOR", escaped(schema));
    if (major > kSchemaMajor)
      calls_.reject("schema_version {} is newer than {}.{} of this program; use a newer one",
                    escaped(schema),
                    kSchemaMajor,
                    kSchemaMinor);
    if (read_u32_attribute(calls_, root_, kCompleteAttribute) != 1)
      calls_.reject("its writing was never completed; convert the model again");
    index_.architecture = read_text_attribute(calls_, root_, kArchitectureAttribute);
    index_.converter_version = read_text_attribute(calls_, root_, kConverterAttribute);
    index_.source_fingerprint = read_text_attribute(calls_, root_, kSourceAttribute);
  }

  Hdf5Handle open_group(hid_t parent, const char* name) const {
    return calls_.handle(H5Gopen2(parent, name, H5P_DEFAULT), H5Gclose, name);
  }

  // All links of a group are hard ones; returns their number. Nothing is followed.
  hsize_t check_hard_links(hid_t group, const char* name, hsize_t limit) const {
    H5G_info_t info = {};
    calls_.check(H5Gget_info(group, &info), name);
    if (info.nlinks > limit)
      calls_.reject("{}: {} members are more than {}", name, info.nlinks, limit);
    std::string bad;
    const auto visit =
        [](hid_t, const char* link, const H5L_info_t* what, void* bad_name) -> herr_t {
      if (what->type == H5L_TYPE_HARD) return 0;
      *static_cast<std::string*>(bad_name) = link;
      return 1;
    };
    calls_.check(H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, visit, &bad), name);
    if (!bad.empty())
      calls_.reject(
          "{}: {} is a soft or external link; these are not accepted", name, escaped(bad));
    return info.nlinks;
  }

  bool has(hid_t group, const char* name) const {
    return calls_.check(H5Lexists(group, name, H5P_DEFAULT), name) > 0;
  }

  // The dataset must be a plain run of bytes in this file.
  Extent dataset(hid_t group, const char* name, Element element, std::vector<int64_t>& dims) {
    if (!has(group, name)) calls_.reject("the dataset {} is missing", name);
    const Hdf5Handle object = calls_.handle(H5Dopen2(group, name, H5P_DEFAULT), H5Dclose, name);
    const Hdf5Handle plan = calls_.handle(H5Dget_create_plist(object), H5Pclose, name);
    if (H5Pget_layout(plan) != H5D_CONTIGUOUS || H5Pget_external_count(plan) != 0 ||
        H5Pget_nfilters(plan) != 0)
      calls_.reject("the dataset {} is not stored as one plain run of bytes", name);
    const Hdf5Handle type = calls_.handle(H5Dget_type(object), H5Tclose, name);
    if (calls_.check(H5Tequal(type, types_[static_cast<size_t>(element)]), name) == 0)
      calls_.reject("the dataset {} has another element type than its place demands", name);
    const Hdf5Handle space = calls_.handle(H5Dget_space(object), H5Sclose, name);
    std::array<hsize_t, H5S_MAX_RANK> sizes = {};
    const int rank = H5Sget_simple_extent_dims(space, sizes.data(), nullptr);
    if (rank < 1) calls_.reject("the dataset {} has no dims", name);
    const std::string what = fmt::format("{}: {}", escaped(file_.path()), name);
    dims.clear();
    int64_t bytes = element_bytes(element);
    for (int i = 0; i < rank; ++i) {
      if (!std::in_range<int64_t>(sizes[static_cast<size_t>(i)]))
        calls_.reject("the dataset {} has impossible dims", name);
      dims.push_back(static_cast<int64_t>(sizes[static_cast<size_t>(i)]));
      bytes = checked_mul(bytes, dims.back(), what, ExitCode::kModelFile);
    }
    const haddr_t offset = H5Dget_offset(object);
    if (offset == HADDR_UNDEF || H5Dget_storage_size(object) != static_cast<hsize_t>(bytes) ||
        std::cmp_greater(bytes, file_.size()) || std::cmp_greater(offset, file_.size() - bytes))
      calls_.reject("the dataset {} does not lie inside the file", name);
    return {static_cast<int64_t>(offset), bytes};
  }

  std::string read_bytes(hid_t group, const char* name, int64_t limit) {
    std::vector<int64_t> dims;
    const Extent extent = dataset(group, name, Element::kU8, dims);
    if (dims.size() != 1 || extent.bytes > limit)
      calls_.reject("the dataset {} is not a text of at most {} bytes", name, limit);
    std::string bytes(static_cast<size_t>(extent.bytes), '\0');
    file_.read(extent.offset, bytes.data(), extent.bytes);
    if (std::string_view(name) == kIndexDataset) index_.manifest.push_back(extent);
    return bytes;
  }

  void read_texts() {
    for (const TextPlace& place : text_places()) {
      if (!has(root_, place.group)) continue;
      const Hdf5Handle group = open_group(root_, place.group);
      check_hard_links(group, place.group, kMaxRootMembers);
      if (has(group, place.name))
        index_.texts.*place.member = read_bytes(group, place.name, kMaxTextBytes);
    }
  }

  void read_checksums() {
    std::vector<int64_t> dims;
    const Extent extent = dataset(root_, kChecksumsDataset, Element::kU32, dims);
    if (dims.size() != 1)
      calls_.reject("the dataset {} has {} dims", kChecksumsDataset, dims.size());
    index_.checksums.resize(static_cast<size_t>(dims[0]));
    file_.read(extent.offset, index_.checksums.data(), extent.bytes);
    index_.manifest.push_back(extent);
  }

  void check_weights() {
    if (!has(root_, kWeightsGroup)) calls_.reject("the group {} is missing", kWeightsGroup);
    const Hdf5Handle group = open_group(root_, kWeightsGroup);
    const hsize_t found = check_hard_links(group, kWeightsGroup, kMaxPlanes);
    hsize_t planes = 0;
    std::vector<int64_t> dims;
    for (const TensorEntry& entry : index_.entries)
      for (const PlaneLayout& plane : plane_layouts(entry.name,
                                                    entry.dtype,
                                                    entry.packing,
                                                    entry.dims,
                                                    file_.path(),
                                                    ExitCode::kModelFile)) {
        const bool scales = plane.name != entry.name;
        const Extent extent = dataset(group, plane.name.c_str(), plane.element, dims);
        if (dims != plane.dims || extent.bytes != plane.bytes ||
            extent.offset != (scales ? entry.scales_offset : entry.values_offset))
          calls_.reject("the dataset {} is not where, or not as large as, the index says",
                        plane.name);
        ++planes;
      }
    if (planes != found)
      calls_.reject("{} has {} members, the index has {}", kWeightsGroup, found, planes);
  }

  const RawFile& file_;
  ModelIndex& index_;
  Hdf5Calls calls_;
  Hdf5Handle hdf5_;
  Hdf5Handle root_;
  std::vector<Hdf5Handle> types_;  // by Element
};

}  // namespace

ModelIndex read_model_index(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error) && (!error || error == std::errc::not_a_directory))
    fail(ExitCode::kUsage, "{}: no such model file", escaped(path.string()));
  const RawFile file(path, ExitCode::kModelFile);
  const uint64_t root = check_hdf5_superblock(file, "convert the model again");
  check_hdf5_structures(file, root);
  ModelIndex index;
  index.path = path.string();
  index.file_bytes = file.size();
  index.manifest.push_back({0, kHdf5SuperblockBytes});
  Judge(file, index).run();
  index.digest = manifest_digest(index, file);
  return index;
}

}  // namespace glm
