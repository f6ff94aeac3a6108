// Dispatch and combine of expert_exchange against MPI_Alltoallv of the same bytes, under mpirun:
//   mpirun -np 4 bench_exchange [--device cuda]
// Every rank is a data rank with rows of its own and a share of 128 experts, 8 of which each row
// chooses at random. Ours includes the lists of rows, packing, counts where needed, and the sums.
// Steps of few rows go to all ranks in messages of known size, by both. The two are measured in
// turns. On GPUs (one for each rank as far as there are any, over NCCL where each has its own) the
// group's plain all-to-all takes the place of MPI_Alltoallv. SPDX-License-Identifier: MIT
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <numeric>
#include <optional>
#include <random>

#include <mpi.h>

#include "benchmarks/harness.h"
#include "parallel/exchange_state.h"
#include "parallel/expert_exchange.h"
#include "parallel/mpi_session.h"

namespace glm::bench {
namespace {

constexpr int kExperts = 128;
constexpr int kTopK = 8;
constexpr int64_t kHidden = 4096;
constexpr int64_t kMostRows = 512;
constexpr double kSeconds = 300;  // after which a wait ends

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void check(int result) {
  if (result != MPI_SUCCESS) fail(ExitCode::kCommunication, "MPI call failed: {}", result);
}

// One rank's rows and what becomes of them.
class Step {
 public:
  Step(ProcessGrid& grid, Device& device, Ops& ops, int64_t rows)
      : exchange_(grid, device, ops, config(grid.shape())),
        out_(device.allocate(DType::kF32, {rows, kHidden})),
        step_(static_cast<size_t>(grid.shape().data), rows),
        sent_(static_cast<size_t>(grid.shape().data)) {
    std::mt19937 random(static_cast<unsigned>(17 + grid.world().rank()));
    std::vector<int32_t> all(kExperts);
    std::iota(all.begin(), all.end(), 0);
    const ExpertPlacement placement = config(grid.shape()).placement;
    std::vector<int32_t> experts;
    for (int64_t row = 0; row < rows; ++row) {
      std::shuffle(all.begin(), all.end(), random);
      std::sort(all.begin(), all.begin() + kTopK);
      std::vector<bool> seen(sent_.size(), false);
      for (size_t k = 0; k < kTopK; ++k) {
        experts.push_back(all[k]);
        const auto share = static_cast<size_t>(placement.share_of(all[k]));
        sent_[share] += seen[share] ? 0 : 1;
        seen[share] = true;
      }
    }
    if (rows <= kPaddedRows) std::fill(sent_.begin(), sent_.end(), static_cast<int>(rows));
    std::vector<float> x(static_cast<size_t>(rows * kHidden)), weights(experts.size(), 0.125f);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7);
    x_ = upload(device, host_tensor(x.data(), DType::kF32, {rows, kHidden}));
    experts_ = upload(device, host_tensor(experts.data(), DType::kI32, {rows, kTopK}));
    weights_ = upload(device, host_tensor(weights.data(), DType::kF32, {rows, kTopK}));
  }

  // The experts' work is left out: their rows go back as they came.
  void run() {
    exchange_.begin_step(step_);
    const ExpertExchange::Dispatched mine = exchange_.dispatch(x_, experts_, weights_);
    exchange_.combine(out_, mine.x, {});
  }

  // Rows to each rank.
  const std::vector<int>& sent() const { return sent_; }

 private:
  static ExpertExchange::Config config(const GridShape& shape) {
    ExpertExchange::Config config;
    config.placement = ExpertPlacement(kExperts, shape.expert, expert_slices(shape));
    config.top_k = kTopK;
    config.hidden = kHidden;
    config.max_rows = kMostRows;
    config.kind = ExchangeKind::kAllToAll;
    return config;
  }

  ExpertExchange exchange_;
  Tensor x_, out_, weights_, experts_;
  std::vector<int64_t> step_;
  std::vector<int> sent_;
};

// The same rows there and back, with the lists of their experts on the way there.
class PlainAllToAll {
 public:
  explicit PlainAllToAll(const std::vector<int>& rows) : n_(rows.size()) {
    std::vector<int> arriving(n_);
    check(MPI_Alltoall(rows.data(), 1, MPI_INT, arriving.data(), 1, MPI_INT, MPI_COMM_WORLD));
    const int there = static_cast<int>(kHidden) + 2 * kTopK, back = static_cast<int>(kHidden);
    lay_out(send_there_, rows, there);
    lay_out(recv_there_, arriving, there);
    lay_out(send_back_, arriving, back);
    lay_out(recv_back_, rows, back);
    out_.resize(static_cast<size_t>(send_there_.total));
    in_.resize(static_cast<size_t>(recv_there_.total));
  }

  void run() {
    transfer(out_, send_there_, in_, recv_there_);
    transfer(in_, send_back_, out_, recv_back_);
  }

