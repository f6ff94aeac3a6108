// SPDX-License-Identifier: MIT
#include "core/model/machine.h"

#include <algorithm>
#include <limits>
#include <set>

namespace glm {
namespace {

constexpr ExitCode kBad = ExitCode::kModelFile;
constexpr int kMostNodes = 65536;
constexpr int kMostRanks = 4096;  // of a machine: grids are tried one by one
constexpr double kGiga = 1e9;
constexpr double kMicro = 1e-6;
constexpr JsonLimits kLimits = {.max_bytes = 1 << 20, .max_depth = 8, .max_values = 100000};

// The members of one object of the description. Whatever is not asked for is a mistake.
class Members {
 public:
  Members(const Json& object, std::string place) : object_(object), place_(std::move(place)) {
    if (!object.is_object()) fail(kBad, "{}: expected a JSON object", escaped(place_));
  }

  bool has(const char* key) {
    known_.insert(key);
    return json_has(object_, key);
  }
  // A number in [low, high], in units of `unit`.
  void number(const char* key, double& target, double unit, double low, double high) {
    if (!has(key)) return;
    const double value = json_number(object_, key, place_, kBad);
    if (!(value >= low && value <= high))
      fail(kBad,
           "{}: {}: expected a number from {:g} to {:g}, found {}",
           escaped(place_),
           key,
           low,
           high,
           escaped(object_.at(key).dump(), 40));
    target = value * unit;
  }
  void bytes(const char* key, int64_t& target, double unit) {
    double value = static_cast<double>(target);
    number(key, value, unit, 0, 1e9);
    target = static_cast<int64_t>(value);
  }
  void integer(const char* key, int& target, int low, int high) {
    if (has(key)) target = static_cast<int>(json_int(object_, key, low, high, place_, kBad));
  }
  void string(const char* key, std::string& target) {
    if (has(key)) target = json_string(object_, key, place_, kBad);
  }
  const Json& member(const char* key) const { return object_.at(key); }
  std::string place_of(const std::string& key) const { return place_ + ": " + key; }
  void require(const char* key) {
    if (!has(key)) fail(kBad, "{}: {} is missing", escaped(place_), key);
  }
  // Ends with the first member that nobody asked for.
  void finish() const {
    for (const auto& [key, value] : object_.items())
      if (!known_.contains(key))
        fail(kBad,
             "{}: {} is not a key of a machine description; known here: {}",
             escaped(place_),
             escaped(key, 60),
             fmt::join(known_, ", "));
  }

