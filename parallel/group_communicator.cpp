// The collectives. Sums: the pieces of all ranks are brought together unsummed and added in
// ascending rank order, ((x0 + x1) + x2) + ..., by one rank per element (large tensors: reduce-
// scatter, then all-gather) or by every rank alike (small ones). The bits do not depend on which.
// SPDX-License-Identifier: MIT
#include "parallel/group_communicator.h"

#include <algorithm>

#include "parallel/group_call.h"
#include "parallel/tensor_bytes.h"

namespace glm {
namespace {

// Memory for pieces that wait to be summed, per group. Larger tensors are summed in rounds.
constexpr int64_t kStageFloats = int64_t{1} << 20;
// Up to here every rank gathers everything: one exchange instead of two.
constexpr int64_t kSmallFloats = int64_t{1} << 13;

}  // namespace

GroupCommunicator::GroupCommunicator(std::shared_ptr<Transport> transport,
                                     std::vector<int> members,
                                     int tag,
                                     const std::string& name,
                                     const CommOptions& options)
    : transport_(std::move(transport)),
      members_(std::move(members)),
      tag_(tag),
      name_(name),
      options_(options),
      begin_(members_.size()),
      count_(members_.size()) {
  const auto self = std::find(members_.begin(), members_.end(), transport_->rank());
  GLM_CHECK(self != members_.end(), "rank {} is not in group {}", transport_->rank(), name);
  rank_ = static_cast<int>(self - members_.begin());
  transfers_.reserve(2 * members_.size());
  if (size() > 1) stage_.reset(new float[static_cast<size_t>(kStageFloats)]);
}

std::unique_ptr<GroupCommunicator> GroupCommunicator::world(std::shared_ptr<Transport> transport,
                                                            const CommOptions& options) {
  std::vector<int> members(static_cast<size_t>(transport->size()));
  std::iota(members.begin(), members.end(), 0);
  return std::make_unique<GroupCommunicator>(
      std::move(transport), std::move(members), 0, "world", options);
}

std::unique_ptr<Communicator> GroupCommunicator::split(int color,
                                                       int key,
                                                       const std::string& name) {
  Call call(*this, "comm.split");
  struct Choice {
    int color, key, tag;
  };
  const Choice mine{color, key, transport_->next_tag()};
  std::vector<Choice> all(members_.size());
  std::fill(count_.begin(), count_.end(), static_cast<int64_t>(sizeof(Choice)));
  gather_bytes(
      reinterpret_cast<std::byte*>(all.data()), reinterpret_cast<const std::byte*>(&mine), count_);
  std::vector<size_t> order;
  int tag = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    tag = std::max(tag, all[i].tag);
    if (all[i].color == color) order.push_back(i);
  }
  std::stable_sort(
      order.begin(), order.end(), [&](size_t a, size_t b) { return all[a].key < all[b].key; });
  std::vector<int> members;
  for (const size_t i : order) members.push_back(members_[i]);
  transport_->set_next_tag(tag + 1);
  return std::make_unique<GroupCommunicator>(transport_, std::move(members), tag, name, options_);
}

void GroupCommunicator::add_send(int peer, const std::byte* data, int64_t bytes) {
  if (bytes == 0) return;
  // The transport reads from it only.
  transfers_.push_back(
      {members_[static_cast<size_t>(peer)], const_cast<std::byte*>(data), bytes, false});
  counters_.sent_bytes += bytes;
}

void GroupCommunicator::add_recv(int peer, std::byte* data, int64_t bytes) {
  if (bytes == 0) return;
  transfers_.push_back({members_[static_cast<size_t>(peer)], data, bytes, true});
}

void GroupCommunicator::run() {
  progress_.run(*transport_, tag_, transfers_, {verb_, &name_, sequence_}, options_);
  transfers_.clear();
}

