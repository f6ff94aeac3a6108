// The state of a batch that was stopped, or that saves itself now and then (docs/operations.md): an
// HDF5 file that takes the place of the one before it at once. Only what a later run cannot make
// again is kept; caches are not. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace glm {

// A beginning of the answers' file.
struct OutputMark {
  int64_t lines = 0;
  int64_t bytes = 0;
  uint32_t checksum = 0;  // CRC-32C
};

struct RunState {
  // An answer that is complete and waits for those before it.
  struct Answer {
    int64_t request = 0;  // its place among the requests
    std::string line;
  };
  // An answer that is under way. Random numbers are a function of seed and draw, one draw for each
  // token so far: these two are all that their generator has of a state.
  struct Sequence {
    int64_t request = 0;
    uint64_t seed = 0;
    std::vector<int32_t> tokens;        // of the answer
    int32_t draft = -1;                 // the guess of the next one; -1: none
    std::vector<int32_t> guess_tokens;  // the distribution that it was drawn from
    std::vector<double> guess_probabilities;

    int64_t draws() const { return static_cast<int64_t>(tokens.size()); }
  };

  // What must be the same in a run that goes on: text for people, compared as a whole.
  std::string model;
  std::string settings;
  std::vector<uint64_t> requests;  // a fingerprint of each, in order
  bool finished = false;           // every answer is in the output
  OutputMark output;               // what is on the disk
  std::vector<Answer> answers;
  std::vector<Sequence> sequences;
};

// Writes PATH.partial, waits for the disk and renames. Throws Error(kUsage) when the path cannot be
// written, Error(kResources) when the disk is full; the old file is whole in any case.
void write_run_state(const std::filesystem::path& path, const RunState& state);

// Throws Error(kModelFile) for anything but a whole file of write_run_state().
RunState read_run_state(const std::filesystem::path& path);

}  // namespace glm