 private:
  const Json& object_;
  std::string place_;
  std::set<std::string> known_;
};

ReachedShares parse_reached(const Json& json, const std::string& place, ReachedShares out) {
  Members members(json, place);
  for (const auto& [key, target] : {std::pair<const char*, double*>{"read", &out.read},
                                    {"products", &out.products},
                                    {"cache", &out.cache},
                                    {"attention", &out.attention}})
    members.number(key, *target, 1, 1e-6, 100);
  members.finish();
  return out;
}

LinkSpec parse_link(const Json& json, const std::string& place) {
  Members members(json, place);
  LinkSpec out;
  members.require("latency_us");
  members.require("gb_per_s");
  members.number("latency_us", out.latency, kMicro, 0, 1e6);
  members.number("crowded_latency_us", out.crowded_latency, kMicro, 0, 1e6);
  members.number("latency_us_per_rank", out.latency_per_rank, kMicro, 0, 1e6);
  members.number("gb_per_s", out.bytes_per_second, kGiga, 1e-6, 1e6);
  members.finish();
  return out;
}

constexpr double kMostGigabytes = 1e6;
constexpr double kMostTera = 1e6;

void parse_ranks(const Json& list, const std::string& place, MachineSpec& spec) {
  if (!list.is_array() || list.empty())
    fail(kBad, "{}: expected a list of objects with count and memory_gb", escaped(place));
  int64_t total = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    Members members(list[i], fmt::format("{}[{}]", place, i));
    int count = 1;
    RankSpec rank{spec.memory_bytes, spec.read_rate, spec.operations};
    members.integer("count", count, 1, kMostRanks);
    members.bytes("memory_gb", rank.memory_bytes, kGiga);
    members.number("read_gb_per_s", rank.read_rate, kGiga, 1e-3, kMostGigabytes);
    members.number("tera_operations_per_s", rank.operations, 1e12, 1e-6, kMostTera);
    members.finish();
    total += count;
    if (total <= spec.n_ranks())
      spec.ranks.insert(spec.ranks.end(), static_cast<size_t>(count), rank);
  }
  if (total != spec.n_ranks())
    fail(kBad,
         "{}: the counts add up to {}, nodes x ranks_per_node is {}",
         escaped(place),
         total,
         spec.n_ranks());
}

void parse_peaks(Members& members, MachineSpec& spec) {
  for (const char* key : {"memory_gb", "read_gb_per_s", "tera_operations_per_s"})
    members.require(key);
  members.bytes("memory_gb", spec.memory_bytes, kGiga);
  members.number("read_gb_per_s", spec.read_rate, kGiga, 1e-3, kMostGigabytes);
  members.number("tera_operations_per_s", spec.operations, 1e12, 1e-6, kMostTera);
  // A GPU reads as fast for one rank as it can; of small operations it is far from that.
  spec.core_read_rate = spec.gpu ? spec.read_rate : std::min(spec.read_rate, 15e9);
  if (spec.gpu) {
    spec.sum_rate = spec.read_rate / 2;
    spec.touch_rate = spec.read_rate / 160;
  }
  if (!spec.gpu)
    members.number("core_read_gb_per_s", spec.core_read_rate, kGiga, 1e-3, kMostGigabytes);
  members.number("sum_gb_per_s", spec.sum_rate, kGiga, 1e-3, kMostGigabytes);
  members.number("touch_gvalues_per_s", spec.touch_rate, kGiga, 1e-6, kMostGigabytes);
  members.number("layer_us", spec.layer_seconds, kMicro, 0, 1e6);
  members.number("step_us", spec.step_seconds, kMicro, 0, 1e6);
  members.bytes("process_mb", spec.process_bytes, 1e6);
}

void parse_shares(Members& members, MachineSpec& spec) {
  if (members.has("reached"))
    spec.reached =
        parse_reached(members.member("reached"), members.place_of("reached"), spec.reached);
  if (!members.has("reached_by_dtype")) return;
  const Json& by_dtype = members.member("reached_by_dtype");
  const std::string place = members.place_of("reached_by_dtype");
  if (!by_dtype.is_object()) fail(kBad, "{}: expected a JSON object", escaped(place));
  for (const auto& [key, value] : by_dtype.items()) {
    const auto dtype = parse_dtype(key);
    if (!dtype || *dtype == DType::kI32 || *dtype == DType::kU8)
      fail(kBad, "{}: {} is not a dtype of weights", escaped(place), escaped(key, 40));
    spec.reached_by_dtype[*dtype] = parse_reached(value, place + ": " + key, spec.reached);
  }
}

OrderedJson reached_json(const ReachedShares& shares) {
  return {{"read", shares.read},
          {"products", shares.products},
          {"cache", shares.cache},
          {"attention", shares.attention}};
}

OrderedJson link_json(const LinkSpec& link) {
  OrderedJson json = {{"latency_us", link.latency / kMicro}};
  if (link.crowded_latency > 0) json["crowded_latency_us"] = link.crowded_latency / kMicro;
  if (link.latency_per_rank > 0) json["latency_us_per_rank"] = link.latency_per_rank / kMicro;
  json["gb_per_s"] = link.bytes_per_second / kGiga;
  return json;
}

}  // namespace

const ReachedShares& MachineSpec::reached_with(DType dtype) const {
  const auto found = reached_by_dtype.find(dtype);
  return found == reached_by_dtype.end() ? reached : found->second;
}

RankSpec MachineSpec::rank(int r) const {
  return ranks.empty() ? RankSpec{memory_bytes, read_rate, operations}
                       : ranks[static_cast<size_t>(r)];
}

MachineSpec parse_machine(std::string_view text, const std::string& source) {
  const Json json = parse_json(text, source, kBad, kLimits);
  Members members(json, source);
  MachineSpec spec;
  std::string device = "cpu";
  members.string("name", spec.name);
  members.string("figures", spec.figures);
  members.string("cpu", spec.cpu);
  members.string("device", device);
  if (device != "cpu" && device != "gpu")
    fail(kBad, "{}: device: expected cpu or gpu, found {}", escaped(source), escaped(device, 40));
  spec.gpu = device == "gpu";
  members.integer("nodes", spec.nodes, 1, kMostNodes);
  members.integer("ranks_per_node", spec.ranks_per_node, 1, kMostRanks);
  if (spec.nodes > kMostRanks / spec.ranks_per_node)
    fail(kBad,
         "{}: nodes x ranks_per_node: at most {} ranks are planned",
         escaped(source),
         kMostRanks);
  if (!spec.gpu) {
    members.require("cores_per_node");
    members.integer("cores_per_node", spec.cores_per_node, 1, kMostNodes);
  }
  parse_peaks(members, spec);
  parse_shares(members, spec);
  members.require("inside");
  spec.inside = parse_link(members.member("inside"), members.place_of("inside"));
  if (members.has("between"))
    spec.between = parse_link(members.member("between"), members.place_of("between"));
  if (spec.nodes > 1 && !spec.between)
    fail(kBad, "{}: between is missing: what lies between {} nodes", escaped(source), spec.nodes);
  if (members.has("ranks")) parse_ranks(members.member("ranks"), members.place_of("ranks"), spec);
  members.finish();
  return spec;
}

