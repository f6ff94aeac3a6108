// The layout of a model file by the HDF5 library. The same arguments give the same bytes: no times
// are recorded. SPDX-License-Identifier: MIT
#include "io/model_skeleton.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <utility>

#include "io/hdf5_file.h"
#include "io/model_layout.h"

namespace glm {
namespace {

constexpr hsize_t kAlignment = 65536;
constexpr hsize_t kAlignmentThreshold = 4096;

Hdf5Handle create_group(const Hdf5Calls& calls, hid_t parent, const char* name) {
  const Hdf5Handle plan = calls.handle(H5Pcreate(H5P_GROUP_CREATE), H5Pclose, name);
  calls.check(H5Pset_obj_track_times(plan, false), name);
  return calls.handle(H5Gcreate2(parent, name, H5P_DEFAULT, plan, H5P_DEFAULT), H5Gclose, name);
}

Hdf5Handle create_dataset(const Hdf5Calls& calls,
                          hid_t parent,
                          const std::string& name,
                          Element element,
                          std::span<const int64_t> dims) {
  const std::vector<hsize_t> sizes(dims.begin(), dims.end());
  const Hdf5Handle plan = calls.handle(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, name);
  calls.check(H5Pset_layout(plan, H5D_CONTIGUOUS), name);
  calls.check(H5Pset_alloc_time(plan, H5D_ALLOC_TIME_EARLY), name);
  calls.check(H5Pset_fill_time(plan, H5D_FILL_TIME_NEVER), name);
  calls.check(H5Pset_obj_track_times(plan, false), name);
  const Hdf5Handle space = calls.handle(
      H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr), H5Sclose, name);
  const Hdf5Handle type = hdf5_type(calls, element);
  return calls.handle(H5Dcreate2(parent, name.c_str(), type, space, H5P_DEFAULT, plan, H5P_DEFAULT),
                      H5Dclose,
                      name);
}

// Returns the offset of its bytes in the file.
int64_t create_bytes(const Hdf5Calls& calls, hid_t parent, const char* name, size_t bytes) {
  const Hdf5Handle object =
      create_dataset(calls, parent, name, Element::kU8, std::array{static_cast<int64_t>(bytes)});
  return static_cast<int64_t>(H5Dget_offset(object));
}

TensorEntry create_weight(const Hdf5Calls& calls,
                          hid_t group,
                          const ModelWriter::TensorShape& tensor,
                          const std::string& path) {
  TensorEntry entry;
  entry.name = tensor.name;
  entry.dtype = tensor.dtype;
  entry.packing = tensor.packing;
  entry.dims = tensor.dims;
  for (const PlaneLayout& plane : plane_layouts(
           tensor.name, tensor.dtype, tensor.packing, tensor.dims, path, ExitCode::kRuntime)) {
    const Hdf5Handle object = create_dataset(calls, group, plane.name, plane.element, plane.dims);
    write_text_attribute(calls, object, "dtype", dtype_name(tensor.dtype));
    write_text_attribute(calls, object, "packing", packing_name(tensor.packing));
    write_sizes_attribute(calls, object, "dims", tensor.dims);
    const bool values = plane.name == tensor.name;
    (values ? entry.values_offset : entry.scales_offset) =
        static_cast<int64_t>(H5Dget_offset(object));
    (values ? entry.values_bytes : entry.scales_bytes) = plane.bytes;
  }
  return entry;
}

void create_texts(const Hdf5Calls& calls, hid_t root, const ModelIndex& index, Skeleton& skeleton) {
  std::map<std::string, Hdf5Handle> groups;
  for (const TextPlace& place : text_places()) {
    const std::string& content = index.texts.*place.member;
    skeleton.text_offsets.push_back(0);
    if (content.empty()) continue;
    if (!groups.contains(place.group)) groups[place.group] = create_group(calls, root, place.group);
    skeleton.text_offsets.back() =
        create_bytes(calls, groups[place.group], place.name, content.size());
  }
}

// Sorts the entries, numbers the blocks of their planes in that order, and lists the planes.
void number_blocks(ModelIndex& index, Skeleton& skeleton) {
  int64_t blocks = 0;
  std::ranges::sort(index.entries, {}, &TensorEntry::name);
  for (TensorEntry& entry : index.entries) {
    entry.first_block = blocks;
    skeleton.planes.push_back({entry.name, entry.values_offset, entry.values_bytes, blocks});
    blocks += block_count(entry.values_bytes, index.block_bytes);
    if (entry.scales_bytes == 0) continue;
    skeleton.planes.push_back(
        {entry.name + std::string(kScalesSuffix), entry.scales_offset, entry.scales_bytes, blocks});
    blocks += block_count(entry.scales_bytes, index.block_bytes);
  }
  index.checksums.assign(static_cast<size_t>(blocks), 0);
  std::ranges::sort(skeleton.planes, {}, &Skeleton::Plane::offset);
}

void create_members(const Hdf5Calls& calls,
                    hid_t root,
                    const std::vector<ModelWriter::TensorShape>& tensors,
                    ModelIndex& index,
                    Skeleton& skeleton) {
  write_text_attribute(calls, root, kFormatAttribute, kModelFormat);
  write_text_attribute(
      calls, root, kSchemaAttribute, fmt::format("{}.{}", kSchemaMajor, kSchemaMinor));
  write_text_attribute(calls, root, kArchitectureAttribute, index.architecture);
  write_text_attribute(calls, root, kConverterAttribute, index.converter_version);
  write_text_attribute(calls, root, kSourceAttribute, index.source_fingerprint);
  create_u32_attribute(calls, root, kChecksumAttribute, 0);
  create_u32_attribute(calls, root, kCompleteAttribute, 0);
  create_texts(calls, root, index, skeleton);
  const Hdf5Handle weights = create_group(calls, root, kWeightsGroup);
  std::set<std::string> names;
  for (const ModelWriter::TensorShape& tensor : tensors) {
    GLM_CHECK(names.insert(tensor.name).second, "{} is announced twice", tensor.name);
    index.entries.push_back(create_weight(calls, weights, tensor, calls.path()));
  }
  number_blocks(index, skeleton);
  skeleton.index_text = index_text(index);
  skeleton.index_offset = create_bytes(calls, root, kIndexDataset, skeleton.index_text.size());
  const Hdf5Handle checksums =
      create_dataset(calls,
                     root,
                     kChecksumsDataset,
                     Element::kU32,
                     std::array{static_cast<int64_t>(index.checksums.size())});
  skeleton.checksums_offset = static_cast<int64_t>(H5Dget_offset(checksums));
}

}  // namespace

