// SPDX-License-Identifier: MIT
#include "tests/parallel/conformance.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>
#include <thread>

#include <gtest/gtest.h>

#include "core/base/device.h"
#include "tests/support/instrumented.h"

namespace glm {
namespace {

// Values of very different size, so that the order of a sum shows in its bits.
std::vector<float> values_of(int rank, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  const auto key = static_cast<uint32_t>(rank + 1) * 2654435761u;
  const float scale = rank % 3 == 0 ? 1000.0f : rank % 3 == 1 ? 1.0f : 1e-3f;
  for (size_t i = 0; i < values.size(); ++i) {
    uint32_t bits = (static_cast<uint32_t>(i) + key) * 2246822519u;
    bits ^= bits >> 15;
    values[i] = (static_cast<float>(bits & 0xffffff) * 0x1p-24f - 0.5f) * scale;
  }
  return values;
}

// ((x0 + x1) + x2) + ... of elements [first, first + count).
std::vector<float> ordered_sum(int ranks, int64_t total, int64_t first, int64_t count) {
  std::vector<float> sum;
  for (int rank = 0; rank < ranks; ++rank) {
    const std::vector<float> all = values_of(rank, total);
    const std::vector<float> part(all.begin() + first, all.begin() + first + count);
    if (rank == 0)
      sum = part;
    else
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
  }
  return sum;
}

Tensor floats(std::vector<float>& values, int64_t columns = 1) {
  return host_tensor(
      values.data(), DType::kF32, {static_cast<int64_t>(values.size()) / columns, columns});
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * 4) == 0);
}

std::vector<int64_t> uneven_rows(int ranks, int64_t factor) {
  std::vector<int64_t> rows(static_cast<size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank)
    rows[static_cast<size_t>(rank)] = factor * ((rank * 3 + 1) % 4);  // 1 0 3 2 1 0 ...
  return rows;
}

int64_t total(const std::vector<int64_t>& rows) {
  return std::accumulate(rows.begin(), rows.end(), int64_t{0});
}

// Byte number i of what `from` sends to `to`.
uint8_t byte_of(int from, int to, int64_t i) {
  return static_cast<uint8_t>(31 * from + 17 * to + 7 * i + i / 251);
}

void barrier_waits_for_all(Communicator& world) {
  using Clock = std::chrono::steady_clock;
  for (int late = 0; late < world.size(); ++late) {
    int64_t arrival = 0;
    if (world.rank() == late) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      arrival = Clock::now().time_since_epoch().count();
    }
    world.barrier();
    const int64_t left = Clock::now().time_since_epoch().count();
    world.broadcast(host_tensor(&arrival, DType::kU8, {8}), late);
    EXPECT_GE(left, arrival) << "rank " << world.rank() << " left before rank " << late;
  }
}

