// SPDX-License-Identifier: MIT
#include "apps/host_energy.h"

#include <algorithm>
#include <fstream>
#include <memory>

#include <dlfcn.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/base/check.h"

namespace glm {
namespace {

constexpr unsigned kMostGpus = 64;

std::optional<double> number_in_file(const std::filesystem::path& path) {
  std::ifstream in(path);
  double value = 0;
  if (in >> value) return value;
  return std::nullopt;
}

std::string line_of_file(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return escaped(line, 64);
}

// The three functions of NVML that are needed; C calls that return 0 where all is well.
class Nvml {
 public:
  using Gpu = void*;
  static std::shared_ptr<Nvml> open() {
    void* library = ::dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return nullptr;
    auto nvml = std::make_shared<Nvml>();
    nvml->find(library, "nvmlDeviceGetCount_v2", nvml->count_);
    nvml->find(library, "nvmlDeviceGetHandleByIndex_v2", nvml->handle_);
    nvml->find(library, "nvmlDeviceGetTotalEnergyConsumption", nvml->energy_);
    int (*init)() = nullptr;
    nvml->find(library, "nvmlInit_v2", init);
    const bool whole = nvml->count_ && nvml->handle_ && nvml->energy_ && init;
    return whole && init() == 0 ? nvml : nullptr;
  }
  unsigned gpus() const {
    unsigned n = 0;
    return count_(&n) == 0 ? std::min(n, kMostGpus) : 0;
  }
  std::optional<double> joules(unsigned index) const {
    Gpu gpu = nullptr;
    unsigned long long millijoules = 0;
    if (handle_(index, &gpu) != 0 || energy_(gpu, &millijoules) != 0) return std::nullopt;
    return static_cast<double>(millijoules) * 1e-3;
  }

 private:
  template <class F>
  static void find(void* library, const char* name, F& function) {
    function = reinterpret_cast<F>(::dlsym(library, name));
  }
  int (*count_)(unsigned*) = nullptr;
  int (*handle_)(unsigned, Gpu*) = nullptr;
  int (*energy_)(Gpu, unsigned long long*) = nullptr;
};

}  // namespace

HostEnergy::HostEnergy(const std::filesystem::path& powercap, std::chrono::milliseconds pause) {
  find_powercap(powercap);
  find_gpus();
  if (counters_.empty()) return;
  thread_ = std::thread([this, pause] {
    std::unique_lock<std::mutex> lock(mutex_);
    while (!ended_.wait_for(lock, pause, [this] { return end_; })) look();
  });
}

HostEnergy::~HostEnergy() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    end_ = true;
  }
  ended_.notify_all();
  thread_.join();
}

void HostEnergy::add(Counter counter) {
  const std::optional<double> first = counter.read();
  if (!first) {
    missing_.push_back(counter.name + " is not readable");
    return;
  }
  counter.last = *first;
  counters_.push_back(std::move(counter));
}

// intel-rapl:0 is a processor, also of AMD; intel-rapl:0:1 a part of it, or memory beside it.
void HostEnergy::find_powercap(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> zones;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error))
    if (entry.path().filename().string().starts_with("intel-rapl:")) zones.push_back(entry.path());
  std::sort(zones.begin(), zones.end());
  const size_t before = counters_.size() + missing_.size();
  for (const std::filesystem::path& zone : zones) {
    const std::string file = zone.filename().string();
    const std::string name = line_of_file(zone / "name");
    const bool part = std::count(file.begin(), file.end(), ':') > 1;
    if (part && name != "dram") continue;
    const auto read = [path = zone / "energy_uj"]() -> std::optional<double> {
      const std::optional<double> microjoules = number_in_file(path);
      if (!microjoules) return std::nullopt;
      return *microjoules * 1e-6;
    };
    const double range = number_in_file(zone / "max_energy_range_uj").value_or(0) * 1e-6;
    add({fmt::format("{} ({})", name, file), read, range, 0, 0});
  }
  if (counters_.size() + missing_.size() == before)
    missing_.push_back(fmt::format("{} has no RAPL counters", folder.string()));
}

void HostEnergy::find_gpus() {
  const std::shared_ptr<Nvml> nvml = Nvml::open();
  const unsigned n = nvml ? nvml->gpus() : 0;
  if (n == 0) missing_.push_back("NVML finds no GPU");
  for (unsigned i = 0; i < n; ++i)
    add({fmt::format("GPU {}", i), [nvml, i] { return nvml->joules(i); }, 0, 0, 0});
}

void HostEnergy::look() {
  for (Counter& counter : counters_) {
    const std::optional<double> now = counter.read();
    if (!now) continue;
    const double more = *now - counter.last;
    counter.sum += more >= 0 ? more : std::max(0.0, more + counter.range);
    counter.last = *now;
  }
}

Json HostEnergy::report() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (counters_.empty()) return {{"absent", fmt::format("{}", fmt::join(missing_, "; "))}};
  look();
  Json parts = Json::object();
  double sum = 0;
  for (const Counter& counter : counters_) {
    parts[counter.name] = counter.sum;
    sum += counter.sum;
  }
  return {{"joules", sum}, {"counters", parts}};
}

}  // namespace glm
