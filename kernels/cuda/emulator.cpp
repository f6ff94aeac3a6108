// Fibers for the threads of a block: x86-64 only, one stack each, switched by hand because a system
// call per switch would take longer than the kernels. SPDX-License-Identifier: MIT
#include "kernels/cuda/emulator.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "core/base/check.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Saves the callee's registers on the stack, stores the stack pointer to *save and continues on the
// stack `load`, which was left the same way.
extern "C" void glm_emulator_switch(void** save, void* load);
asm(R"(
.text
.globl glm_emulator_switch
.type glm_emulator_switch, @function
glm_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size glm_emulator_switch, .-glm_emulator_switch
)");

namespace glm::emulator {
namespace {

constexpr size_t kStackBytes = 128 << 10;
constexpr unsigned kLanes = 32;
constexpr unsigned kMaxThreads = 1024;

// Nobody passes generation g before all have arrived.
struct Barrier {
  unsigned expected = 0;
  unsigned arrived = 0;
  uint64_t generation = 0;
};

struct Warp {
  Barrier barrier;
  Slot slots[2][kLanes];  // in turns: a lane may be one exchange ahead of its slowest neighbour
};

struct LateCopy {
  void* to;
  const void* from;
  size_t bytes;

  void run() const {
    if (from == nullptr)
      std::memset(to, 0, bytes);
    else
      std::memcpy(to, from, bytes);
  }
};

struct Fiber {
  void* stack_pointer = nullptr;
  void* asan_stack = nullptr;
  Index index;
  unsigned number = 0;
  bool done = false;
  const Barrier* awaited = nullptr;
  uint64_t generation = 0;  // it waits for the end of
  std::vector<LateCopy> copies;
  std::deque<std::vector<LateCopy>> closed_copies;
};

class Machine {
 public:
  void run_block(const char* name, bool backwards);
  void wait(Barrier& barrier);

  Index thread, block, block_dim, grid_dim;
  std::unique_ptr<unsigned char[]> shared;
  std::vector<Warp> warps;
  std::vector<Fiber> fibers;
  Barrier block_barrier;
  Fiber* current = nullptr;
  bool copies_at_once = false;
  const std::function<void()>* body = nullptr;
  const void* scheduler_bottom = nullptr;  // its stack, for AddressSanitizer
  size_t scheduler_size = 0;

  void leave(bool for_ever);

 private:
  unsigned run_warp(unsigned warp, bool backwards);
  void enter(Fiber& fiber);
  void prepare(Fiber& fiber, unsigned number);

