// The warp's matrix products on the emulator, by the fragment layouts of the PTX manual
// (mma.m16n8k32, mma.m16n8k16 and ldmatrix). SPDX-License-Identifier: MIT
#include "kernels/cuda/lang.h"

namespace glm::GLM_CUDA_SPACE {
namespace {

template <class C>
MmaOperands<C> operands_of(const emulator::Slot& slot) {
  MmaOperands<C> out;
  std::memcpy(&out, slot.in, sizeof out);
  return out;
}

// Element c[row][column] of the warp to the lanes that own it.
template <class C>
void hand_out(const C (&c)[16][8], emulator::Slot* slots) {
  for (int lane = 0; lane < 32; ++lane) {
    const int row = lane / 4;
    const int column = lane % 4 * 2;
    const C own[4] = {
        c[row][column], c[row][column + 1], c[row + 8][column], c[row + 8][column + 1]};
    std::memcpy(slots[lane].out, own, sizeof own);
  }
}

template <class C>
void collect(const emulator::Slot* slots, C (&c)[16][8]) {
  for (int lane = 0; lane < 32; ++lane) {
    const auto own = operands_of<C>(slots[lane]);
    for (int i = 0; i < 4; ++i) c[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2] = own.c[i];
  }
}

}  // namespace

void join_mma_s8(emulator::Slot* slots) {
  int16_t a[16][32];
  int16_t b[8][32];
  int32_t c[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto own = operands_of<int32_t>(slots[lane]);
    for (int word = 0; word < 4; ++word)
      for (int i = 0; i < 4; ++i)
        a[lane / 4 + word % 2 * 8][lane % 4 * 4 + word / 2 * 16 + i] =
            static_cast<int8_t>(own.a[word] >> (8 * i));
    for (int word = 0; word < 2; ++word)
      for (int i = 0; i < 4; ++i)
        b[lane / 4][lane % 4 * 4 + word * 16 + i] = static_cast<int8_t>(own.b[word] >> (8 * i));
  }
  collect(slots, c);
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      int32_t sum = 0;
      for (int k = 0; k < 32; ++k) sum += a[row][k] * b[column][k];
      c[row][column] += sum;
    }
  }
  hand_out(c, slots);
}

namespace {

// The device adds 16 products and c with more bits than an f32 has and rounds in its own way; here
// it is eight sums in f32 of exact products, which is as far from the true value.
template <class Decode>
void join_mma_halves(emulator::Slot* slots, Decode decode) {
  float a[16][16];
  float b[8][16];
  float c[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto own = operands_of<float>(slots[lane]);
    for (int word = 0; word < 4; ++word)
      for (int i = 0; i < 2; ++i)
        a[lane / 4 + word % 2 * 8][lane % 4 * 2 + word / 2 * 8 + i] =
            decode(static_cast<uint16_t>(own.a[word] >> (16 * i)));
    for (int word = 0; word < 2; ++word)
      for (int i = 0; i < 2; ++i)
        b[lane / 4][lane % 4 * 2 + word * 8 + i] =
            decode(static_cast<uint16_t>(own.b[word] >> (16 * i)));
  }
  collect(slots, c);
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      float sums[8] = {};
      for (int k = 0; k < 16; ++k) sums[k % 8] += a[row][k] * b[column][k];
      for (int step = 4; step > 0; step /= 2)
        for (int k = 0; k < step; ++k) sums[k] += sums[k + step];
      c[row][column] += sums[0];
    }
  }
  hand_out(c, slots);
}

}  // namespace

void join_mma_bf16(emulator::Slot* slots) { join_mma_halves(slots, bf16_to_f32); }
void join_mma_f16(emulator::Slot* slots) { join_mma_halves(slots, f16_to_f32); }

// Row r of matrix i is where lane 8 i + r points.
void join_turned_matrices(emulator::Slot* slots) {
  const uint16_t* rows[32];
  for (int lane = 0; lane < 32; ++lane) std::memcpy(&rows[lane], slots[lane].in, sizeof rows[lane]);
  for (int lane = 0; lane < 32; ++lane) {
    uint32_t words[4];
    for (int i = 0; i < 4; ++i) {
      const uint32_t low = rows[8 * i + lane % 4 * 2][lane / 4];
      const uint32_t high = rows[8 * i + lane % 4 * 2 + 1][lane / 4];
      words[i] = low | high << 16;
    }
    std::memcpy(slots[lane].out, words, sizeof words);
  }
}

}  // namespace glm::GLM_CUDA_SPACE
