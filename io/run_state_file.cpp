// Run states as HDF5. The file is made in memory and written by plain calls, whose errors can be
// trusted on a full disk; on the way back its structures are walked before the library sees them.
// SPDX-License-Identifier: MIT
#include <array>
#include <cstring>
#include <map>
#include <type_traits>

#include "io/hdf5_file.h"
#include "io/hdf5_walk.h"
#include "io/output_file.h"
#include "io/raw_file.h"
#include "io/run_state_columns.h"

namespace glm {
namespace {

constexpr const char* kStateFormat = "glm-run-state";
constexpr const char* kStateFormatAttribute = "format";
constexpr const char* kStateVersionAttribute = "format_version";
constexpr const char* kStateModelAttribute = "model";
constexpr const char* kStateSettingsAttribute = "settings";
constexpr const char* kStateFinishedAttribute = "finished";
constexpr const char* kStateChecksumAttribute = "checksum";
constexpr uint32_t kStateVersion = 1;
constexpr size_t kSealed = kHdf5SuperblockBytes - sizeof(uint32_t);
constexpr size_t kGrowth = size_t{1} << 20;  // of the file in memory
constexpr int64_t kMostStateBytes = int64_t{1} << 32;

template <class T>
Hdf5Handle column_type(const Hdf5Calls& calls) {
  const auto stored = [] {
    if constexpr (std::is_same_v<T, double>) return H5T_IEEE_F64LE;
    if constexpr (std::is_same_v<T, char>) return H5T_STD_U8LE;
    if constexpr (std::is_same_v<T, int32_t>) return H5T_STD_I32LE;
    if constexpr (std::is_same_v<T, int64_t>) return H5T_STD_I64LE;
    return H5T_STD_U64LE;
  };
  return calls.handle(H5Tcopy(stored()), H5Tclose, "element type");
}

class StateWriter {
 public:
  explicit StateWriter(const std::string& path) : calls_(path, ExitCode::kResources) {
    const Hdf5Handle access = hdf5_access(calls_);
    calls_.check(H5Pset_fapl_core(access, kGrowth, false), "file in memory");
    const Hdf5Handle plan = calls_.handle(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "file");
    calls_.check(H5Pset_obj_track_times(plan, false), "file");
    file_ = calls_.handle(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, plan, access), H5Fclose, "create");
  }

  std::string image(const RunStateColumns& columns) {
    write_attributes(columns);
    RunStateColumns::each(columns, [this](const char* group, const char* name, const auto& values) {
      write_column(group, name, values);
    });
    groups_.clear();
    calls_.check(H5Fflush(file_, H5F_SCOPE_GLOBAL), "write");
    const ssize_t bytes = calls_.check(H5Fget_file_image(file_, nullptr, 0), "file in memory");
    std::string out(static_cast<size_t>(bytes), '\0');
    calls_.check(H5Fget_file_image(file_, out.data(), out.size()), "file in memory");
    calls_.check(file_.close(), "close");
    // The library took its mark of an open file out of the superblock, and left the checksum.
    const uint32_t checksum = hdf5_checksum(std::string_view(out).substr(0, kSealed));
    std::memcpy(&out.at(kSealed), &checksum, sizeof checksum);
    return out;
  }

 private:
  void write_attributes(const RunStateColumns& columns) {
    const Hdf5Handle root = calls_.handle(H5Gopen2(file_, "/", H5P_DEFAULT), H5Gclose, "/");
    write_text_attribute(calls_, root, kStateFormatAttribute, kStateFormat);
    create_u32_attribute(calls_, root, kStateVersionAttribute, kStateVersion);
    write_text_attribute(calls_, root, kStateModelAttribute, columns.model);
    write_text_attribute(calls_, root, kStateSettingsAttribute, columns.settings);
    create_u32_attribute(calls_, root, kStateFinishedAttribute, columns.finished);
    create_u32_attribute(calls_, root, kStateChecksumAttribute, columns.checksum());
  }

  hid_t group(const char* name) {
    if (*name == '\0') return file_;
    const auto found = groups_.find(name);
    if (found != groups_.end()) return found->second;
    const Hdf5Handle plan = calls_.handle(H5Pcreate(H5P_GROUP_CREATE), H5Pclose, name);
    calls_.check(H5Pset_obj_track_times(plan, false), name);
    Hdf5Handle made =
        calls_.handle(H5Gcreate2(file_, name, H5P_DEFAULT, plan, H5P_DEFAULT), H5Gclose, name);
    return groups_.emplace(name, std::move(made)).first->second;
  }

  // An empty one is left out.
  template <class T>
  void write_column(const char* in, const char* name, const std::vector<T>& values) {
    if (values.empty()) return;
    const Hdf5Handle plan = calls_.handle(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, name);
    calls_.check(H5Pset_layout(plan, H5D_CONTIGUOUS), name);
    calls_.check(H5Pset_alloc_time(plan, H5D_ALLOC_TIME_EARLY), name);
    calls_.check(H5Pset_fill_time(plan, H5D_FILL_TIME_NEVER), name);
    calls_.check(H5Pset_obj_track_times(plan, false), name);
    const std::array<hsize_t, 1> size = {values.size()};
    const Hdf5Handle space =
        calls_.handle(H5Screate_simple(1, size.data(), nullptr), H5Sclose, name);
    const Hdf5Handle type = column_type<T>(calls_);
    const Hdf5Handle set = calls_.handle(
        H5Dcreate2(group(in), name, type, space, H5P_DEFAULT, plan, H5P_DEFAULT), H5Dclose, name);
    calls_.check(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), name);
  }