std::byte* GroupCommunicator::host_out(Tensor tensor, Side side) {
  if (on_host(tensor)) return tensor.as<std::byte>();
  std::vector<std::byte>& stage = device_stage_[side];
  if (stage.size() < static_cast<size_t>(tensor.bytes()))
    stage.resize(static_cast<size_t>(tensor.bytes()));
  return stage.data();
}

std::byte* GroupCommunicator::host_in(Tensor tensor, Side side) {
  std::byte* host = host_out(tensor, side);
  if (on_host(tensor)) return host;
  tensor.device->copy(host_tensor(host, DType::kU8, {tensor.bytes()}), tensor);
  tensor.device->wait();
  return host;
}

void GroupCommunicator::give_back(Tensor tensor, Side side) {
  if (on_host(tensor)) return;
  tensor.device->copy(tensor,
                      host_tensor(device_stage_[side].data(), DType::kU8, {tensor.bytes()}));
  tensor.device->wait();  // the stage is used again by the next verb
}

void GroupCommunicator::barrier() {
  Call call(*this, "comm.barrier");
  // Dissemination: after round k a rank has heard, directly or not, of 2^(k+1) ranks.
  std::byte token{1}, heard{0};
  for (int distance = 1; distance < size(); distance *= 2) {
    add_send((rank_ + distance) % size(), &token, 1);
    add_recv((rank_ + size() - distance) % size(), &heard, 1);
    run();
  }
}

void GroupCommunicator::gather_bytes(std::byte* out,
                                     const std::byte* in,
                                     std::span<const int64_t> bytes) {
  const int64_t mine = bytes[static_cast<size_t>(rank_)];
  int64_t offset = 0;
  std::byte* own = out;
  for (int peer = 0; peer < size(); ++peer) {
    const int64_t theirs = bytes[static_cast<size_t>(peer)];
    if (peer == rank_) {
      own = out + offset;
    } else {
      add_recv(peer, out + offset, theirs);
      add_send(peer, in, mine);
    }
    offset += theirs;
  }
  copy_bytes(own, in, mine);
  run();
}

void GroupCommunicator::all_gather(Tensor out, Tensor in, std::span<const int64_t> rows) {
  Call call(*this, "comm.all_gather");
  GLM_CHECK(rows.size() == members_.size() && out.dtype == in.dtype &&
                out.rows() == total_rows(rows) && in.rows() == rows[static_cast<size_t>(rank_)] &&
                (out.cols() == in.cols() || out.elements() == 0),
            "all_gather of {} to {}",
            in.shape_text(),
            out.shape_text());
  if (size() == 1) return copy_alone(out, in);
  for (size_t i = 0; i < rows.size(); ++i) count_[i] = rows[i] * row_bytes(out);
  const std::byte* source = host_in(in, kIn);
  gather_bytes(host_out(out, kOut), source, count_);
  give_back(out, kOut);
}

int64_t GroupCommunicator::stage_count() const {
  return std::max<int64_t>(1, kStageFloats / std::max(1, size() - 1));
}

void GroupCommunicator::sum_pieces(float* out, const float* own, int64_t count) {
  const auto add = [count](float* sum, const float* piece) {
    for (int64_t i = 0; i < count; ++i) sum[i] += piece[i];
  };
  // out may be own: its old values are needed until this rank's turn.
  float* sum = rank_ == 0 ? out : stage_.get();
  const float* piece = stage_.get() + (rank_ == 0 ? 0 : count);
  if (rank_ == 0)
    copy_bytes(
        reinterpret_cast<std::byte*>(out), reinterpret_cast<const std::byte*>(own), count * 4);
  for (int peer = 1; peer < size(); ++peer) {
    if (peer == rank_) {
      add(sum, own);
    } else {
      add(sum, piece);
      piece += count;
    }
  }
  copy_bytes(reinterpret_cast<std::byte*>(out), reinterpret_cast<const std::byte*>(sum), count * 4);
}

