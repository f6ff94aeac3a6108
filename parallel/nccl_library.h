// NCCL as groups of ranks use it. The programs do not link it: it is opened at run time, so they
// also start where there is none. Calls give NCCL's result codes; nothing here waits or throws but
// open_nccl(). SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

struct ncclComm;

namespace glm {

using NcclComm = ::ncclComm*;
using NcclId = std::array<char, 128>;

// Results that are no errors.
inline constexpr int kNcclDone = 0;
inline constexpr int kNcclInProgress = 7;

// Versions as NCCL numbers them.
inline constexpr int kOldestNccl = 21800;  // communicators that do not block, with a configuration
inline constexpr int kSharedGpuNccl = 23000;  // several ranks on one GPU, when told to
std::string nccl_number_text(int version);    // "2.28.9"

class NcclLibrary {
 public:
  virtual ~NcclLibrary() = default;
  virtual int version() const = 0;
  virtual std::string file() const = 0;

  virtual int make_id(NcclId& id) const = 0;
  // The communicator does not block: calls that return kNcclInProgress are done when async_error
  // says so.
  virtual int init(NcclComm& comm, int size, const NcclId& id, int rank) const = 0;
  virtual int async_error(NcclComm comm, int& state) const = 0;
  virtual int finalize(NcclComm comm) const = 0;
  virtual int destroy(NcclComm comm) const = 0;
  virtual int abort(NcclComm comm) const = 0;
  virtual std::string error_text(int result, NcclComm comm) const = 0;

  virtual int group_start() const = 0;
  virtual int group_end() const = 0;
  virtual int send(const void* in, int64_t bytes, int peer, NcclComm comm, void* stream) const = 0;
  virtual int recv(void* out, int64_t bytes, int peer, NcclComm comm, void* stream) const = 0;
  // bytes of each rank; in may stand in its place of out.
  virtual int all_gather(
      void* out, const void* in, int64_t bytes, NcclComm comm, void* stream) const = 0;
  virtual int broadcast(
      void* inout, int64_t bytes, int root, NcclComm comm, void* stream) const = 0;
};

// libnccl.so.2, or the file that the environment variable GLM_NCCL_LIBRARY names. Throws
// Error(kUsage): not built in, not found, too old.
std::shared_ptr<const NcclLibrary> open_nccl();

}  // namespace glm