OrderedJson machine_json(const MachineSpec& spec) {
  OrderedJson json = {{"name", spec.name}, {"figures", spec.figures}};
  if (!spec.cpu.empty()) json["cpu"] = spec.cpu;
  json["device"] = spec.gpu ? "gpu" : "cpu";
  json["nodes"] = spec.nodes;
  json["ranks_per_node"] = spec.ranks_per_node;
  if (!spec.gpu) json["cores_per_node"] = spec.cores_per_node;
  json["memory_gb"] = static_cast<double>(spec.memory_bytes) / kGiga;
  json["read_gb_per_s"] = spec.read_rate / kGiga;
  if (!spec.gpu) json["core_read_gb_per_s"] = spec.core_read_rate / kGiga;
  json["tera_operations_per_s"] = spec.operations / 1e12;
  json["sum_gb_per_s"] = spec.sum_rate / kGiga;
  json["touch_gvalues_per_s"] = spec.touch_rate / kGiga;
  json["layer_us"] = spec.layer_seconds / kMicro;
  json["step_us"] = spec.step_seconds / kMicro;
  json["process_mb"] = static_cast<double>(spec.process_bytes) / 1e6;
  json["reached"] = reached_json(spec.reached);
  for (const auto& [dtype, shares] : spec.reached_by_dtype)
    json["reached_by_dtype"][std::string(dtype_name(dtype))] = reached_json(shares);
  json["inside"] = link_json(spec.inside);
  if (spec.between) json["between"] = link_json(*spec.between);
  for (const RankSpec& rank : spec.ranks)
    json["ranks"].push_back({{"count", 1},
                             {"memory_gb", static_cast<double>(rank.memory_bytes) / kGiga},
                             {"read_gb_per_s", rank.read_rate / kGiga},
                             {"tera_operations_per_s", rank.operations / 1e12}});
  return json;
}

Machine machine_for(
    const MachineSpec& spec, DType weights, const std::vector<int>& hosts, int cores, int threads) {
  const ReachedShares& reached = spec.reached_with(weights);
  const bool many_hosts = std::set<int>(hosts.begin(), hosts.end()).size() > 1;
  if (many_hosts && !spec.between)
    fail(ExitCode::kUsage,
         "machine {}: no figures of what lies between its nodes (between)",
         escaped(spec.name));
  Machine out;
  out.hosts = hosts;
  out.cores = cores;
  out.threads = threads;
  const double units = spec.gpu ? 1 : spec.cores_per_node;
  const double products = spec.operations / 2 / units;
  out.read_rate = spec.core_read_rate * reached.read;
  out.host_read_rate =
      spec.gpu ? std::numeric_limits<double>::infinity() : spec.read_rate * reached.read;
  out.cache_rate = spec.core_read_rate * reached.cache;
  out.product_rate = products * reached.products;
  out.attention_rate = products * reached.attention;
  out.row_rate = spec.sum_rate;
  out.touch_rate = spec.touch_rate;
  out.layer_seconds = spec.layer_seconds;
  out.step_seconds = spec.step_seconds;
  out.local_latency = spec.inside.latency;
  out.shared_latency =
      spec.inside.crowded_latency > 0 ? spec.inside.crowded_latency : spec.inside.latency;
  out.rank_latency = spec.inside.latency_per_rank;
  out.local_rate = spec.inside.bytes_per_second;
  out.wake_latency = spec.inside.latency;
  if (spec.between) {
    out.remote_latency = spec.between->latency;
    out.remote_rate = spec.between->bytes_per_second;
  }
  for (size_t r = 0; !spec.ranks.empty() && r < hosts.size(); ++r)
    out.speeds.push_back(spec.rank(static_cast<int>(r)).read_rate / spec.read_rate);
  return out;
}

}  // namespace glm
