// Which cores a rank may use. mpirun binds each process to one core (or one socket); the cores it
// was given itself are those of its own mask. SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>

#include <fmt/ranges.h>
#include <sched.h>
#include <unistd.h>

#include "parallel/mpi_session.h"

namespace glm {
namespace {

constexpr int kMostAncestors = 8;  // wrappers between launcher and program
constexpr int kMostCores = 8192;

class CpuMask {
 public:
  CpuMask() : set_(CPU_ALLOC(kMostCores)), bytes_(CPU_ALLOC_SIZE(kMostCores)) {
    if (set_ == nullptr) throw std::bad_alloc();
    CPU_ZERO_S(bytes_, set_);
  }
  ~CpuMask() { CPU_FREE(set_); }
  CpuMask(const CpuMask&) = delete;
  CpuMask& operator=(const CpuMask&) = delete;
  cpu_set_t* get() { return set_; }
  size_t bytes() const { return bytes_; }
  std::vector<int> cores() const {
    std::vector<int> cores;
    for (size_t core = 0; core < kMostCores; ++core)
      if (CPU_ISSET_S(core, bytes_, set_)) cores.push_back(static_cast<int>(core));
    return cores;
  }

 private:
  cpu_set_t* set_;
  size_t bytes_;
};

// Empty when the process is gone or not ours to ask.
std::vector<int> cores_of(pid_t pid) {
  CpuMask mask;
  if (sched_getaffinity(pid, mask.bytes(), mask.get()) != 0) return {};
  return mask.cores();
}

// Name and parent of a process, from /proc/PID/stat: "pid (name) state ppid ...".
struct Ancestor {
  std::string name;
  pid_t parent = 0;
};
std::optional<Ancestor> read_process(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  const size_t open = line.find('('), close = line.rfind(')');
  if (open == std::string::npos || close == std::string::npos || close + 4 > line.size())
    return std::nullopt;
  return Ancestor{line.substr(open + 1, close - open - 1), std::atoi(line.c_str() + close + 4)};
}

// The cores of the launcher that started us, if one is found above us.
std::vector<int> launcher_cores() {
  static constexpr std::array<std::string_view, 6> kLaunchers = {
      "mpirun", "mpiexec", "orterun", "orted", "prterun", "prted"};
  pid_t pid = getppid();
  for (int i = 0; i < kMostAncestors && pid > 1; ++i) {
    const std::optional<Ancestor> process = read_process(pid);
    if (!process) break;
    if (std::find(kLaunchers.begin(), kLaunchers.end(), process->name) != kLaunchers.end())
      return cores_of(pid);
    pid = process->parent;
  }
  return {};
}

// srun has given each task cores of its own.
bool bound_by_slurm() {
  const char* type = std::getenv("SLURM_CPU_BIND_TYPE");
  return type != nullptr && *type != '\0' && std::strcmp(type, "none") != 0;
}

}  // namespace

bool ranks_exceed_cores(int node_size) {
  std::vector<int> node = launcher_cores();
  if (node.empty()) {
    if (bound_by_slurm()) return false;
    node = cores_of(0);
  }
  return static_cast<size_t>(node_size) > node.size();
}

CpuShare cpu_share(int node_rank, int node_size) {
  GLM_CHECK(node_rank >= 0 && node_rank < node_size, "rank {} of {}", node_rank, node_size);
  const std::vector<int> own = cores_of(0);
  std::vector<int> node = launcher_cores();
  if (own.empty()) fail(ExitCode::kRuntime, "cannot read the CPU mask: {}", std::strerror(errno));
  if (node.empty()) {
    if (bound_by_slurm()) return {own, false, own, own};
    node = own;
  }
  const auto cores = static_cast<int64_t>(node.size());
  int64_t begin = cores * node_rank / node_size;
  int64_t end = cores * (node_rank + 1) / node_size;
  if (cores < node_size) {
    // Several ranks share a core. Neighbours work at the same time (tensor groups), so they get
    // different ones.
    begin = node_rank % cores;
    end = begin + 1;
  }
  // Bound to as many cores as the share has: the launcher was told which.
  if (static_cast<int64_t>(own.size()) == end - begin && own.size() > 1)
    return {own, false, own, node};
  CpuShare share{{node.begin() + begin, node.begin() + end}, false, own, node};
  share.widened = own.size() < share.cores.size();
  return share;
}

void bind_process(const std::vector<int>& cores) {
  CpuMask mask;
  for (const int core : cores) {
    GLM_CHECK(core >= 0 && core < kMostCores, "core {}", core);
    CPU_SET_S(static_cast<size_t>(core), mask.bytes(), mask.get());
  }
  if (sched_setaffinity(0, mask.bytes(), mask.get()) != 0)
    fail(ExitCode::kRuntime,
         "cannot bind the process to cores {}: {}",
         fmt::join(cores, ","),
         std::strerror(errno));
}

}  // namespace glm
