// Ranks that are threads of one process: a mailbox for each ordered pair of ranks. A sender leaves
// the address of its bytes, the receiver copies them. So a send waits for its receive, which shows
// orders of sends that would only work as long as messages are small. SPDX-License-Identifier: MIT
#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

#include "parallel/group_communicator.h"

namespace glm {
namespace {

struct Letter {
  int tag = 0;
  const std::byte* data = nullptr;
  int64_t bytes = 0;
  std::unique_ptr<std::byte[]> copy;  // of a posted letter, which belongs to its box
  std::atomic<bool> taken{false};
};

struct Mailbox {
  std::mutex mutex;
  std::vector<Letter*> letters;  // oldest first
  std::atomic<int> count{0};     // of letters, to look without the lock
  int posted = 0;

  ~Mailbox() {
    for (const Letter* letter : letters)
      if (letter->copy) delete letter;
  }
};

// What the threads share.
class ThreadWorld {
 public:
  explicit ThreadWorld(int size)
      : size_(size), boxes_(static_cast<size_t>(size) * static_cast<size_t>(size)) {}
  int size() const { return size_; }
  Mailbox& box(int from, int to) {
    return boxes_[static_cast<size_t>(from) * static_cast<size_t>(size_) + static_cast<size_t>(to)];
  }
  // The first rank that failed, or -1.
  int failed() const { return failed_; }
  void set_failed(int rank) {
    int none = -1;
    failed_.compare_exchange_strong(none, rank);
  }

 private:
  int size_;
  std::vector<Mailbox> boxes_;
  std::atomic<int> failed_{-1};
};

class ThreadTransport final : public Transport {
 public:
  ThreadTransport(ThreadWorld& world, int rank)
      : world_(world),
        rank_(rank),
        crowded_(static_cast<unsigned>(world.size()) > std::thread::hardware_concurrency()) {}

  int rank() const override { return rank_; }
  int size() const override { return world_.size(); }
  bool crowded() const override { return crowded_; }
  std::string rank_text(int rank) const override { return fmt::format("rank {}", rank); }

  void start(int tag, std::span<const Transfer> transfers) override {
    tag_ = tag;
    transfers_ = transfers;
    if (n_letters_ < transfers.size()) {
      n_letters_ = transfers.size();
      letters_ = std::make_unique<Letter[]>(n_letters_);
    }
    for (size_t i = 0; i < transfers.size(); ++i) {
      const Transfer& transfer = transfers[i];
      if (transfer.receive) continue;
      Letter& letter = letters_[i];
      letter.tag = tag;
      letter.data = transfer.data;
      letter.bytes = transfer.bytes;
      letter.taken = false;
      Mailbox& box = world_.box(rank_, transfer.peer);
      const std::lock_guard lock(box.mutex);
      box.letters.push_back(&letter);
      box.count += 1;
    }
  }

  // Nothing moves here, but a rank that waits for its device hears of others that failed.
  void progress() override { check_world(); }

  bool try_post(int tag, const Transfer& send) override {
    check_world();
    Mailbox& box = world_.box(rank_, send.peer);
    const std::lock_guard lock(box.mutex);
    if (box.posted == kMostPosted) return false;
    auto letter = std::make_unique<Letter>();
    letter->tag = tag;
    letter->bytes = send.bytes;
    letter->copy.reset(new std::byte[static_cast<size_t>(send.bytes)]);
    std::memcpy(letter->copy.get(), send.data, static_cast<size_t>(send.bytes));
    letter->data = letter->copy.get();
    box.letters.push_back(letter.release());
    box.count += 1;
    box.posted += 1;
    return true;
  }

  bool poll(std::span<uint8_t> done) override {
    check_world();
    bool moved = false;
    for (size_t i = 0; i < transfers_.size(); ++i) {
      if (done[i] != 0) continue;
      const Transfer& transfer = transfers_[i];
      if (transfer.receive ? !next_of_peer(i, done) || !take(transfer) : !letters_[i].taken.load())
        continue;
      done[i] = 1;
      moved = true;
    }
    return moved;
  }

  void cancel() override {
    for (const Transfer& transfer : transfers_) {
      if (transfer.receive) continue;
      Mailbox& box = world_.box(rank_, transfer.peer);
      const std::lock_guard lock(box.mutex);
      // All letters in this box are this rank's; the others are posted and belong to the box.
      std::erase_if(box.letters, [](const Letter* letter) { return !letter->copy; });
      box.count = static_cast<int>(box.letters.size());
    }
    transfers_ = {};
  }

 private:
  void check_world() const {
    if (const int failed = world_.failed(); failed >= 0)
      throw ReleasedError(ExitCode::kCommunication,
                          fmt::format("rank {} gave up because rank {} failed", rank_, failed));
  }

  // Letters of a peer are for its transfers in their order.
  bool next_of_peer(size_t i, std::span<const uint8_t> done) const {
    for (size_t j = 0; j < i; ++j)
      if (done[j] == 0 && transfers_[j].receive && transfers_[j].peer == transfers_[i].peer)
        return false;
    return true;
  }

  // Copies the oldest letter of the peer with our tag, if there is one. Under the lock, so that
  // cancel() cannot pull the sender's memory away.
  bool take(const Transfer& transfer) {
    Mailbox& box = world_.box(transfer.peer, rank_);
    if (box.count == 0) return false;
    const std::lock_guard lock(box.mutex);
    for (auto it = box.letters.begin(); it != box.letters.end(); ++it) {
      Letter& letter = **it;
      if (letter.tag != tag_) continue;
      if (letter.bytes != transfer.bytes)
        fail(ExitCode::kCommunication,
             "rank {} sent {} bytes, {} were expected: the ranks disagree",
             transfer.peer,
             letter.bytes,
             transfer.bytes);
      std::memcpy(transfer.data, letter.data, static_cast<size_t>(letter.bytes));
      box.letters.erase(it);
      box.count -= 1;
      if (letter.copy) {
        box.posted -= 1;
        delete &letter;
      } else {
        letter.taken = true;
      }
      return true;
    }
    return false;
  }

  ThreadWorld& world_;
  int rank_;
  bool crowded_;
  int tag_ = 0;
  std::span<const Transfer> transfers_;
  size_t n_letters_ = 0;
  std::unique_ptr<Letter[]> letters_;
};

}  // namespace

void run_thread_ranks(int n,
                      const CommOptions& options,
                      const std::function<void(Communicator& world)>& body) {
  GLM_CHECK(n >= 1, "{} ranks", n);
  ThreadWorld shared(n);
  std::vector<std::exception_ptr> errors(static_cast<size_t>(n));
  std::vector<std::exception_ptr> released(static_cast<size_t>(n));
  const auto run_rank = [&](int rank) {
    try {
      const auto world =
          GroupCommunicator::world(std::make_shared<ThreadTransport>(shared, rank), options);
      body(*world);
    } catch (const ReleasedError&) {
      released[static_cast<size_t>(rank)] = std::current_exception();
    } catch (...) {
      errors[static_cast<size_t>(rank)] = std::current_exception();
      shared.set_failed(rank);
    }
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < n; ++rank) threads.emplace_back(run_rank, rank);
  for (std::thread& thread : threads) thread.join();
  for (const auto* list : {&errors, &released})
    for (const std::exception_ptr& error : *list)
      if (error) std::rethrow_exception(error);
}

}  // namespace glm
