// Fuzz target: the container of a model file and its index. The first byte of the input chooses:
// 'h' the file as it is, 'r' the file with the checksums of its HDF5 structures made right, which
// whoever forges a file can do as well; 'x' the text of /index, after a byte with the number of
// checksums. SPDX-License-Identifier: MIT
#include "io/model_file.h"

#include "io/model_layout.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/hdf5_repair.h"

namespace glm {
namespace {

constexpr ExitCode kBad = ExitCode::kModelFile;
void judge_file(const fuzz::MemoryFile& file) {
  const ModelIndex index = read_model_index(file.path());
  WeightReader reader(index, true);
  for (const TensorEntry& entry : index.entries) {
    fuzz::require(
        entry.values_offset >= 0 && entry.values_bytes <= index.file_bytes - entry.values_offset,
        "values inside the file");
    std::string out(static_cast<size_t>(entry.values_bytes), '\0');
    const WeightReader::Range range[] = {{0, entry.values_bytes, out.data()}};
    reader.read(entry, WeightReader::Plane::kValues, range);
  }
}

void judge_index(std::string_view text) {
  ModelIndex index;
  index.path = "m.h5";
  index.file_bytes = 1 << 20;
  index.checksums.resize(static_cast<unsigned char>(text[0]));
  parse_index_text(text.substr(1), index);
  fuzz::require(!index_text(index).empty(), "an index that can be written again");
}

}  // namespace
}  // namespace glm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace glm;
  static const fuzz::MemoryFile file;
  if (size < 2) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] == 'x') {
    fuzz::accepts({kBad}, [&] { judge_index(bytes); });
    return 0;
  }
  if (data[0] == 'r') fuzz::repair_hdf5(bytes);
  file.set(bytes);
  fuzz::accepts({kBad}, [&] { judge_file(file); });
  return 0;
}
