// Damage to model files, by the HDF5 library and by bytes, and what a reader must say of it.
// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <hdf5.h>

#include "core/base/check.h"
#include "io/model_file.h"
#include "tests/io/model_file_samples.h"
#include "tests/io/temp_folder.h"

namespace glm {

// The sample without its two large tensors: a few kilobytes.
inline void write_small(const std::filesystem::path& path) {
  auto shapes = sample_shapes();
  shapes.resize(shapes.size() - 2);
  ModelWriter writer(path, "glm4_moe", sample_texts(), "0123456789abcdef", shapes);
  for (const auto& shape : shapes) write_sample_tensor(writer, shape);
  writer.finish();
}

inline Error read_error(const std::filesystem::path& path) {
  try {
    read_model_index(path);
  } catch (const Error& error) {
    return error;
  }
  return {ExitCode::kOk, "accepted"};
}

inline void expect_bad(const std::filesystem::path& path, const std::string& reason) {
  const Error error = read_error(path);
  const std::string message = error.what();
  EXPECT_EQ(error.code(), ExitCode::kModelFile) << message;
  EXPECT_TRUE(message.starts_with(path.string() + ": ")) << message;
  EXPECT_NE(message.find(reason), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

// Changes a file through the library.
inline void edit(const std::filesystem::path& path, const std::function<void(hid_t)>& change) {
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, access);
  ASSERT_GE(file, 0);
  change(file);
  ASSERT_GE(H5Fclose(file), 0);
  H5Pclose(access);
}

inline void put_dataset(hid_t file,
                        const char* name,
                        hid_t type,
                        const std::vector<hsize_t>& dims,
                        hid_t plan = H5P_DEFAULT) {
  const hid_t space = H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr);
  const hid_t data = H5Dcreate2(file, name, type, space, H5P_DEFAULT, plan, H5P_DEFAULT);
  ASSERT_GE(data, 0) << name;
  H5Dclose(data);
  H5Sclose(space);
}

inline void replace_norm(hid_t file, hid_t type, const std::vector<hsize_t>& dims, hid_t plan) {
  H5Ldelete(file, "/weights/norm", H5P_DEFAULT);
  put_dataset(file, "/weights/norm", type, dims, plan);
}

inline void put_attribute(hid_t file, const char* name, hid_t type, const void* value) {
  if (H5Aexists(file, name) > 0) H5Adelete(file, name);
  const hid_t space = H5Screate(H5S_SCALAR);
  const hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  ASSERT_GE(attribute, 0) << name;
  ASSERT_GE(H5Awrite(attribute, type, value), 0);
  H5Aclose(attribute);
  H5Sclose(space);
}

inline void put_text_attribute(hid_t file, const char* name, const std::string& value) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, value.size());
  put_attribute(file, name, type, value.data());
  H5Tclose(type);
}

}  // namespace glm
