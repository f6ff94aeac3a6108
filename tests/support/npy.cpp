// SPDX-License-Identifier: MIT
#include "tests/support/npy.h"

#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace glm::testing_support {

NpyMatrix read_npy(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  if (bytes.size() < 10 || bytes.compare(0, 6, "\x93NUMPY") != 0)
    throw std::runtime_error(path + " is no npy file");
  const size_t header =
      static_cast<unsigned char>(bytes[8]) + 256u * static_cast<unsigned char>(bytes[9]);
  const std::string text = bytes.substr(10, header);
  const size_t shape = text.find("'shape': (");
  long long rows = 0, cols = 0;
  if (text.find("'<f4'") == std::string::npos ||
      text.find("'fortran_order': False") == std::string::npos || shape == std::string::npos ||
      std::sscanf(text.c_str() + shape, "'shape': (%lld, %lld)", &rows, &cols) != 2)
    throw std::runtime_error(path + ": not a matrix of float32: " + text);
  NpyMatrix out;
  out.rows = rows;
  out.cols = cols;
  out.values.resize(static_cast<size_t>(out.rows * out.cols));
  if (bytes.size() != 10 + header + out.values.size() * 4)
    throw std::runtime_error(path + ": wrong size");
  std::memcpy(out.values.data(), bytes.data() + 10 + header, out.values.size() * 4);
  return out;
}

}  // namespace glm::testing_support
