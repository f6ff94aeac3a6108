// SPDX-License-Identifier: MIT
#include "parallel/nccl_communicator.h"

#include <algorithm>
#include <chrono>

#include "kernels/device_sum.h"
#include "parallel/tensor_bytes.h"

namespace glm {
namespace {

// Up to here every rank gathers everything to sum it: one exchange instead of two. Links between
// GPUs are fast and messages cost much, so it is more than among hosts; bits do not depend on it.
constexpr int64_t kSmallDeviceSum = int64_t{1} << 16;

}  // namespace

// One verb on tensors of the device: numbers it, and adds it to counters and trace.
class NcclCommunicator::Call {
 public:
  // span: "comm." and the name of the verb.
  Call(NcclCommunicator& group, const char* span)
      : group_(group), span_(span), start_(Trace::Clock::now()), sent_(group.counters_.sent_bytes) {
    GLM_CHECK(!group.started_, "{} of group {} before all_to_all_wait", span, group.name_);
    group.sequence_ += 1;
    group.counters_.calls += 1;
    group.pieces_.clear();
    if (group.link_) group.link_->begin({span + 5, &group.name_, group.sequence_});
  }
  ~Call() {
    const double seconds = std::chrono::duration<double>(Trace::Clock::now() - start_).count();
    group_.counters_.seconds += seconds;
    if (Trace* trace = group_.groups_->options().trace; trace != nullptr)
      trace->add(span_, seconds, {static_cast<double>(group_.counters_.sent_bytes - sent_), 0});
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

 private:
  NcclCommunicator& group_;
  const char* span_;
  Trace::Clock::time_point start_;
  int64_t sent_;
};

NcclCommunicator::NcclCommunicator(std::unique_ptr<Communicator> host,
                                   std::shared_ptr<DeviceGroups> groups,
                                   std::shared_ptr<NcclLink> link)
    : groups_(std::move(groups)),
      host_(std::move(host)),
      link_(std::move(link)),
      name_(host_->name()),
      begin_(static_cast<size_t>(host_->size())),
      count_(static_cast<size_t>(host_->size())) {
  GLM_CHECK(link_ || size() == 1, "group {} of {} without NCCL", name_, size());
  pieces_.reserve(4 * begin_.size());
}

void NcclCommunicator::warm_up() {
  const Tensor stage = groups_->stage();
  link_->begin({"warm_up", &name_, 0});
  pieces_.clear();
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    add_send(peer, stage.slice(peer, 1).as<std::byte>(), 4);
    add_recv(peer, stage.slice(size() + peer, 1).as<std::byte>(), 4);
  }
  run();
  const Tensor last = stage.slice(stage.rows() - 1, 1);
  link_->broadcast(last.as<std::byte>(), 4, 0);
  all_reduce_sum(last);
  groups_->device().wait();
  counters_ = {};
  sequence_ = 0;
}

std::unique_ptr<Communicator> NcclCommunicator::split(int color, int key, const std::string& name) {
  return groups_->wrap(host().split(color, key, name));
}

bool NcclCommunicator::here(Tensor a, Tensor b) const {
  const auto elsewhere = [this](Tensor tensor) { return tensor.bytes() > 0 && !here(tensor); };
  return (here(a) || here(b)) && !elsewhere(a) && !elsewhere(b);
}

Communicator& NcclCommunicator::host() {
  if (link_) link_->check();
  return *host_;
}

const CommCounters& NcclCommunicator::counters() const {
  all_counters_ = host_->counters();
  all_counters_.calls += counters_.calls;
  all_counters_.sent_bytes += counters_.sent_bytes;
  all_counters_.seconds += counters_.seconds;
  return all_counters_;
}

int64_t NcclCommunicator::own_rows(std::span<const int64_t> rows) const {
  return rows[static_cast<size_t>(rank())];
}

void NcclCommunicator::add_send(int peer, const std::byte* data, int64_t bytes) {
  if (bytes == 0) return;
  // NCCL reads from it only.
  pieces_.push_back({peer, const_cast<std::byte*>(data), bytes, false});
  counters_.sent_bytes += bytes;
}

void NcclCommunicator::add_recv(int peer, std::byte* data, int64_t bytes) {
  if (bytes > 0) pieces_.push_back({peer, data, bytes, true});
}

void NcclCommunicator::run() {
  if (link_) link_->exchange(pieces_);
  pieces_.clear();
}

void NcclCommunicator::copy(std::byte* to, const std::byte* from, int64_t bytes) {
  if (bytes == 0 || to == from) return;
  Device& device = groups_->device();
  Tensor target = host_tensor(to, DType::kU8, {bytes});
  Tensor source = host_tensor(const_cast<std::byte*>(from), DType::kU8, {bytes});
  target.device = source.device = &device;
  device.copy(target, source);
}

void NcclCommunicator::barrier() { host().barrier(); }

void NcclCommunicator::gather_equal(std::byte* out, const std::byte* in, int64_t bytes) {
  if (bytes == 0) return;
  if (!link_) return copy(out, in, bytes);
  link_->all_gather(out, in, bytes);
  counters_.sent_bytes += bytes * (size() - 1);
}

void NcclCommunicator::gather_bytes(std::byte* out,
                                    const std::byte* in,
                                    std::span<const int64_t> bytes) {
  const int64_t mine = own_rows(bytes);
  if (std::all_of(bytes.begin(), bytes.end(), [mine](int64_t b) { return b == mine; }))
    return gather_equal(out, in, mine);
  for (int peer = 0; peer < size(); ++peer) {
    const int64_t theirs = bytes[static_cast<size_t>(peer)];
    if (peer == rank()) {
      copy(out, in, mine);
    } else {
      add_recv(peer, out, theirs);
      add_send(peer, in, mine);
    }
    out += theirs;
  }
  run();
}

void NcclCommunicator::all_gather(Tensor out, Tensor in, std::span<const int64_t> rows) {
  if (!here(out, in)) return host().all_gather(out, in, rows);
  Call call(*this, "comm.all_gather");
  GLM_CHECK(rows.size() == count_.size() && out.dtype == in.dtype &&
                out.rows() == total_rows(rows) && in.rows() == own_rows(rows) &&
                (out.cols() == in.cols() || out.elements() == 0),
            "all_gather of {} to {}",
            in.shape_text(),
            out.shape_text());
  for (size_t i = 0; i < rows.size(); ++i) count_[i] = rows[i] * row_bytes(out);
  gather_bytes(out.as<std::byte>(), in.as<std::byte>(), count_);
}

void NcclCommunicator::scatter_sum(float* out,
                                   const float* in,
                                   std::span<const int64_t> begin,
                                   std::span<const int64_t> count) {
  const int64_t step = stage_count();
  const int64_t longest = *std::max_element(count.begin(), count.end());
  const auto self = static_cast<size_t>(rank());
  float* stage = groups_->stage().f32();
  for (int64_t first = 0; first < longest; first += step) {
    const auto part = [&](size_t p) { return std::clamp<int64_t>(count[p] - first, 0, step); };
    const int64_t mine = part(self);
    for (int peer = 0; peer < size(); ++peer) {
      const auto p = static_cast<size_t>(peer);
      auto* piece = reinterpret_cast<std::byte*>(stage + peer * mine);
      const auto* sent = reinterpret_cast<const std::byte*>(in + begin[p] + first);
      if (peer == rank()) {
        copy(piece, sent, mine * 4);
      } else {
        add_recv(peer, piece, mine * 4);
        add_send(peer, sent, part(p) * 4);
      }
    }
    run();
    if (mine > 0) sum_pieces_on_device(groups_->device(), out + first, stage, mine, size());
  }
}

// At most what the stage holds of each rank's share.
void NcclCommunicator::sum_round(float* data, int64_t count) {
  for (int64_t p = 0; p < size(); ++p) {
    const auto slot = static_cast<size_t>(p);
    begin_[slot] = count * p / size();
    count_[slot] = count * (p + 1) / size() - begin_[slot];
  }
  float* own = data + begin_[static_cast<size_t>(rank())];
  scatter_sum(own, data, begin_, count_);
  for (int64_t& elements : count_) elements *= 4;
  gather_bytes(reinterpret_cast<std::byte*>(data), reinterpret_cast<std::byte*>(own), count_);
}

void NcclCommunicator::all_reduce_sum(Tensor inout) {
  if (!here(inout)) return host().all_reduce_sum(inout);
  Call call(*this, "comm.all_reduce");
  GLM_CHECK(inout.dtype == DType::kF32, "all_reduce of {}", inout.shape_text());
  const int64_t n = inout.elements();
  if (size() == 1 || n == 0) return;
  float* data = inout.f32();
  if (n <= std::min(kSmallDeviceSum, stage_count())) {
    float* stage = groups_->stage().f32();
    gather_equal(reinterpret_cast<std::byte*>(stage), reinterpret_cast<std::byte*>(data), n * 4);
    return sum_pieces_on_device(groups_->device(), data, stage, n, size());
  }
  // Rounds of equal shares, but for the last one.
  const int64_t round = stage_count() * size();
  for (int64_t first = 0; first < n; first += round)
    sum_round(data + first, std::min(round, n - first));
}

void NcclCommunicator::reduce_scatter_sum(Tensor out, Tensor in, std::span<const int64_t> rows) {
  if (!here(out, in)) return host().reduce_scatter_sum(out, in, rows);
  Call call(*this, "comm.reduce_scatter");
  check_reduce_scatter(out, in, rows, rank(), size());
  if (size() == 1) return copy(out.as<std::byte>(), in.as<std::byte>(), in.bytes());
  int64_t offset = 0;
  for (size_t p = 0; p < rows.size(); ++p) {
    begin_[p] = offset;
    count_[p] = rows[p] * in.cols();
    offset += count_[p];
  }
  scatter_sum(out.f32(), in.f32(), begin_, count_);
}

void NcclCommunicator::add_part(const AllToAllPart& part) {
  check_all_to_all(part, size());
  const auto* source = part.in.as<std::byte>();
  auto* target = part.out.as<std::byte>();
  for (int peer = 0; peer < size(); ++peer) {
    const int64_t sent = part.send_rows[static_cast<size_t>(peer)] * row_bytes(part.in);
    const int64_t received = part.recv_rows[static_cast<size_t>(peer)] * row_bytes(part.out);
    if (peer == rank()) {
      GLM_CHECK(sent == received, "all_to_all: {} bytes to self, {} expected", sent, received);
      if (!part.own_in_place) copy(target, source, sent);
    } else {
      add_recv(peer, target, received);
      add_send(peer, source, sent);
    }
    source += sent;
    target += received;
  }
}

void NcclCommunicator::all_to_all(Tensor out,
                                  std::span<const int64_t> recv_rows,
                                  Tensor in,
                                  std::span<const int64_t> send_rows) {
  if (!here(out, in)) return host().all_to_all(out, recv_rows, in, send_rows);
  Call call(*this, "comm.all_to_all");
  add_part({out, recv_rows, in, send_rows});
  run();
}

void NcclCommunicator::all_to_all_start(std::span<const AllToAllPart> parts) {
  host_parts_.clear();
  for (const AllToAllPart& part : parts)
    if (!here(part.out, part.in)) host_parts_.push_back(part);
  if (host_parts_.size() < parts.size()) {
    Call call(*this, "comm.all_to_all");
    for (const AllToAllPart& part : parts)
      if (here(part.out, part.in)) add_part(part);
    run();
  }
  GLM_CHECK(!started_, "all_to_all of group {} before all_to_all_wait", name_);
  started_ = true;
  host_started_ = !host_parts_.empty();
  if (host_started_) host().all_to_all_start(host_parts_);
}

void NcclCommunicator::all_to_all_wait() {
  GLM_CHECK(started_, "all_to_all_wait of group {} without a start", name_);
  started_ = false;
  if (host_started_) host_->all_to_all_wait();
  host_started_ = false;
}

void NcclCommunicator::all_to_all_cancel() {
  host_->all_to_all_cancel();
  started_ = host_started_ = false;
}

void NcclCommunicator::broadcast(Tensor inout, int root) {
  if (!here(inout)) return host().broadcast(inout, root);
  Call call(*this, "comm.broadcast");
  GLM_CHECK(root >= 0 && root < size(), "broadcast from rank {} of {}", root, size());
  if (!link_ || inout.bytes() == 0) return;
  link_->broadcast(inout.as<std::byte>(), inout.bytes(), root);
  if (rank() == root) counters_.sent_bytes += inout.bytes() * (size() - 1);
}

void NcclCommunicator::send(Tensor in, int peer) {
  if (!here(in)) return host().send(in, peer);
  Call call(*this, "comm.send");
  GLM_CHECK(peer >= 0 && peer < size() && peer != rank(), "send to rank {} of {}", peer, size());
  add_send(peer, in.as<std::byte>(), in.bytes());
  run();
}

void NcclCommunicator::post(Tensor in, int peer) {
  if (!here(in)) return host().post(in, peer);
  Call call(*this, "comm.post");
  GLM_CHECK(peer >= 0 && peer < size() && peer != rank(), "post to rank {} of {}", peer, size());
  add_send(peer, in.as<std::byte>(), in.bytes());
  run();
}

void NcclCommunicator::recv(Tensor out, int peer) {
  if (!here(out)) return host().recv(out, peer);
  Call call(*this, "comm.recv");
  GLM_CHECK(peer >= 0 && peer < size() && peer != rank(), "recv from rank {} of {}", peer, size());
  add_recv(peer, out.as<std::byte>(), out.bytes());
  run();
}

}  // namespace glm