void all_reduce_adds_in_rank_order(Communicator& world) {
  for (const int64_t count : {0, 1, 7, 31, 8191, 8192, 8193, 300'007}) {
    std::vector<float> mine = values_of(world.rank(), count);
    world.all_reduce_sum(floats(mine));
    EXPECT_TRUE(same_bits(mine, ordered_sum(world.size(), count, 0, count)))
        << count << " floats, rank " << world.rank() << " of " << world.size();
  }
}

void all_gather_takes_uneven_rows_of_any_dtype(Communicator& world) {
  for (const DType dtype : {DType::kF32, DType::kI32, DType::kU8, DType::kF16, DType::kBF16}) {
    for (const int64_t factor : {0, 1, 5, 3000}) {
      const std::vector<int64_t> rows = uneven_rows(world.size(), factor);
      const int64_t row_bytes = 3 * dtype_size(dtype);
      const int64_t mine = rows[static_cast<size_t>(world.rank())];
      std::vector<uint8_t> in(static_cast<size_t>(mine * row_bytes));
      for (size_t i = 0; i < in.size(); ++i)
        in[i] = byte_of(world.rank(), 0, static_cast<int64_t>(i));
      std::vector<uint8_t> out(static_cast<size_t>(total(rows) * row_bytes), 0xee);
      world.all_gather(host_tensor(out.data(), dtype, {total(rows), 3}),
                       host_tensor(in.data(), dtype, {mine, 3}),
                       rows);
      std::vector<uint8_t> expected;
      for (int rank = 0; rank < world.size(); ++rank)
        for (int64_t i = 0; i < rows[static_cast<size_t>(rank)] * row_bytes; ++i)
          expected.push_back(byte_of(rank, 0, i));
      EXPECT_EQ(out, expected) << dtype_name(dtype) << " x " << factor;
    }
  }
}

void reduce_scatter_adds_in_rank_order(Communicator& world) {
  for (const int64_t factor : {0, 1, 7, testing_support::kInstrumented ? 4'000 : 40'000}) {
    constexpr int64_t kColumns = 9;
    const std::vector<int64_t> rows = uneven_rows(world.size(), factor);
    const int64_t all = total(rows) * kColumns;
    const auto self = static_cast<size_t>(world.rank());
    const int64_t first =
        std::accumulate(rows.begin(), rows.begin() + world.rank(), int64_t{0}) * kColumns;
    const std::vector<float> expected =
        ordered_sum(world.size(), all, first, rows[self] * kColumns);
    std::vector<float> in = values_of(world.rank(), all);
    std::vector<float> out(expected.size());
    world.reduce_scatter_sum(floats(out, kColumns), floats(in, kColumns), rows);
    EXPECT_TRUE(same_bits(out, expected)) << "factor " << factor << ", rank " << world.rank();
    EXPECT_TRUE(same_bits(in, values_of(world.rank(), all))) << "the input has changed";
  }
}

void all_to_all_takes_uneven_rows_of_any_dtype(Communicator& world) {
  const auto rows_of = [](int from, int to, int64_t factor) {
    return factor * ((from + 2 * to) % 3);
  };
  for (const DType dtype : {DType::kF32, DType::kI32, DType::kU8, DType::kF16}) {
    for (const int64_t factor : {0, 1, 2000}) {
      const int64_t row_bytes = 5 * dtype_size(dtype);
      std::vector<int64_t> sent, received;
      std::vector<uint8_t> in, expected;
      for (int peer = 0; peer < world.size(); ++peer) {
        sent.push_back(rows_of(world.rank(), peer, factor));
        received.push_back(rows_of(peer, world.rank(), factor));
        for (int64_t i = 0; i < sent.back() * row_bytes; ++i)
          in.push_back(byte_of(world.rank(), peer, i));
        for (int64_t i = 0; i < received.back() * row_bytes; ++i)
          expected.push_back(byte_of(peer, world.rank(), i));
      }
      std::vector<uint8_t> out(expected.size(), 0xee);
      world.all_to_all(host_tensor(out.data(), dtype, {total(received), 5}),
                       received,
                       host_tensor(in.data(), dtype, {total(sent), 5}),
                       sent);
      EXPECT_EQ(out, expected) << dtype_name(dtype) << " x " << factor;
    }
  }
}

void broadcast_reaches_all_from_any_root(Communicator& world) {
  for (int root = 0; root < world.size(); ++root) {
    for (const int64_t bytes : {0, 1, 4099, 300'000}) {
      std::vector<uint8_t> data(static_cast<size_t>(bytes)), expected;
      for (int64_t i = 0; i < bytes; ++i) expected.push_back(byte_of(root, 1, i));
      if (world.rank() == root) data = expected;
      world.broadcast(host_tensor(data.data(), DType::kU8, {bytes}), root);
      EXPECT_EQ(data, expected) << bytes << " bytes from rank " << root;
    }
  }
}

void a_chain_of_sends_carries_rows(Communicator& world) {
  for (const int64_t count : {1, 4096, 500'000}) {
    std::vector<float> x(static_cast<size_t>(count), 1.0f);
    if (world.rank() > 0) world.recv(floats(x), world.rank() - 1);
    for (float& value : x) value *= 2.0f;
    if (world.rank() + 1 < world.size()) world.send(floats(x), world.rank() + 1);
    const float expected = static_cast<float>(1 << (world.rank() + 1));
    EXPECT_EQ(x, std::vector<float>(x.size(), expected));
  }
}

void messages_of_two_ranks_keep_their_order(Communicator& world) {
  if (world.size() == 1) return;  // no peer: verbs between two ranks do not exist
  for (int i = 0; i < 50; ++i) {
    std::vector<float> x(static_cast<size_t>(1 + i * 97 % 300), static_cast<float>(i));
    if (world.rank() == 0) world.send(floats(x), world.size() - 1);
    if (world.rank() != world.size() - 1) continue;
    std::vector<float> y(x.size());
    world.recv(floats(y), 0);
    EXPECT_EQ(y, x) << "message " << i;
  }
}

float group_sum(Communicator& group, float value) {
  group.all_reduce_sum(host_tensor(&value, DType::kF32, {1}));
  return value;
}

// Posted rows are copied, so their memory is free at once; they keep their order among themselves
// and with what is sent; more of them than may be under way wait for the receiver.
void posted_rows_arrive_later_in_order(Communicator& world) {
  constexpr int kRounds = 3 * kMostPosted;
  constexpr int64_t kRows = 5000;
  const int last = world.size() - 1;
  if (last == 0) return;
  std::vector<float> x(static_cast<size_t>(kRows));
  if (world.rank() == 0) {
    for (int i = 0; i < kRounds; ++i) {
      std::fill(x.begin(), x.end(), static_cast<float>(i));
      if (i % 5 == 4)
        world.send(floats(x), last);
      else
        world.post(floats(x), last);
      world.progress();
      std::fill(x.begin(), x.end(), -1.0f);
    }
  } else if (world.rank() == last) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    for (int i = 0; i < kRounds; ++i) {
      world.recv(floats(x), 0);
      EXPECT_EQ(x, std::vector<float>(x.size(), static_cast<float>(i)));
    }
  }
  world.barrier();
}

void split_makes_groups_by_color_in_key_order(Communicator& world) {
  const int rank = world.rank(), size = world.size();
  const auto parity = world.split(rank % 2, -rank, "parity");
  const int members = size / 2 + (rank % 2 == 0 ? size % 2 : 0);
  EXPECT_EQ(parity->size(), members);
  EXPECT_EQ(parity->rank(), members - 1 - rank / 2) << "keys order the group";
  EXPECT_EQ(parity->name(), "parity");
  const auto alone = world.split(rank, 0, "alone");
  EXPECT_EQ(alone->size(), 1);
  const auto same = world.split(0, 0, "same");
  EXPECT_EQ(same->rank(), rank) << "equal keys keep the order";
  const auto nested = parity->split(parity->rank() / 2, parity->rank(), "nested");
  EXPECT_LE(nested->size(), 2);
  // Traffic of all groups in turn.
  for (int i = 0; i < 20; ++i) {
    float evens = 0, all = 0;
    for (int r = 0; r < size; ++r) {
      all += static_cast<float>(r + 1);
      if (r % 2 == rank % 2) evens += static_cast<float>(r + 1);
    }
    EXPECT_EQ(group_sum(*parity, static_cast<float>(rank + 1)), evens);
    EXPECT_EQ(group_sum(*same, static_cast<float>(rank + 1)), all);
    EXPECT_EQ(group_sum(*alone, 3.0f), 3.0f);
    EXPECT_EQ(group_sum(*nested, 1.0f), static_cast<float>(nested->size()));
    EXPECT_EQ(group_sum(world, static_cast<float>(rank + 1)), all);
  }
}

void groups_do_not_hear_each_other(Communicator& world) {
  // Neighbouring pairs, made twice with other partners: rank r talks to both partners in an order
  // of its own, so that messages of one group wait while those of the other are taken.
  const int rank = world.rank();
  const auto low = world.split(rank / 2, rank, "low");
  const auto high = world.split((rank + 1) / 2, rank, "high");
  for (int i = 0; i < 30; ++i) {
    std::vector<float> a(static_cast<size_t>(1 + i), 1.0f), b(static_cast<size_t>(40 - i), 10.0f);
    low->all_reduce_sum(floats(a));
    high->all_reduce_sum(floats(b));
    EXPECT_EQ(a, std::vector<float>(a.size(), static_cast<float>(low->size())));
    EXPECT_EQ(b, std::vector<float>(b.size(), static_cast<float>(10 * high->size())));
  }
}

void strings_travel(Communicator& world) {
  for (int root = 0; root < world.size(); ++root) {
    std::string text = world.rank() == root ? "from " + std::to_string(root) : "old text";
    broadcast_string(world, text, root);
    EXPECT_EQ(text, "from " + std::to_string(root));
    std::string empty = world.rank() == root ? "" : "old text";
    broadcast_string(world, empty, root);
    EXPECT_EQ(empty, "");
  }
  const std::string mine(static_cast<size_t>(world.rank() % 3), 'x');
  const std::vector<std::string> all = all_gather_strings(world, mine);
  EXPECT_EQ(all.size(), static_cast<size_t>(world.size()));
  for (size_t rank = 0; rank < all.size(); ++rank) EXPECT_EQ(all[rank], std::string(rank % 3, 'x'));
}

void counters_count_what_was_sent(Communicator& world) {
  const CommCounters before = world.counters();
  std::vector<int32_t> in(10), out(10 * static_cast<size_t>(world.size()));
  const std::vector<int64_t> rows(static_cast<size_t>(world.size()), 10);
  world.all_gather(host_tensor(out.data(), DType::kI32, {10 * world.size()}),
                   host_tensor(in.data(), DType::kI32, {10}),
                   rows);
  EXPECT_EQ(world.counters().calls - before.calls, 1);
  EXPECT_EQ(world.counters().sent_bytes - before.sent_bytes, 40 * (world.size() - 1));
  EXPECT_GE(world.counters().seconds, before.seconds);
}

// A device whose memory the host must not touch: addresses are shifted by a terabyte.
class FarDevice final : public Device {
 public:
  std::string name() const override { return "far"; }
  bool is_host() const override { return false; }
  Tensor allocate(DType dtype, std::initializer_list<int64_t> dims) override {
    Tensor tensor = host_tensor(nullptr, dtype, dims);
    memory_.push_back(std::make_unique<std::byte[]>(static_cast<size_t>(tensor.bytes())));
    tensor.device = this;
    tensor.data = memory_.back().get() + kShift;
    return tensor;
  }
  Tensor allocate_host(DType dtype, std::initializer_list<int64_t> dims) override {
    Tensor tensor = allocate(dtype, dims);
    tensor.device = nullptr;
    tensor.data = memory_.back().get();
    return tensor;
  }
  int64_t allocated_bytes() const override { return 0; }
  void copy(Tensor dst, Tensor src) override {
    ASSERT_EQ(dst.bytes(), src.bytes());
    if (dst.bytes() > 0) std::memcpy(near(dst), near(src), static_cast<size_t>(dst.bytes()));
  }
  void wait() override {}
  void replay(uint64_t, const std::function<void()>& record) override { record(); }

 private:
  static constexpr int64_t kShift = int64_t{1} << 40;
  std::byte* near(Tensor tensor) const {
    return tensor.as<std::byte>() - (tensor.device == this ? kShift : 0);
  }
  std::vector<std::unique_ptr<std::byte[]>> memory_;
};

void device_tensors_travel_through_host_memory(Communicator& world) {
  FarDevice device;
  constexpr int64_t kRows = 4;
  const int64_t all = kRows * world.size();
  const std::vector<int64_t> rows(static_cast<size_t>(world.size()), kRows);
  const std::vector<int64_t> single(static_cast<size_t>(world.size()), 1);
  Tensor mine = device.allocate(DType::kF32, {kRows, 8});
  Tensor every = device.allocate(DType::kF32, {all, 8});
  std::vector<float> values = values_of(world.rank(), kRows * 8);
  std::vector<float> seen(static_cast<size_t>(all * 8));
  device.copy(mine, floats(values, 8));
  world.all_gather(every, mine, rows);
  device.copy(floats(seen, 8), every);
  for (int rank = 0; rank < world.size(); ++rank)
    EXPECT_TRUE(same_bits({seen.begin() + rank * kRows * 8, seen.begin() + (rank + 1) * kRows * 8},
                          values_of(rank, kRows * 8)));
  world.all_reduce_sum(mine);
  device.copy(floats(values, 8), mine);
  EXPECT_TRUE(same_bits(values, ordered_sum(world.size(), kRows * 8, 0, kRows * 8)));
  world.reduce_scatter_sum(mine, every, rows);  // the same on all ranks: n times its own rows
  device.copy(floats(values, 8), mine);
  EXPECT_EQ(values.size(), static_cast<size_t>(kRows * 8));
  world.all_to_all(every.slice(0, world.size()), single, every.slice(0, world.size()), single);
  world.broadcast(mine, world.size() - 1);
  std::vector<float> last(values.size());
  device.copy(floats(last, 8), mine);
  float difference = 0;
  for (size_t i = 0; i < last.size(); ++i)
    difference += world.rank() == world.size() - 1 ? last[i] - values[i] : 0;
  EXPECT_EQ(difference, 0.0f);
}

void wrong_shapes_are_refused(Communicator& world) {
  std::vector<float> x(8), y(8);
  const std::vector<int64_t> rows(static_cast<size_t>(world.size()), 3);
  const std::vector<int64_t> too_many(static_cast<size_t>(world.size()) + 1, 1);
  const Tensor three = floats(x).slice(0, 3);
  EXPECT_THROW(world.all_gather(floats(y), three, too_many), Error);
  EXPECT_THROW(world.all_gather(floats(y).slice(0, 2), three, rows), Error);
  EXPECT_THROW(world.all_reduce_sum(host_tensor(x.data(), DType::kI32, {3})), Error);
  EXPECT_THROW(world.broadcast(three, world.size()), Error);
  EXPECT_THROW(world.send(three, world.rank()), Error);
  EXPECT_THROW(world.recv(three, -1), Error);
}

constexpr ConformanceCase kCases[] = {
    {"BarrierWaitsForAll", barrier_waits_for_all},
    {"AllReduceAddsInRankOrder", all_reduce_adds_in_rank_order},
    {"AllGatherTakesUnevenRowsOfAnyDtype", all_gather_takes_uneven_rows_of_any_dtype},
    {"ReduceScatterAddsInRankOrder", reduce_scatter_adds_in_rank_order},
    {"AllToAllTakesUnevenRowsOfAnyDtype", all_to_all_takes_uneven_rows_of_any_dtype},
    {"BroadcastReachesAllFromAnyRoot", broadcast_reaches_all_from_any_root},
    {"AChainOfSendsCarriesRows", a_chain_of_sends_carries_rows},
    {"PostedRowsArriveLaterInOrder", posted_rows_arrive_later_in_order},
    {"MessagesOfTwoRanksKeepTheirOrder", messages_of_two_ranks_keep_their_order},
    {"SplitMakesGroupsByColorInKeyOrder", split_makes_groups_by_color_in_key_order},
    {"GroupsDoNotHearEachOther", groups_do_not_hear_each_other},
    {"StringsTravel", strings_travel},
    {"CountersCountWhatWasSent", counters_count_what_was_sent},
    {"DeviceTensorsTravelThroughHostMemory", device_tensors_travel_through_host_memory},
    {"WrongShapesAreRefused", wrong_shapes_are_refused},
};

}  // namespace

std::span<const ConformanceCase> conformance_cases() { return kCases; }

}  // namespace glm
