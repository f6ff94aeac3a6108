// Our own reading of HDF5 structures: the checksum, and structures that were changed by somebody
// who made their checksums right again. SPDX-License-Identifier: MIT
#include "io/hdf5_walk.h"

#include <cstring>

#include "tests/io/model_file_edits.h"

namespace glm {
namespace {

TEST(Hdf5Checksum, KnownValues) {
  EXPECT_EQ(hdf5_checksum(""), 0xDEADBEEFu);
  EXPECT_EQ(hdf5_checksum("Four score and seven years ago"), 0x17770551u);
  // As the library writes it, at the end of a superblock.
  const TempFolder folder("hdf5_checksum");
  write_small(folder / "m.h5");
  const std::string bytes = read_bytes(folder / "m.h5");
  uint32_t recorded = 0;
  std::memcpy(&recorded, &bytes[44], sizeof recorded);
  EXPECT_EQ(hdf5_checksum(bytes.substr(0, 44)), recorded);
}

class Hdf5Forgery : public testing::Test {
 protected:
  Hdf5Forgery() {
    write_small(folder_ / "m.h5");
    bytes_ = read_bytes(folder_ / "m.h5");
  }
  size_t find(const std::string& what) const {
    const size_t at = bytes_.find(what);
    EXPECT_NE(at, bytes_.npos) << what;
    return at;
  }
  void put(size_t at, uint64_t value, size_t width) { std::memcpy(&bytes_[at], &value, width); }
  // Changes one number of the structure at `at` and seals it again.
  void expect_refused(size_t at,
                      size_t bytes,
                      size_t field,
                      uint64_t value,
                      size_t width,
                      const std::string& reason) {
    const std::string before = bytes_;
    put(at + field, value, width);
    put(at + bytes, hdf5_checksum(bytes_.substr(at, bytes)), 4);
    write_bytes(folder_ / "m.h5", bytes_);
    expect_bad(folder_ / "m.h5", reason);
    bytes_ = before;
  }

  TempFolder folder_{"hdf5_forgery"};
  std::string bytes_;
};

TEST_F(Hdf5Forgery, Heap) {
  const size_t at = find("FRHP");
  const auto refused = [&](size_t field, uint64_t value, size_t width, const std::string& reason) {
    expect_refused(at, 142, field, value, width, reason);
  };
  refused(4, 1, 1, "version is 1");
  refused(5, 255, 2, "bytes of an id");
  refused(7, 3, 2, "filters");
  refused(22, 48, 8, "huge objects");
  refused(110, 0, 2, "width");
  refused(112, uint64_t{1} << 60, 8, "first block");
  refused(128, 64, 2, "bits of an offset");
  refused(132, at, 8, "part of two others");
  refused(132, bytes_.size(), 8, "inside the file");
  refused(132, 48, 8, "part of two others");
  refused(140, 60000, 2, "rows");
}

TEST_F(Hdf5Forgery, Tree) {
  const size_t at = find("BTHD");
  const auto refused = [&](size_t field, uint64_t value, size_t width, const std::string& reason) {
    expect_refused(at, 34, field, value, width, reason);
  };
  refused(5, 8, 1, "type is 8");
  refused(6, 1 << 30, 4, "bytes of a node");
  refused(10, 0, 2, "bytes of a record");
  refused(12, 60000, 2, "too deep");
  refused(12, 1, 2, "damaged");
  refused(16, at, 8, "part of two others");
  refused(16, ~uint64_t{0} - 1, 8, "inside the file");
  refused(24, 65535, 2, "65535 records");
  refused(24, 1, 2, "damaged");
  refused(26, 3, 8, "another number of records");
}

// The root group's header: its continuation leads back to itself.
TEST_F(Hdf5Forgery, HeaderContinuedByItself) {
  const size_t chunk = find("OCHK");
  std::string address(8, '\0');
  std::memcpy(address.data(), &chunk, 8);
  const size_t message = find(address);
  const size_t header = bytes_.rfind("OHDR", message);
  uint64_t length = 0;
  std::memcpy(&length, &bytes_[message + 8], 8);
  put(message, header, 8);
  write_bytes(folder_ / "m.h5", bytes_);
  expect_bad(folder_ / "m.h5", "OHDR");
}

}  // namespace
}  // namespace glm