void GroupCommunicator::scatter_sum(float* out,
                                    const float* in,
                                    std::span<const int64_t> begin,
                                    std::span<const int64_t> count) {
  const int64_t step = stage_count();
  const int64_t longest = *std::max_element(count.begin(), count.end());
  const auto self = static_cast<size_t>(rank_);
  for (int64_t first = 0; first < longest; first += step) {
    const auto part = [&](size_t p) { return std::clamp<int64_t>(count[p] - first, 0, step); };
    const int64_t mine = part(self);
    float* piece = stage_.get();
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank_) continue;
      const auto p = static_cast<size_t>(peer);
      add_recv(peer, reinterpret_cast<std::byte*>(piece), mine * 4);
      add_send(peer, reinterpret_cast<const std::byte*>(in + begin[p] + first), part(p) * 4);
      piece += mine;
    }
    run();
    sum_pieces(out + first, in + begin[self] + first, mine);
  }
}

void GroupCommunicator::sum_small(float* data, int64_t count) {
  for (int peer = 0, slot = 0; peer < size(); ++peer) {
    if (peer == rank_) continue;
    add_recv(peer, reinterpret_cast<std::byte*>(stage_.get() + slot++ * count), count * 4);
    add_send(peer, reinterpret_cast<const std::byte*>(data), count * 4);
  }
  run();
  sum_pieces(data, data, count);
}

void GroupCommunicator::sum_large(float* data, int64_t count) {
  for (int64_t p = 0; p < size(); ++p) {
    const auto slot = static_cast<size_t>(p);
    begin_[slot] = count * p / size();
    count_[slot] = count * (p + 1) / size() - begin_[slot];
  }
  const auto self = static_cast<size_t>(rank_);
  scatter_sum(data + begin_[self], data, begin_, count_);
  for (int64_t& elements : count_) elements *= 4;
  auto* bytes = reinterpret_cast<std::byte*>(data);
  gather_bytes(bytes, bytes + begin_[self] * 4, count_);
}

void GroupCommunicator::all_reduce_sum(Tensor inout) {
  Call call(*this, "comm.all_reduce");
  GLM_CHECK(inout.dtype == DType::kF32, "all_reduce of {}", inout.shape_text());
  if (size() == 1 || inout.elements() == 0) return;
  auto* data = reinterpret_cast<float*>(host_in(inout, kIn));
  if (inout.elements() <= kSmallFloats && inout.elements() <= stage_count())
    sum_small(data, inout.elements());
  else
    sum_large(data, inout.elements());
  give_back(inout, kIn);
}

void GroupCommunicator::reduce_scatter_sum(Tensor out, Tensor in, std::span<const int64_t> rows) {
  Call call(*this, "comm.reduce_scatter");
  check_reduce_scatter(out, in, rows, rank(), size());
  if (size() == 1) return copy_alone(out, in);
  int64_t offset = 0;
  for (size_t p = 0; p < rows.size(); ++p) {
    begin_[p] = offset;
    count_[p] = rows[p] * in.cols();
    offset += count_[p];
  }
  const auto* source = reinterpret_cast<const float*>(host_in(in, kIn));
  auto* target = reinterpret_cast<float*>(host_out(out, kOut));
  scatter_sum(target, source, begin_, count_);
  give_back(out, kOut);
}

void GroupCommunicator::add_part(const AllToAllPart& part, Side side) {
  check_all_to_all(part, size());
  const std::byte* source = host_in(part.in, side + kIn);
  std::byte* const stage = host_out(part.out, side + kOut);
  std::byte* target = stage;
  for (int peer = 0; peer < size(); ++peer) {
    const int64_t sent = part.send_rows[static_cast<size_t>(peer)] * row_bytes(part.in);
    const int64_t received = part.recv_rows[static_cast<size_t>(peer)] * row_bytes(part.out);
    if (peer == rank_) {
      GLM_CHECK(sent == received, "all_to_all: {} bytes to self, {} expected", sent, received);
      if (!part.own_in_place) {
        copy_bytes(target, source, sent);
      } else if (!on_host(part.out)) {  // all of the stage is given back
        const int64_t begin = target - stage;
        part.out.device->copy(host_tensor(target, DType::kU8, {sent}),
                              bytes_of(part.out, begin, sent));
        part.out.device->wait();
      }
    } else {
      add_recv(peer, target, received);
      add_send(peer, source, sent);
    }
    source += sent;
    target += received;
  }
}

