// SPDX-License-Identifier: MIT
#include "parallel/nccl_library.h"

#include <algorithm>
#include <cstdlib>

#include <dlfcn.h>
#include <nccl.h>

#include "core/base/check.h"

namespace glm {
namespace {

static_assert(kNcclDone == ncclSuccess && kNcclInProgress == ncclInProgress);
static_assert(sizeof(NcclId) == sizeof(ncclUniqueId));

// Every function, with the type that nccl.h gives it.
struct NcclTable {
  decltype(&ncclGetVersion) get_version;
  decltype(&ncclGetUniqueId) get_unique_id;
  decltype(&ncclCommInitRankConfig) init;
  decltype(&ncclCommGetAsyncError) async_error;
  decltype(&ncclCommFinalize) finalize;
  decltype(&ncclCommDestroy) destroy;
  decltype(&ncclCommAbort) abort;
  decltype(&ncclGetErrorString) error_string;
  decltype(&ncclGetLastError) last_error;
  decltype(&ncclGroupStart) group_start;
  decltype(&ncclGroupEnd) group_end;
  decltype(&ncclSend) send;
  decltype(&ncclRecv) recv;
  decltype(&ncclAllGather) all_gather;
  decltype(&ncclBroadcast) broadcast;
};

template <class Function>
void find(void* handle, const std::string& file, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(handle, name));
  if (function == nullptr)
    fail(ExitCode::kUsage, "{} has no function {}: it is no NCCL, or too old", escaped(file), name);
}

NcclTable find_all(void* handle, const std::string& file) {
  NcclTable table{};
  find(handle, file, "ncclGetVersion", table.get_version);
  find(handle, file, "ncclGetUniqueId", table.get_unique_id);
  find(handle, file, "ncclCommInitRankConfig", table.init);
  find(handle, file, "ncclCommGetAsyncError", table.async_error);
  find(handle, file, "ncclCommFinalize", table.finalize);
  find(handle, file, "ncclCommDestroy", table.destroy);
  find(handle, file, "ncclCommAbort", table.abort);
  find(handle, file, "ncclGetErrorString", table.error_string);
  find(handle, file, "ncclGetLastError", table.last_error);
  find(handle, file, "ncclGroupStart", table.group_start);
  find(handle, file, "ncclGroupEnd", table.group_end);
  find(handle, file, "ncclSend", table.send);
  find(handle, file, "ncclRecv", table.recv);
  find(handle, file, "ncclAllGather", table.all_gather);
  find(handle, file, "ncclBroadcast", table.broadcast);
  return table;
}

size_t count_of(int64_t bytes) { return static_cast<size_t>(bytes); }

cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }

class OpenNccl final : public NcclLibrary {
 public:
  OpenNccl(std::string file, const NcclTable& table) : file_(std::move(file)), nccl_(table) {
    const ncclResult_t result = nccl_.get_version(&version_);
    if (result != ncclSuccess || version_ < kOldestNccl)
      fail(ExitCode::kUsage,
           "{}: NCCL {} is too old, {} or newer is needed; load a newer one, or name its file in "
           "GLM_NCCL_LIBRARY",
           escaped(file_),
           nccl_number_text(version_),
           nccl_number_text(kOldestNccl));
  }

  int version() const override { return version_; }
  std::string file() const override { return file_; }

  int make_id(NcclId& id) const override {
    ncclUniqueId unique{};
    const ncclResult_t result = nccl_.get_unique_id(&unique);
    std::copy_n(unique.internal, id.size(), id.begin());
    return result;
  }
  int init(NcclComm& comm, int size, const NcclId& id, int rank) const override {
    ncclUniqueId unique{};
    std::copy(id.begin(), id.end(), unique.internal);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    return nccl_.init(&comm, size, unique, rank, &config);
  }
  int async_error(NcclComm comm, int& state) const override {
    ncclResult_t found = ncclSuccess;
    const ncclResult_t result = nccl_.async_error(comm, &found);
    state = found;
    return result;
  }
  int finalize(NcclComm comm) const override { return nccl_.finalize(comm); }
  int destroy(NcclComm comm) const override { return nccl_.destroy(comm); }
  int abort(NcclComm comm) const override { return nccl_.abort(comm); }
  std::string error_text(int result, NcclComm comm) const override {
    const std::string general = escaped(nccl_.error_string(static_cast<ncclResult_t>(result)));
    const char* last = nccl_.last_error(comm);
    return last == nullptr || *last == '\0' ? general
                                            : fmt::format("{} ({})", general, escaped(last));
  }

  int group_start() const override { return nccl_.group_start(); }
  int group_end() const override { return nccl_.group_end(); }
  int send(const void* in, int64_t bytes, int peer, NcclComm comm, void* stream) const override {
    return nccl_.send(in, count_of(bytes), ncclUint8, peer, comm, stream_of(stream));
  }
  int recv(void* out, int64_t bytes, int peer, NcclComm comm, void* stream) const override {
    return nccl_.recv(out, count_of(bytes), ncclUint8, peer, comm, stream_of(stream));
  }
  int all_gather(
      void* out, const void* in, int64_t bytes, NcclComm comm, void* stream) const override {
    return nccl_.all_gather(in, out, count_of(bytes), ncclUint8, comm, stream_of(stream));
  }
  int broadcast(void* inout, int64_t bytes, int root, NcclComm comm, void* stream) const override {
    return nccl_.broadcast(inout, inout, count_of(bytes), ncclUint8, root, comm, stream_of(stream));
  }

 private:
  std::string file_;
  NcclTable nccl_;
  int version_ = 0;
};

}  // namespace

// NCCL has threads of its own, so it stays to the end of the process.
std::shared_ptr<const NcclLibrary> open_nccl() {
  const char* named = std::getenv("GLM_NCCL_LIBRARY");
  const std::string file = named != nullptr && *named != '\0' ? named : "libnccl.so.2";
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* reason = dlerror();
    fail(ExitCode::kUsage,
         "NCCL cannot be loaded: {}; load its module (module load nccl), put its folder into "
         "LD_LIBRARY_PATH, or name the file in GLM_NCCL_LIBRARY",
         escaped(reason == nullptr ? file : reason));
  }
  return std::make_shared<OpenNccl>(file, find_all(handle, file));
}

}  // namespace glm
