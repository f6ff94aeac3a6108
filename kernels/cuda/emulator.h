// Runs the kernels of this folder on the CPU, so that their index arithmetic, synchronisation and
// rounding are tested where there is no GPU. Blocks run one after the other; the threads of a block
// are fibers that change places at barriers only, and a warp runs as far as it gets before the next
// one does. Shared memory is a heap block of exactly the size asked for, filled with NaN, so that
// AddressSanitizer and wrong results show what is out of bounds or never written. Threads that wait
// for each other for ever end with glm::Error.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace glm::emulator {

struct Index {
  unsigned x = 1;
  unsigned y = 1;
  unsigned z = 1;
};

// What a stream is here: takes work and runs it in order, at once or later. Kernels whose stream is
// null run at once.
class Queue {
 public:
  virtual ~Queue() = default;
  // Work that has to wait for another rank throws NotYet, and is called again.
  virtual void enqueue(std::function<void()> work) = 0;
  virtual bool backwards() const { return false; }
  // Works on what is there while the host does something else.
  virtual void flush() {}
};
struct NotYet {};

// Runs `body` once for every thread of every block. With `backwards` the warps of a block and the
// threads of a warp take their turns in descending order: results that differ come from a missing
// barrier.
void run(const char* name,
         Index grid,
         Index block,
         size_t shared_bytes,
         bool backwards,
         const std::function<void()>& body);

// For the thread that runs at the moment.
Index thread_index();
Index block_index();
Index block_size();
Index grid_size();
void* shared_memory();
void sync_block();

// What one lane shows its warp, and what it gets back.
inline constexpr size_t kSlotBytes = 64;
struct alignas(16) Slot {
  unsigned char in[kSlotBytes];
  unsigned char out[kSlotBytes];
};

// All lanes of the warp pass their values; the last one to arrive calls `join` on the 32 slots
// (those of absent lanes are zero); each reads its slot afterwards. Returns this lane's slot.
const Slot& exchange(const void* value, size_t bytes, void (*join)(Slot* slots));
int lane();

// Copies that go on while the thread does: with threads in ascending order done at the last moment,
// when the thread waits for their group, else at the first, so that both a missing wait and a place
// that is still being read show. `from` null: zeros.
void copy_later(void* to, const void* from, size_t bytes);
void close_copies();           // those since the last call are a group
void wait_copies(size_t but);  // for all closed groups but the latest few

}  // namespace glm::emulator
