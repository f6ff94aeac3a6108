// The group "Ranks and machine", which all programs of ranks have. SPDX-License-Identifier: MIT
#include <algorithm>
#include <charconv>
#include <limits>
#include <sstream>

#include "apps/infer_options.h"
#include "apps/option_choice.h"
#include "core/base/device.h"

namespace glm {
namespace {

constexpr double kMostGigabytes = 1e9;

std::vector<double> parse_gigabytes(const std::string& text) {
  std::vector<double> out;
  const char* at = text.data();
  const char* const end = at + text.size();
  for (;;) {
    double value = 0;
    const auto [next, error] = std::from_chars(at, end, value);
    const bool ends = next == end || *next == ',';
    if (error != std::errc() || !ends || !(value > 0 && value <= kMostGigabytes))
      fail(ExitCode::kUsage,
           "--capacity {}: it takes GB above 0, one for all ranks or one for each, with commas "
           "between them",
           escaped(text));
    out.push_back(value);
    if (next == end) return out;
    at = next + 1;
  }
}

std::vector<DeviceChoice> parse_devices(const std::string& text) {
  std::vector<DeviceChoice> out;
  std::istringstream in(text + ",");
  for (std::string name; std::getline(in, name, ',');) {
    if (name == "auto")
      out.push_back(DeviceChoice::kAuto);
    else if (name == "cpu")
      out.push_back(DeviceChoice::kCpu);
    else if (name == "cuda")
      out.push_back(DeviceChoice::kCuda);
    else
      fail(
          ExitCode::kUsage,
          "--device {}: it takes auto, cpu or cuda, one for all ranks or one for each, with commas "
          "between them",
          escaped(text));
  }
  return out;
}

CLI::Option* group(CLI::Option* option) { return option->group("Ranks and machine"); }

void add_device_options(CLI::App& app, InferOptions& o) {
  group(
      app.add_option_function<std::string>(
             "--device",
             [&o](const std::string& text) { o.device = parse_devices(text); },
             "Where the ranks compute: auto (a GPU for each rank as far as there are any), cpu or "
             "cuda; one for all ranks, or one for each, e.g. cuda,cpu (default auto)")
          ->type_name("auto|cpu|cuda,..."));
  group(app.add_flag(
      "--allow-shared-gpu", o.allow_shared_gpu, "Let several ranks compute on one GPU"));
  group(add_choice<NcclUse>(
      app,
      "--nccl",
      o.nccl,
      {{"auto", NcclUse::kAuto}, {"on", NcclUse::kOn}, {"off", NcclUse::kOff}},
      "Whether groups of ranks with a GPU each talk over NCCL; off: by way of the hosts (default "
      "auto)"));
  group(app.add_option("--memory-fraction",
                       o.memory_fraction,
                       "Part of the free memory that the plan may use (default: 0.95 of a GPU's, 1 "
                       "of a host's)")
            ->check(number_in(0, 1, true))
            ->type_name("F"));
}

}  // namespace

void add_rank_options(CLI::App& app, InferOptions& o) {
  const auto axis = [&](const char* name, std::optional<int>& target, const char* text) {
    group(app.add_option(name, target, text)->check(integer_in(1, 1 << 20))->type_name("N"));
  };
  axis("--pipeline", o.grid.pipeline, "Stages that split the layers");
  axis("--tensor", o.grid.tensor, "Ranks that split each matrix");
  axis("--data", o.grid.data, "Replicas with sequences of their own");
  axis("--expert", o.grid.expert, "Shares of the experts within a stage");
  group(add_choice<ExchangeKind>(app,
                                 "--expert-exchange",
                                 o.exchange,
                                 {{"auto", ExchangeKind::kAuto},
                                  {"reduce", ExchangeKind::kReduce},
                                  {"alltoall", ExchangeKind::kAllToAll}},
                                 "How rows reach their experts (default auto)"));
  group(app.add_option(
               "--threads", o.threads, "Threads of each rank (default: its share of the cores)")
            ->check(integer_in(1, 1 << 16))
            ->type_name("N"));
  group(app.add_option_function<std::string>(
               "--capacity",
               [&o](const std::string& text) { o.capacity = parse_gigabytes(text); },
               "GB that each rank may take, e.g. 24,24,24,80; one value for all (default: what the "
               "hosts have)")
            ->type_name("GB,..."));
  group(add_choice<OpsKind>(
      app,
      "--ops",
      o.ops,
      {{"auto", OpsKind::kAuto}, {"ref", OpsKind::kRef}, {"checked", OpsKind::kChecked}},
      "Operations: ref is plain and slow, checked runs both and compares (default auto)"));
  group(app.add_flag("--reproducible",
                     o.reproducible,
                     "Same logits to the bit on any number of ranks, in any batch; slower"));
  add_device_options(app, o);
  group(add_choice<KvDType>(app,
                            "--kv-dtype",
                            o.kv_dtype,
                            {{"f32", KvDType::kF32}, {"f16", KvDType::kF16}, {"q8", KvDType::kQ8}},
                            "Type of the cache (default: f32 for f32 models, else f16)"));
  group(app.add_option(
               "--timeout", o.timeout, "Seconds after which a wait for another rank ends the job")
            ->check(number_in(0, std::numeric_limits<double>::infinity(), true))
            ->type_name("S")
            ->capture_default_str());
  group(app.add_flag_callback(
      "--no-verify", [&o] { o.verify = false; }, "Skip the checksums while loading"));
}

void judge_rank_options(const InferOptions& o) {
  const bool wants =
      std::find(o.device.begin(), o.device.end(), DeviceChoice::kCuda) != o.device.end();
  if (wants && cuda_version_text() == "not built in")
    fail(ExitCode::kUsage,
         "--device cuda: this program was built without CUDA (cmake -DGLM_CUDA=ON builds with it)");
}

}  // namespace glm
