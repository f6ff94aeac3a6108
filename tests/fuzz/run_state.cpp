// Fuzz target: the state of a batch. The first byte of the input chooses: 'h' the file as it is,
// 'r' the file with the checksums of its HDF5 structures made right, 'c' its columns, which a right
// checksum guards else. SPDX-License-Identifier: MIT
#include "io/run_state.h"

#include <algorithm>
#include <cstring>

#include "io/run_state_columns.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/hdf5_repair.h"

namespace glm {
namespace {

// Each column: a byte with the number of its values, then these.
RunStateColumns columns_from(std::string_view bytes) {
  RunStateColumns columns;
  columns.finished = bytes.size() % 2;
  RunStateColumns::each(columns, [&bytes](const char*, const char*, auto& values) {
    if (bytes.empty()) return;
    const size_t wanted = static_cast<unsigned char>(bytes[0]);
    bytes.remove_prefix(1);
    const size_t each = sizeof values[0];
    values.resize(std::min(wanted, bytes.size() / each));
    if (values.empty()) return;
    std::memcpy(values.data(), bytes.data(), values.size() * each);
    bytes.remove_prefix(values.size() * each);
  });
  return columns;
}

// What was taken can be relied on.
void judge_state(const RunState& state) {
  const auto n = static_cast<int64_t>(state.requests.size());
  fuzz::require(state.output.lines >= 0 && state.output.lines <= n, "lines that are answers");
  fuzz::require(state.output.bytes >= 0, "bytes of at least 0");
  for (const RunState::Answer& answer : state.answers)
    fuzz::require(answer.request >= 0 && answer.request < n, "an answer to a request");
  for (const RunState::Sequence& s : state.sequences) {
    fuzz::require(s.request >= 0 && s.request < n, "a sequence of a request");
    fuzz::require(s.guess_tokens.size() == s.guess_probabilities.size(), "one each");
    for (const int32_t id : s.tokens) fuzz::require(id >= 0, "ids of at least 0");
  }
}

}  // namespace
}  // namespace glm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace glm;
  static const fuzz::MemoryFile file;
  if (size < 2) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] == 'c') {
    fuzz::accepts({ExitCode::kModelFile},
                  [&] { judge_state(state_of(columns_from(bytes), "state.h5")); });
    return 0;
  }
  if (data[0] == 'r') fuzz::repair_hdf5(bytes);
  file.set(bytes);
  fuzz::accepts({ExitCode::kModelFile}, [&] { judge_state(read_run_state(file.path())); });
  return 0;
}