  Hdf5Calls calls_;
  Hdf5Handle file_;
  std::map<std::string, Hdf5Handle> groups_;
};

class StateReader {
 public:
  explicit StateReader(const RawFile& file)
      : file_(file), calls_(file.path(), ExitCode::kModelFile) {
    const Hdf5Handle access = hdf5_access(calls_);
    hdf5_ = calls_.handle(H5Fopen(file.path().c_str(), H5F_ACC_RDONLY, access), H5Fclose, "open");
    root_ = calls_.handle(H5Gopen2(hdf5_, "/", H5P_DEFAULT), H5Gclose, "/");
  }

  RunStateColumns columns() {
    if (calls_.check(H5Aexists(root_, kStateFormatAttribute), "format") == 0 ||
        read_text_attribute(calls_, root_, kStateFormatAttribute) != kStateFormat)
      calls_.reject("not the state of a run; name another file with --state");
    const uint32_t version = read_u32_attribute(calls_, root_, kStateVersionAttribute);
    if (version != kStateVersion)
      calls_.reject(
          "a state of version {}, this program has {}; go on with the program that wrote "
          "it",
          version,
          kStateVersion);
    RunStateColumns out;
    out.model = read_text_attribute(calls_, root_, kStateModelAttribute);
    out.settings = read_text_attribute(calls_, root_, kStateSettingsAttribute);
    out.finished = read_u32_attribute(calls_, root_, kStateFinishedAttribute);
    RunStateColumns::each(out, [this](const char* group, const char* name, auto& values) {
      read_column(group, name, values);
    });
    if (read_u32_attribute(calls_, root_, kStateChecksumAttribute) != out.checksum())
      calls_.reject("the state is damaged: its checksum is another than the recorded one");
    return out;
  }

 private:
  bool has(const char* name) const {
    return calls_.check(H5Lexists(root_, name, H5P_DEFAULT), name) > 0;
  }

  template <class T>
  void read_column(const char* group, const char* name, std::vector<T>& values) {
    const std::string path = *group == '\0' ? name : fmt::format("{}/{}", group, name);
    if ((*group != '\0' && !has(group)) || !has(path.c_str())) return;
    const Hdf5Handle set =
        calls_.handle(H5Dopen2(root_, path.c_str(), H5P_DEFAULT), H5Dclose, path);
    const Hdf5Handle plan = calls_.handle(H5Dget_create_plist(set), H5Pclose, path);
    const Hdf5Handle type = calls_.handle(H5Dget_type(set), H5Tclose, path);
    const Hdf5Handle space = calls_.handle(H5Dget_space(set), H5Sclose, path);
    const Hdf5Handle expected = column_type<T>(calls_);
    std::array<hsize_t, H5S_MAX_RANK> dims = {};
    const int rank = H5Sget_simple_extent_dims(space, dims.data(), nullptr);
    const haddr_t offset = H5Dget_offset(set);
    const auto size = static_cast<hsize_t>(file_.size());
    // A dim within the file times 8 does not overflow.
    if (H5Pget_layout(plan) != H5D_CONTIGUOUS || H5Tequal(type, expected) <= 0 || rank != 1 ||
        dims[0] == 0 || dims[0] > size || dims[0] * sizeof(T) > size || offset == HADDR_UNDEF ||
        offset > size - dims[0] * sizeof(T) || H5Dget_storage_size(set) != dims[0] * sizeof(T))
      calls_.reject("the dataset {} is not what a state has there", path);
    values.resize(dims[0]);
    file_.read(static_cast<int64_t>(offset),
               values.data(),
               static_cast<int64_t>(values.size() * sizeof(T)));
  }

  const RawFile& file_;
  Hdf5Calls calls_;
  Hdf5Handle hdf5_;
  Hdf5Handle root_;
};

}  // namespace

void write_run_state(const std::filesystem::path& path, const RunState& state) {
  const std::string image = StateWriter(path.string()).image(columns_of(state));
  const std::filesystem::path partial = path.string() + ".partial";
  OutputFile file;
  file.create(partial.string());
  try {
    file.write(0, image.data(), static_cast<int64_t>(image.size()));
    file.sync();
    file.close();
    rename_file(partial, path);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(partial, ignored);
    throw;
  }
  sync_folder(path.parent_path());
}

RunState read_run_state(const std::filesystem::path& path) {
  const RawFile file(path, ExitCode::kModelFile);
  if (file.size() > kMostStateBytes)
    fail(ExitCode::kModelFile,
         "{}: {} bytes are more than the state of a run can have",
         escaped(path.string()),
         file.size());
  check_hdf5_structures(file, check_hdf5_superblock(file, "it is of no use any more"));
  return state_of(StateReader(file).columns(), path.string());
}

}  // namespace glm
