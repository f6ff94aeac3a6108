// The first bytes of an HDF5 file, judged before the library sees it. SPDX-License-Identifier: MIT
#include <array>
#include <cstring>
#include <utility>

#include "io/hdf5_walk.h"

namespace glm {

// Version 3 of the superblock (HDF5 file format specification II.A), which the writer's library
// bounds give: signature 8, version 1, size of offsets 1, of lengths 1, flags 1, then base address,
// extension, end of file and root group, 8 bytes each, and a checksum. Returns the address of the
// root group.
uint64_t check_hdf5_superblock(const RawFile& file, std::string_view remedy) {
  const std::string path = escaped(file.path());
  constexpr std::string_view kSignature = "\x89HDF\r\n\x1a\n";
  std::array<char, kHdf5SuperblockBytes> block = {};
  const int64_t got = file.read_some(0, block.data(), block.size());
  if (std::string_view(block.data(), 8) != kSignature)
    fail(ExitCode::kModelFile, "{}: not an HDF5 file: no signature at byte 0", path);
  if (got != static_cast<int64_t>(block.size()))
    fail(ExitCode::kModelFile, "{}: truncated after {} bytes", path, got);
  const auto address = [&block](size_t at) {
    uint64_t value = 0;
    std::memcpy(&value, &block[at], sizeof value);
    return value;
  };
  if (block[8] != 3 || block[9] != 8 || block[10] != 8)
    fail(
        ExitCode::kModelFile,
        "{}: HDF5 superblock version {} with offsets of {} bytes; ours have version 3 and 8 bytes; "
        "{}",
        path,
        static_cast<int>(block[8]),
        static_cast<int>(block[9]),
        remedy);
  if (block[11] != 0)
    fail(ExitCode::kModelFile,
         "{}: still open for writing, or its writer was killed; {}",
         path,
         remedy);
  if (address(12) != 0) fail(ExitCode::kModelFile, "{}: HDF5 user blocks are not accepted", path);
  if (address(20) != ~uint64_t{0})
    fail(ExitCode::kModelFile, "{}: HDF5 superblock extensions are not accepted", path);
  if (std::cmp_not_equal(address(28), file.size()))
    fail(ExitCode::kModelFile,
         "{}: {} bytes where its superblock says {}; the file is truncated or extended",
         path,
         file.size(),
         address(28));
  uint32_t checksum = 0;
  std::memcpy(&checksum, &block[44], sizeof checksum);
  if (checksum != hdf5_checksum({block.data(), 44}))
    fail(ExitCode::kModelFile, "{}: its superblock is damaged", path);
  return address(36);
}

}  // namespace glm
