// SPDX-License-Identifier: MIT
#include "benchmarks/harness.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <limits>
#include <string_view>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "core/base/check.h"
#include "kernels/device_roof.h"

namespace glm::bench {
namespace {

using Clock = std::chrono::steady_clock;

template <class T>
T number(std::string_view option,
         std::string_view text,
         T lowest,
         T highest = std::numeric_limits<T>::max()) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < lowest || value > highest)
    fail(ExitCode::kUsage,
         "{} {}: not a number from {} to {}",
         option,
         escaped(text),
         lowest,
         highest);
  return value;
}

}  // namespace

Options parse_options(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    if (option == "--json") {
      options.json = true;
      continue;
    }
    if (i + 1 == argc) fail(ExitCode::kUsage, "{} needs a value or is unknown", escaped(option));
    const std::string_view value = argv[++i];
    if (option == "--device") {
      if (value != "cpu" && value != "cuda")
        fail(ExitCode::kUsage, "--device {}: it is cpu or cuda", escaped(value));
      options.cuda = value == "cuda";
      continue;
    }
    if (option == "--threads")
      options.threads = number(option, value, 1);
    else if (option == "--repeats")
      options.min_repeats = number(option, value, 1);
    else if (option == "--seconds")
      options.max_seconds = number(option, value, 0.0);
    else if (option == "--roof-mib")
      options.roof_bytes = number(option, value, int64_t{1}, int64_t{1} << 20) << 20;
    else if (option == "--filter")
      options.filter = value;
    else
      fail(ExitCode::kUsage, "unknown option {}", escaped(option));
  }
  return options;
}

std::unique_ptr<Device> make_device(const Options& options) {
  constexpr double kSeconds = 600;
  return options.cuda ? make_cuda_device(0, kSeconds) : make_cpu_device();
}

Tensor upload(Device& device, Tensor host) {
  const Tensor bytes = device.allocate(DType::kU8, {host.bytes()});
  Tensor copy = host;
  copy.data = bytes.data;
  copy.device = bytes.device;
  device.copy(copy, host);
  device.wait();
  return copy;
}

Timing summarise(std::vector<double> seconds) {
  GLM_CHECK(!seconds.empty(), "nothing was measured");
  std::sort(seconds.begin(), seconds.end());
  const auto at = [&](double share) {
    return seconds[static_cast<size_t>(share * static_cast<double>(seconds.size() - 1) + 0.5)];
  };
  return {static_cast<int64_t>(seconds.size()), at(0.5), at(0.1), at(0.9)};
}

namespace {

// Repeats of a sample on a GPU: so many that waiting for it and starting it count for little.
int64_t repeats_of_sample(Device& device, const std::function<void(int64_t)>& run) {
  constexpr double kSampleSeconds = 3e-3;
  constexpr int64_t kMost = 256;
  run(0);  // loads the kernels
  device.wait();
  const Clock::time_point start = Clock::now();
  run(1);
  device.wait();
  const double once = std::chrono::duration<double>(Clock::now() - start).count();
  return std::clamp(static_cast<int64_t>(kSampleSeconds / once), int64_t{1}, kMost);
}

Timing measure_on_gpu(const Options& options,
                      Device& device,
                      const std::function<void(int64_t)>& run,
                      uint64_t key) {
  const int64_t n = repeats_of_sample(device, run);
  const auto repeats = [&] {
    for (int64_t i = 0; i < n; ++i) run(i);
  };
  std::vector<double> seconds;
  const Clock::time_point start = Clock::now();
  for (int i = -3; static_cast<int>(seconds.size()) < options.min_repeats; ++i) {
    const Clock::time_point before = Clock::now();
    device.replay(key, repeats);
    device.wait();
    const Clock::time_point now = Clock::now();
    if (i < 0) continue;  // plain, recorded, and once more
    seconds.push_back(std::chrono::duration<double>(now - before).count() / static_cast<double>(n));
    const double total = std::chrono::duration<double>(now - start).count();
    if (seconds.size() >= 3 && total > options.max_seconds) break;
  }
  return summarise(std::move(seconds));
}

}  // namespace

Timing measure(const Options& options,
               Device& device,
               const std::function<void(int64_t)>& run,
               uint64_t key) {
  if (!device.is_host()) return measure_on_gpu(options, device, run, key);
  run(0);
  run(1);
  std::vector<double> seconds;
  const Clock::time_point start = Clock::now();
  Clock::time_point last = start;
  for (int64_t i = 2;; ++i) {
    run(i);
    const Clock::time_point now = Clock::now();
    seconds.push_back(std::chrono::duration<double>(now - last).count());
    last = now;
    if (static_cast<int>(seconds.size()) >= options.min_repeats) break;
    const double total = std::chrono::duration<double>(now - start).count();
    if (seconds.size() >= 3 && total > options.max_seconds) break;
  }
  return summarise(std::move(seconds));
}

