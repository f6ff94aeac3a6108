// SPDX-License-Identifier: MIT
#include "apps/doctor_facts.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <future>
#include <set>
#include <thread>

#include <netdb.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "apps/infer_job.h"
#include "apps/program.h"
#include "core/base/device.h"
#include "io/crc32c.h"
#include "kernels/cpu/simd_levels.h"

namespace glm {
namespace {

// Hosts that are looked up, and how long all of that may take: a name server may not answer.
constexpr size_t kMostLookedUp = 64;
constexpr auto kLookUpTime = std::chrono::seconds(2);

// Of a launcher, of Open MPI and of what the programs read themselves.
constexpr std::array kVariables = {"GLM_SIMD",
                                   "GLM_NCCL_LIBRARY",
                                   "CUDA_VISIBLE_DEVICES",
                                   "OMPI_COMM_WORLD_SIZE",
                                   "OMPI_MCA_mpi_yield_when_idle",
                                   "OMPI_MCA_oob_tcp_keepalive_time",
                                   "PMI_SIZE",
                                   "PMIX_RANK",
                                   "SLURM_JOB_ID",
                                   "SLURM_NTASKS",
                                   "SLURM_STEP_NUM_TASKS",
                                   "SLURM_CPUS_PER_TASK",
                                   "SLURM_CPU_BIND_TYPE"};

std::string first_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

// What follows "KEY : " in a file of lines.
std::string value_of(const std::string& path, const std::string& key) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(key)) continue;
    const size_t at = line.find_first_not_of(" \t", line.find(':') + 1);
    return at == std::string::npos ? "" : line.substr(at);
  }
  return {};
}

// "1234 kB" in bytes.
int64_t kilobytes(const std::string& text) {
  return text.empty() ? 0 : std::strtoll(text.c_str(), nullptr, 10) * 1024;
}

// Size and checksum of the program's own file: two hosts may have builds of one version that
// differ.
std::string program_file() {
  try {
    const RawFile file("/proc/self/exe", ExitCode::kRuntime);
    std::vector<char> buffer(size_t{1} << 20);
    uint32_t crc = 0;
    for (int64_t at = 0; at < file.size();) {
      const int64_t n = file.read_some(at, buffer.data(), static_cast<int64_t>(buffer.size()));
      if (n == 0) break;
      crc = crc32c(crc, buffer.data(), static_cast<size_t>(n));
      at += n;
    }
    return fmt::format("{} bytes, crc32c {:08x}", file.size(), crc);
  } catch (const Error& error) {
    return error.what();
  }
}

std::map<std::string, std::string> version_facts(const MpiSession& session) {
  const Versions v = program_versions();
  return {{"program", fmt::format("{} (commit {}, {} build)", v.number, v.commit, v.build)},
          {"program file", program_file()},
          {"compiler", v.compiler},
          {"MPI", session.library_version()},
          {"HDF5", v.hdf5},
          {"CUDA", v.cuda},
          {"NCCL", v.nccl}};
}

std::string simd_level() {
  try {
    choose_kernels(simd_from_environment());
    const std::string_view forced = simd_from_environment();
    return forced.empty() ? simd_levels().back() : std::string(forced);
  } catch (const Error& error) {
    return error.what();
  }
}

std::string input_text() {
  struct stat status = {};
  if (::fstat(STDIN_FILENO, &status) != 0) return "closed";
  if (::isatty(STDIN_FILENO) == 1) return "a terminal";
  if (S_ISFIFO(status.st_mode)) return "a pipe";
  if (S_ISREG(status.st_mode)) return "a file";
  if (S_ISSOCK(status.st_mode)) return "a socket";
  return "a device, /dev/null perhaps";
}