 private:
  struct Layout {
    std::vector<int> counts, offsets;
    int total = 0;
  };
  void lay_out(Layout& layout, const std::vector<int>& rows, int width) const {
    for (size_t p = 0; p < n_; ++p) {
      layout.offsets.push_back(layout.total);
      layout.counts.push_back(rows[p] * width);
      layout.total += rows[p] * width;
    }
  }
  static void transfer(const std::vector<float>& from,
                       const Layout& send,
                       std::vector<float>& to,
                       const Layout& recv) {
    check(MPI_Alltoallv(from.data(),
                        send.counts.data(),
                        send.offsets.data(),
                        MPI_FLOAT,
                        to.data(),
                        recv.counts.data(),
                        recv.offsets.data(),
                        MPI_FLOAT,
                        MPI_COMM_WORLD));
  }

  size_t n_;
  Layout send_there_, recv_there_, send_back_, recv_back_;
  std::vector<float> out_, in_;
};

// The same between devices, by the group's own all-to-all.
class DeviceAllToAll {
 public:
  DeviceAllToAll(Communicator& group, Device& device, const std::vector<int>& rows)
      : group_(group), sent_(rows.begin(), rows.end()), received_(rows.size()) {
    const std::vector<int64_t> ones(rows.size(), 1);
    const auto n = static_cast<int64_t>(rows.size());
    group.all_to_all(host_tensor(received_.data(), DType::kU8, {n, 8}),
                     ones,
                     host_tensor(sent_.data(), DType::kU8, {n, 8}),
                     ones);
    const int64_t there = total_rows(received_), back = total_rows(sent_);
    for (const int64_t width : {kHidden + 2 * kTopK, kHidden}) {
      near_.push_back(device.allocate(DType::kF32, {back, width}));
      far_.push_back(device.allocate(DType::kF32, {there, width}));
    }
  }

  void run() {
    group_.all_to_all(far_[0], received_, near_[0], sent_);
    group_.all_to_all(near_[1], sent_, far_[1], received_);
  }

 private:
  Communicator& group_;
  std::vector<int64_t> sent_, received_;
  std::vector<Tensor> near_, far_;
};

void compare(ProcessGrid& grid, Device& device, Ops& ops, int64_t rows, int repeats) {
  Step step(grid, device, ops, rows);
  std::optional<PlainAllToAll> of_hosts;
  std::optional<DeviceAllToAll> of_devices;
  if (device.is_host())
    of_hosts.emplace(step.sent());
  else
    of_devices.emplace(grid.exchange(), device, step.sent());
  std::vector<double> ours, theirs;
  for (int i = -3; i < repeats; ++i) {  // three to warm up
    double seconds[2];
    for (int which = 0; which < 2; ++which) {
      check(MPI_Barrier(MPI_COMM_WORLD));
      const double start = now();
      if (which == 0)
        step.run();
      else
        of_hosts ? of_hosts->run() : of_devices->run();
      device.wait();
      const double mine = now() - start;
      check(MPI_Allreduce(&mine, &seconds[which], 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD));
    }
    if (i < 0) continue;
    ours.push_back(seconds[0]);
    theirs.push_back(seconds[1]);
  }
  if (grid.world().rank() != 0) return;
  const Timing a = summarise(ours), b = summarise(theirs);
  std::printf("%s",
              fmt::format("{} ranks, {:>3} rows each: exchange {:9.1f} us ({:.1f} to {:.1f}), "
                          "{} {:9.1f} us ({:.1f} to {:.1f}), ratio {:.2f}\n",
                          grid.world().size(),
                          rows,
                          a.median * 1e6,
                          a.p10 * 1e6,
                          a.p90 * 1e6,
                          of_hosts ? "MPI_Alltoallv" : "all-to-all",
                          b.median * 1e6,
                          b.p10 * 1e6,
                          b.p90 * 1e6,
                          a.median / b.median)
                  .c_str());
}

// A GPU for each rank of a host, in turns where there are fewer.
std::unique_ptr<Device> device_of(const MpiSession& session, const Options& options) {
  if (!options.cuda) return make_cpu_device();
  const int n = cuda_device_count();
  return make_cuda_device(n == 0 ? 0 : session.node_rank() % n, kSeconds);
}

int run(MpiSession& session, const Options& options) {
  const int n = session.world().size();
  const std::unique_ptr<Device> device = device_of(session, options);
  DeviceLink link;
  if (options.cuda) link = {.device = device.get(), .options = {kSeconds, nullptr, nullptr}};
  ProcessGrid grid(session.world(), {n, 1, 1, n}, link);
  if (options.cuda && session.world().rank() == 0)
    std::printf("%s, %s\n", device->name().c_str(), grid.transport_text().c_str());
  const auto ops = make_ops(OpsKind::kAuto, *device, 1, {kMostRows * n, kHidden, 16, 1, 16});
  for (const int64_t rows : {1, 4, 8})
    compare(grid, *device, *ops, rows, options.min_repeats * 40 / 3);
  for (const int64_t rows : {32, 128, 512})
    compare(grid, *device, *ops, rows, options.min_repeats * 4 / 3);
  return 0;
}

}  // namespace
}  // namespace glm::bench

int main(int argc, char** argv) {
  return glm::run_mpi_program(argc, argv, "bench_exchange", [&](glm::MpiSession& session) {
    return glm::bench::run(session, glm::bench::parse_options(argc, argv));
  });
}