Roofs measure_roofs(const Options& options, Device& device) {
  const int repeats = std::min(5, options.min_repeats);
  if (device.is_host())
    return {glm::measure_roofs(options.threads, options.roof_bytes, repeats), 0};
  // Of its own: what is measured goes with it.
  const std::unique_ptr<Device> scratch = make_device(options);
  const DeviceRoofs roofs = measure_device_roofs(*scratch, options.roof_bytes, repeats);
  return {{roofs.read_bytes_per_second, roofs.int8_per_second}, roofs.copy_bytes_per_second};
}

namespace {

std::string place_text(const Options& options, const Device& device) {
  return device.is_host() ? fmt::format("{}, {} threads", cpu_model(), options.threads)
                          : device.name();
}

std::string roofs_text(const Roofs& roofs) {
  std::string text = fmt::format("reads {:.2f} GB/s, int8 {:.1f} GOP/s",
                                 roofs.bytes_per_second * 1e-9,
                                 roofs.int8_per_second * 1e-9);
  if (roofs.copied_per_second > 0)
    text += fmt::format(", copies {:.2f} GB/s", roofs.copied_per_second * 1e-9);
  return text;
}

}  // namespace

Report::Report(const Options& options, std::string program, Device& device)
    : options_(options),
      program_(std::move(program)),
      device_(device),
      roofs_(measure_roofs(options, device)) {
  if (options_.json) {
    const nlohmann::json line = {{"program", program_},
                                 {"cpu", cpu_model()},
                                 {"device", device_.name()},
                                 {"threads", options_.threads},
                                 {"roof_bytes_per_second", roofs_.bytes_per_second},
                                 {"roof_int8_per_second", roofs_.int8_per_second},
                                 {"roof_copied_per_second", roofs_.copied_per_second}};
    fmt::print("{}\n", line.dump());
    return;
  }
  fmt::print("{} on {}: {}\n", program_, place_text(options_, device_), roofs_text(roofs_));
  fmt::print("{:<52} {:>10} {:>10} {:>10} {:>8} {:>8} {:>7} {:>7}\n",
             "case",
             "median us",
             "p10",
             "p90",
             "GB/s",
             "GOP/s",
             "% read",
             "% int8");
}

bool Report::wants(const std::string& name) const {
  return name.find(options_.filter) != std::string::npos;
}

void Report::add(const std::string& name, const Timing& timing, const Work& work) const {
  const double bytes = work.bytes / timing.median;
  const double flops = work.flops / timing.median;
  if (options_.json) {
    const nlohmann::json line = {{"case", name},
                                 {"repeats", timing.repeats},
                                 {"median_us", timing.median * 1e6},
                                 {"p10_us", timing.p10 * 1e6},
                                 {"p90_us", timing.p90 * 1e6},
                                 {"bytes_per_second", bytes},
                                 {"operations_per_second", flops},
                                 {"share_of_read_roof", bytes / roofs_.bytes_per_second},
                                 {"share_of_int8_roof", flops / roofs_.int8_per_second}};
    fmt::print("{}\n", line.dump());
  } else {
    fmt::print("{:<52} {:>10.1f} {:>10.1f} {:>10.1f} {:>8.2f} {:>8.1f} {:>7.1f} {:>7.1f}\n",
               name,
               timing.median * 1e6,
               timing.p10 * 1e6,
               timing.p90 * 1e6,
               bytes * 1e-9,
               flops * 1e-9,
               100 * bytes / roofs_.bytes_per_second,
               100 * flops / roofs_.int8_per_second);
  }
  std::fflush(stdout);
}

void Report::finish() const {
  const Roofs roofs = measure_roofs(options_, device_);
  if (options_.json) {
    const nlohmann::json line = {{"roof_bytes_per_second_after", roofs.bytes_per_second},
                                 {"roof_int8_per_second_after", roofs.int8_per_second}};
    fmt::print("{}\n", line.dump());
    return;
  }
  fmt::print("afterwards: {}\n", roofs_text(roofs));
}

int64_t last_level_cache_bytes(const Device& device) {
  if (!device.is_host()) return int64_t{64} << 20;
  const long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
  return bytes > 0 ? bytes : int64_t{32} << 20;
}

int64_t cold_copies(const Device& device, int64_t bytes, int64_t limit) {
  const int64_t wanted = 4 * last_level_cache_bytes(device) / std::max<int64_t>(1, bytes) + 2;
  return std::clamp<int64_t>(wanted, 1, limit);
}

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown CPU";
}

}  // namespace glm::bench