int64_t limit_of(decltype(RLIMIT_AS) what) {
  struct rlimit limit = {};
  if (::getrlimit(what, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kUnlimited;
  return static_cast<int64_t>(limit.rlim_cur);
}

int count_physical(const std::vector<int>& cores) {
  std::set<std::string> seen;
  for (const int core : cores) {
    const std::string siblings = first_line(
        fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", core));
    if (siblings.empty()) return 0;
    seen.insert(siblings);
  }
  return static_cast<int>(seen.size());
}

// cgroup v2 "max 100000" or "200000 100000", then v1.
double quota_of_group() {
  std::ifstream v2("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (v2 >> quota >> period && quota != "max" && period > 0)
    return std::strtod(quota.c_str(), nullptr) / period;
  std::ifstream v1("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  std::ifstream v1_period("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  double micros = 0;
  if (v1 >> micros && v1_period >> period && micros > 0 && period > 0) return micros / period;
  return 0;
}

void note_cores(RankFacts& facts, const MpiSession& session, const Job& job) {
  const CpuShare share = cpu_share(session.node_rank(), session.node_size());
  facts.given = share.given;
  facts.host_cores = share.host;
  facts.cores = job.cores;
  facts.physical_cores = count_physical(job.cores);
  facts.threads = job.threads;
  facts.cpu_quota = quota_of_group();
}

void note_limits(RankFacts& facts) {
  facts.locked_memory = limit_of(RLIMIT_MEMLOCK);
  facts.address_space = limit_of(RLIMIT_AS);
  facts.open_files = limit_of(RLIMIT_NOFILE);
  facts.used_address_space = kilobytes(value_of("/proc/self/status", "VmSize:"));
  facts.memory = kilobytes(value_of("/proc/meminfo", "MemTotal:"));
  facts.memory_available = available_bytes();
  struct statvfs shm = {};
  if (::statvfs("/dev/shm", &shm) == 0) {
    facts.shared_memory = static_cast<int64_t>(shm.f_blocks * shm.f_frsize);
    facts.shared_memory_free = static_cast<int64_t>(shm.f_bavail * shm.f_frsize);
  }
  std::error_code error;
  facts.infiniband = std::filesystem::exists("/sys/class/infiniband", error) &&
                     !std::filesystem::is_empty("/sys/class/infiniband", error);
}

void note_gpus(RankFacts& facts, const InferOptions& options) {
  if (options.device == std::vector<DeviceChoice>{DeviceChoice::kCpu}) return;
  try {
    for (int i = 0; i < cuda_device_count(); ++i)
      facts.gpus.push_back({cuda_device_id(i), cuda_device_uuid(i)});
  } catch (const Error& error) {
    facts.gpu_error = error.what();
  }
}

// Hosts without an address, and why.
std::map<std::string, std::string> look_up(const std::set<std::string>& hosts) {
  std::map<std::string, std::string> failures;
  for (const std::string& host : hosts) {
    struct addrinfo* found = nullptr;
    const int code = ::getaddrinfo(host.c_str(), nullptr, nullptr, &found);
    if (code != 0)
      failures.emplace(host, ::gai_strerror(code));
    else
      ::freeaddrinfo(found);
  }
  return failures;
}

// The thread may outlive this call: a look-up cannot be called off.
std::map<std::string, std::string> look_up_in_time(const std::set<std::string>& hosts) {
  std::packaged_task<std::map<std::string, std::string>()> task([hosts] { return look_up(hosts); });
  std::future<std::map<std::string, std::string>> result = task.get_future();
  std::thread(std::move(task)).detach();
  if (result.wait_for(kLookUpTime) == std::future_status::ready) return result.get();
  return {{*hosts.begin(), "no answer within 2 s"}};
}

}  // namespace

RankFacts rank_facts(MpiSession& session, const Job& job, const std::vector<std::string>& hosts) {
  RankFacts facts;
  facts.rank = session.world().rank();
  facts.host = session.host();
  facts.pid = ::getpid();
  facts.node_rank = session.node_rank();
  facts.node_size = session.node_size();
  facts.versions = version_facts(session);
  facts.processor = escaped(value_of("/proc/cpuinfo", "model name"));
  facts.simd = simd_level();
  for (const char* name : kVariables)
    if (const char* value = std::getenv(name)) facts.environment[name] = escaped(value);
  facts.input = input_text();
  note_cores(facts, session, job);
  note_limits(facts);
  note_gpus(facts, job.options);
  std::set<std::string> names(hosts.begin(), hosts.end());
  if (names.size() > 1) {
    while (names.size() > kMostLookedUp) names.erase(std::prev(names.end()));
    facts.unresolved = look_up_in_time(names);
  }
  return facts;
}

Json to_json(const RankFacts& f) {
  Json gpus = Json::array();
  for (const GpuFact& gpu : f.gpus) gpus.push_back({{"id", gpu.id}, {"uuid", gpu.uuid}});
  return {{"rank", f.rank},
          {"host", f.host},
          {"pid", f.pid},
          {"node_rank", f.node_rank},
          {"node_size", f.node_size},
          {"versions", f.versions},
          {"processor", f.processor},
          {"simd", f.simd},
          {"environment", f.environment},
          {"stdin", f.input},
          {"unresolved_hosts", f.unresolved},
          {"given_cores", f.given},
          {"cores", f.cores},
          {"host_cores", f.host_cores},
          {"physical_cores", f.physical_cores},
          {"threads", f.threads},
          {"cpu_quota", f.cpu_quota},
          {"locked_memory_limit", f.locked_memory},
          {"address_space_limit", f.address_space},
          {"address_space_used", f.used_address_space},
          {"open_files_limit", f.open_files},
          {"shared_memory_bytes", f.shared_memory},
          {"shared_memory_free_bytes", f.shared_memory_free},
          {"infiniband", f.infiniband},
          {"memory_bytes", f.memory},
          {"memory_available_bytes", f.memory_available},
          {"gpus", gpus},
          {"gpu_error", f.gpu_error},
          {"device", f.device},
          {"device_id", f.device_id}};
}

RankFacts facts_from_json(const Json& json) {
  RankFacts f;
  const auto take = [&](const char* key, auto& target) { json.at(key).get_to(target); };
  take("rank", f.rank);
  take("host", f.host);
  take("pid", f.pid);
  take("node_rank", f.node_rank);
  take("node_size", f.node_size);
  take("versions", f.versions);
  take("processor", f.processor);
  take("simd", f.simd);
  take("environment", f.environment);
  take("stdin", f.input);
  take("unresolved_hosts", f.unresolved);
  take("given_cores", f.given);
  take("cores", f.cores);
  take("host_cores", f.host_cores);
  take("physical_cores", f.physical_cores);
  take("threads", f.threads);
  take("cpu_quota", f.cpu_quota);
  take("locked_memory_limit", f.locked_memory);
  take("address_space_limit", f.address_space);
  take("address_space_used", f.used_address_space);
  take("open_files_limit", f.open_files);
  take("shared_memory_bytes", f.shared_memory);
  take("shared_memory_free_bytes", f.shared_memory_free);
  take("infiniband", f.infiniband);
  take("memory_bytes", f.memory);
  take("memory_available_bytes", f.memory_available);
  take("gpu_error", f.gpu_error);
  take("device", f.device);
  take("device_id", f.device_id);
  for (const Json& gpu : json.at("gpus"))
    f.gpus.push_back({gpu.at("id").get<std::string>(), gpu.at("uuid").get<std::string>()});
  return f;
}

std::vector<RankFacts> gather_facts(Communicator& world, const RankFacts& mine) {
  const std::string text = to_json(mine).dump(-1, ' ', false, Json::error_handler_t::replace);
  std::vector<RankFacts> all;
  for (const std::string& one : all_gather_strings(world, text))
    all.push_back(facts_from_json(Json::parse(one)));
  return all;
}

}  // namespace glm