Skeleton write_skeleton(const std::string& path,
                        const std::vector<ModelWriter::TensorShape>& tensors,
                        ModelIndex& index) {
  Skeleton skeleton;
  index.entries.clear();
  const Hdf5Calls calls(path, ExitCode::kResources);
  const Hdf5Handle access = hdf5_access(calls);
  calls.check(H5Pset_alignment(access, kAlignmentThreshold, kAlignment), "alignment");
  const Hdf5Handle plan = calls.handle(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "file");
  calls.check(H5Pset_obj_track_times(plan, false), "file");
  Hdf5Handle file =
      calls.handle(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, plan, access), H5Fclose, "create");
  {
    const Hdf5Handle root = calls.handle(H5Gopen2(file, "/", H5P_DEFAULT), H5Gclose, "/");
    create_members(calls, root, tensors, index, skeleton);
  }
  calls.check(H5Fflush(file, H5F_SCOPE_GLOBAL), "write");
  calls.check(file.close(), "close");
  index.file_bytes = RawFile(path, ExitCode::kResources).size();
  return skeleton;
}

void seal_model_file(const std::string& path,
                     const ModelIndex& index,
                     const std::string& index_text) {
  const Hdf5Calls calls(path, ExitCode::kResources);
  const Hdf5Handle access = hdf5_access(calls);
  Hdf5Handle file =
      calls.handle(H5Fopen(path.c_str(), H5F_ACC_RDWR, access), H5Fclose, "open again");
  {
    const Hdf5Handle root = calls.handle(H5Gopen2(file, "/", H5P_DEFAULT), H5Gclose, "/");
    overwrite_u32_attribute(calls, root, kChecksumAttribute, index_checksum(index, index_text));
    calls.check(H5Fflush(file, H5F_SCOPE_GLOBAL), "write");
    overwrite_u32_attribute(calls, root, kCompleteAttribute, 1);
  }
  calls.check(H5Fflush(file, H5F_SCOPE_GLOBAL), "write");
  calls.check(file.close(), "close");
}

}  // namespace glm