  std::unique_ptr<unsigned char[]> stacks_;
  void* scheduler_ = nullptr;
  void* asan_scheduler_ = nullptr;
};

// The kernels' threadIdx and barriers have no argument to hang this on.
Machine& machine() {
  static thread_local Machine instance;
  return instance;
}

void fiber_main() {
  Machine& m = machine();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &m.scheduler_bottom, &m.scheduler_size);
#endif
  (*m.body)();
  m.current->done = true;
  m.leave(true);
}

void Machine::prepare(Fiber& fiber, unsigned number) {
  if (!stacks_) stacks_.reset(new unsigned char[kMaxThreads * kStackBytes]);
  fiber = Fiber{};
  fiber.number = number;
  fiber.index = {number % block_dim.x,
                 number / block_dim.x % block_dim.y,
                 number / (block_dim.x * block_dim.y)};
  unsigned char* bottom = stacks_.get() + number * kStackBytes;
  auto top = reinterpret_cast<uintptr_t>(bottom + kStackBytes) & ~uintptr_t{15};
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(bottom + kStackBytes - 1024, 1024);  // of the fiber before
#endif
  auto* words = reinterpret_cast<uintptr_t*>(top);
  std::fill(words - 8, words, 0);
  words[-2] = reinterpret_cast<uintptr_t>(&fiber_main);  // where the first switch returns to
  fiber.stack_pointer = words - 8;
}

void Machine::enter(Fiber& fiber) {
  current = &fiber;
  thread = fiber.index;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(
      &asan_scheduler_, stacks_.get() + fiber.number * kStackBytes, kStackBytes);
#endif
  glm_emulator_switch(&scheduler_, fiber.stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(asan_scheduler_, nullptr, nullptr);
#endif
}

// Back to the scheduler.
void Machine::leave([[maybe_unused]] bool for_ever) {
  Fiber& fiber = *current;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(
      for_ever ? nullptr : &fiber.asan_stack, scheduler_bottom, scheduler_size);
#endif
  glm_emulator_switch(&fiber.stack_pointer, scheduler_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fiber.asan_stack, nullptr, nullptr);
#endif
}

void Machine::wait(Barrier& barrier) {
  if (++barrier.arrived == barrier.expected) {
    barrier.arrived = 0;
    ++barrier.generation;
    return;
  }
  current->awaited = &barrier;
  current->generation = barrier.generation;
  leave(false);
  current->awaited = nullptr;
}

void Machine::run_block(const char* name, bool backwards) {
  const unsigned n = block_dim.x * block_dim.y * block_dim.z;
  fibers.resize(n);
  warps.resize((n + kLanes - 1) / kLanes);
  for (unsigned w = 0; w < warps.size(); ++w) {
    warps[w].barrier = {std::min(kLanes, n - w * kLanes), 0, 0};
    std::memset(warps[w].slots, 0, sizeof warps[w].slots);
  }
  block_barrier = {n, 0, 0};
  for (unsigned i = 0; i < n; ++i) prepare(fibers[i], i);
  for (unsigned left = n; left > 0;) {
    unsigned moved = 0;
    for (unsigned w = 0; w < warps.size(); ++w)
      moved += run_warp(backwards ? static_cast<unsigned>(warps.size()) - 1 - w : w, backwards);
    left = 0;
    for (const Fiber& fiber : fibers) left += fiber.done ? 0 : 1;
    if (left > 0 && moved == 0)
      fail(ExitCode::kRuntime,
           "{}: {} of {} threads of block ({}, {}, {}) wait at a barrier that others never reach",
           name,
           left,
           n,
           block.x,
           block.y,
           block.z);
  }
}

// Runs a warp as far as it gets without the others, so that a missing barrier of the block lets it
// overtake them by as much as is possible. Returns how often a thread ran.
unsigned Machine::run_warp(unsigned warp, bool backwards) {
  const unsigned first = warp * kLanes;
  const unsigned n = warps[warp].barrier.expected;
  unsigned total = 0;
  for (unsigned moved = 1; moved > 0; total += moved) {
    moved = 0;
    for (unsigned i = 0; i < n; ++i) {
      Fiber& fiber = fibers[first + (backwards ? n - 1 - i : i)];
      if (fiber.done || (fiber.awaited && fiber.awaited->generation == fiber.generation)) continue;
      enter(fiber);
      ++moved;
    }
  }
  return total;
}

}  // namespace

void run(const char* name,
         Index grid,
         Index block,
         size_t shared_bytes,
         bool backwards,
         const std::function<void()>& body) {
  Machine& m = machine();
  const unsigned n = block.x * block.y * block.z;
  GLM_CHECK(n > 0 && n <= kMaxThreads, "{}: {} threads in a block", name, n);
  GLM_CHECK(grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.y <= 65535 && grid.z <= 65535,
            "{}: a grid of {} x {} x {}",
            name,
            grid.x,
            grid.y,
            grid.z);
  GLM_CHECK(shared_bytes <= 99 * 1024, "{}: {} bytes of shared memory", name, shared_bytes);
  m.body = &body;
  m.copies_at_once = backwards;
  m.block_dim = block;
  m.grid_dim = grid;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        m.block = {x, y, z};
        m.shared.reset(new unsigned char[std::max<size_t>(shared_bytes, 1)]);
        std::memset(m.shared.get(), 0xFF, shared_bytes);
        m.run_block(name, backwards);
      }
    }
  }
  m.shared.reset();
}

Index thread_index() { return machine().thread; }
Index block_index() { return machine().block; }
Index block_size() { return machine().block_dim; }
Index grid_size() { return machine().grid_dim; }
void* shared_memory() { return machine().shared.get(); }

void sync_block() {
  Machine& m = machine();
  m.wait(m.block_barrier);
}

int lane() { return static_cast<int>(machine().current->number % kLanes); }

const Slot& exchange(const void* value, size_t bytes, void (*join)(Slot* slots)) {
  Machine& m = machine();
  const unsigned number = m.current->number;
  Warp& warp = m.warps[number / kLanes];
  Slot* slots = warp.slots[warp.barrier.generation % 2];
  std::memcpy(slots[number % kLanes].in, value, bytes);
  if (warp.barrier.arrived + 1 == warp.barrier.expected) join(slots);
  m.wait(warp.barrier);
  return slots[number % kLanes];
}

void copy_later(void* to, const void* from, size_t bytes) {
  const LateCopy copy{to, from, bytes};
  Machine& m = machine();
  if (m.copies_at_once)
    copy.run();
  else
    m.current->copies.push_back(copy);
}

void close_copies() {
  Fiber& fiber = *machine().current;
  fiber.closed_copies.push_back(std::move(fiber.copies));
  fiber.copies.clear();
}

void wait_copies(size_t but) {
  auto& closed = machine().current->closed_copies;
  for (; closed.size() > but; closed.pop_front())
    for (const LateCopy& copy : closed.front()) copy.run();
}

}  // namespace glm::emulator
