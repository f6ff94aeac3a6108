// Fuzz target: headers and indexes of safetensors checkpoints. One part is model.safetensors; three
// are the index and the shards a.safetensors and b.safetensors. SPDX-License-Identifier: MIT
#include "io/safetensors.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "tests/fuzz/fuzz.h"

namespace glm {
namespace {

constexpr int64_t kMostElements = 4096;

// A folder of links to files in memory.
class Folder {
 public:
  Folder() : path_(std::filesystem::temp_directory_path() / "glm_fuzz_XXXXXX") {
    std::string name = path_.string();
    fuzz::require(::mkdtemp(name.data()) != nullptr, "a temporary folder");
    path_ = name;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  void link(const char* name, const fuzz::MemoryFile& file) const {
    std::filesystem::create_symlink(file.path(), path_ / name);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Text that begins with a brace gets the right length in front, its header ends at a byte 1; all
// else is the file as it is. So both the length and what follows it are reached.
std::string file_of(std::string_view part) {
  if (!part.starts_with('{')) return std::string(part);
  const size_t end = std::min(part.find('\1'), part.size());
  const uint64_t length = end;
  std::string out(reinterpret_cast<const char*>(&length), sizeof length);
  out += part.substr(0, end);
  if (end < part.size()) out += part.substr(end + 1);
  return out;
}

// What was accepted must be readable, every byte of it.
void read_all(const std::filesystem::path& folder) {
  const Checkpoint checkpoint(folder);
  fuzz::require(checkpoint.fingerprint().size() >= 16, "a fingerprint");
  int64_t bytes = 0;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    fuzz::require(tensor.name == name && tensor.bytes >= 0 && tensor.offset >= 8, "sane tensors");
    bytes += tensor.bytes;
    int64_t count = 1;
    for (const int64_t dim : tensor.shape) count *= dim;
    fuzz::require(count >= 0 && count <= tensor.bytes, "at least one byte for each element");
    if (tensor.dtype != "F32" && tensor.dtype != "BF16" && tensor.dtype != "F16") continue;
    std::vector<float> out(static_cast<size_t>(std::min(count, kMostElements)));
    checkpoint.read_f32(tensor,
                        count - static_cast<int64_t>(out.size()),
                        static_cast<int64_t>(out.size()),
                        out.data());
  }
  fuzz::require(bytes == checkpoint.total_bytes(), "a sum of the tensors' bytes");
}

struct State {
  State() {
    single_folder.link("model.safetensors", single);
    sharded_folder.link("model.safetensors.index.json", index);
    sharded_folder.link("a.safetensors", a);
    sharded_folder.link("b.safetensors", b);
  }
  fuzz::MemoryFile single, index, a, b;
  Folder single_folder, sharded_folder;
};

}  // namespace
}  // namespace glm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const glm::State state;
  const auto parts = glm::fuzz::parts(data, size, 3);
  const bool sharded = !parts[1].empty();
  if (sharded) {
    state.index.set(parts[0]);
    state.a.set(glm::file_of(parts[1]));
    state.b.set(glm::file_of(parts[2]));
  } else {
    state.single.set(glm::file_of(parts[0]));
  }
  glm::fuzz::accepts({glm::ExitCode::kModelFile}, [&] {
    glm::read_all(sharded ? state.sharded_folder.path() : state.single_folder.path());
  });
  return 0;
}