void GroupCommunicator::all_to_all(Tensor out,
                                   std::span<const int64_t> recv_rows,
                                   Tensor in,
                                   std::span<const int64_t> send_rows) {
  Call call(*this, "comm.all_to_all");
  add_part({out, recv_rows, in, send_rows}, 0);
  run();
  give_back(out, kOut);
}

void GroupCommunicator::all_to_all_start(std::span<const AllToAllPart> parts) {
  Call call(*this, "comm.all_to_all");
  GLM_CHECK(parts.size() <= kMaxParts, "all_to_all of {} buffers", parts.size());
  started_out_ = {};
  for (size_t i = 0; i < parts.size(); ++i) {
    add_part(parts[i], 2 * i);
    started_out_[i] = parts[i].out;
  }
  progress_.start(*transport_, tag_, transfers_, {verb_, &name_, sequence_}, options_);
  started_ = true;
}

void GroupCommunicator::all_to_all_wait() {
  GLM_CHECK(started_, "all_to_all_wait of group {} without a start", name_);
  Call call(*this, "comm.all_to_all", Call::Rest());
  started_ = false;
  progress_.finish(*transport_, transfers_, {verb_, &name_, sequence_}, options_);
  transfers_.clear();
  for (size_t i = 0; i < kMaxParts; ++i)
    if (!started_out_[i].absent()) give_back(started_out_[i], 2 * i + kOut);
}

void GroupCommunicator::all_to_all_cancel() {
  if (started_ && transport_->under_way()) transport_->give_up();
  started_ = false;
}

void GroupCommunicator::broadcast(Tensor inout, int root) {
  Call call(*this, "comm.broadcast");
  GLM_CHECK(root >= 0 && root < size(), "broadcast from rank {} of {}", root, size());
  if (size() == 1 || inout.bytes() == 0) return;
  // A binomial tree over ranks counted from the root.
  const int position = (rank_ + size() - root) % size();
  const auto peer = [&](int at) { return (at + root) % size(); };
  std::byte* data = rank_ == root ? host_in(inout, kIn) : host_out(inout, kIn);
  int distance = 1;
  while (distance < size() && (position & distance) == 0) distance *= 2;
  if (position != 0) {
    add_recv(peer(position - distance), data, inout.bytes());
    run();
  }
  for (distance /= 2; distance > 0; distance /= 2)
    if (position + distance < size()) add_send(peer(position + distance), data, inout.bytes());
  run();
  if (rank_ != root) give_back(inout, kIn);
}

void GroupCommunicator::send(Tensor in, int peer) {
  Call call(*this, "comm.send");
  GLM_CHECK(peer >= 0 && peer < size() && peer != rank_, "send to rank {} of {}", peer, size());
  add_send(peer, host_in(in, kIn), in.bytes());
  run();
}

void GroupCommunicator::post(Tensor in, int peer) {
  Call call(*this, "comm.post");
  GLM_CHECK(peer >= 0 && peer < size() && peer != rank_, "post to rank {} of {}", peer, size());
  add_send(peer, host_in(in, kIn), in.bytes());
  for (const Transfer& transfer : transfers_)
    progress_.post(*transport_, tag_, transfer, {verb_, &name_, sequence_}, options_);
}

void GroupCommunicator::recv(Tensor out, int peer) {
  Call call(*this, "comm.recv");
  GLM_CHECK(peer >= 0 && peer < size() && peer != rank_, "recv from rank {} of {}", peer, size());
  add_recv(peer, host_out(out, kOut), out.bytes());
  run();
  give_back(out, kOut);
}

}  // namespace glm
