// The few HDF5 calls that reader and writer of the model file share. SPDX-License-Identifier: MIT
#include "io/hdf5_file.h"

#include <array>

namespace glm {
namespace {

constexpr size_t kMaxAttributeText = 1024;

// The innermost entry of the error stack comes first on an upward walk.
herr_t keep_first(unsigned n, const H5E_error2_t* entry, void* text) {
  if (n == 0 && entry->desc != nullptr) *static_cast<std::string*>(text) = entry->desc;
  return 0;
}

Hdf5Handle text_type(const Hdf5Calls& calls, size_t bytes) {
  Hdf5Handle type = calls.handle(H5Tcopy(H5T_C_S1), H5Tclose, "text type");
  calls.check(H5Tset_size(type, bytes), "text type");
  calls.check(H5Tset_strpad(type, H5T_STR_NULLPAD), "text type");
  calls.check(H5Tset_cset(type, H5T_CSET_UTF8), "text type");
  return type;
}

void write_attribute(const Hdf5Calls& calls,
                     hid_t object,
                     const char* name,
                     hid_t type,
                     std::span<const hsize_t> dims,
                     const void* data) {
  const Hdf5Handle space = calls.handle(
      dims.empty() ? H5Screate(H5S_SCALAR)
                   : H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr),
      H5Sclose,
      name);
  const Hdf5Handle attribute =
      calls.handle(H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose, name);
  calls.check(H5Awrite(attribute, type, data), name);
}

Hdf5Handle open_attribute(const Hdf5Calls& calls, hid_t object, const char* name) {
  if (calls.check(H5Aexists(object, name), name) == 0)
    calls.reject("the attribute {} is missing; not a model file, or not a whole one", name);
  Hdf5Handle attribute = calls.handle(H5Aopen(object, name, H5P_DEFAULT), H5Aclose, name);
  const Hdf5Handle space = calls.handle(H5Aget_space(attribute), H5Sclose, name);
  if (H5Sget_simple_extent_type(space) != H5S_SCALAR)
    calls.reject("the attribute {} is not one value", name);
  return attribute;
}

}  // namespace

Hdf5Calls::Hdf5Calls(std::string path, ExitCode code) : path_(std::move(path)), code_(code) {
  // A damaged file can leave the library unable to end itself, which it then says on stderr when
  // the program exits. All that we open we close. Refused when the library already runs: no matter.
  static_cast<void>(H5dont_atexit());
  check(H5open(), "HDF5 library");
  check(H5Eget_auto2(H5E_DEFAULT, &print_, &print_data_), "HDF5 library");
  check(H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr), "HDF5 library");
  check(H5PLset_loading_state(0), "HDF5 library");
}

Hdf5Calls::~Hdf5Calls() { H5Eset_auto2(H5E_DEFAULT, print_, print_data_); }

Hdf5Handle Hdf5Calls::handle(hid_t id, Hdf5Handle::Close closer, std::string_view what) const {
  if (id < 0) failed(what);
  return {id, closer};
}

void Hdf5Calls::failed(std::string_view what) const {
  std::string reason = "no reason given";
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, &reason);
  fail(code_, "{}: {}: HDF5: {}", escaped(path_), escaped(what), escaped(reason));
}

Hdf5Handle hdf5_access(const Hdf5Calls& calls) {
  Hdf5Handle access = calls.handle(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "file access");
  calls.check(H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110), "file access");
  calls.check(H5Pset_file_locking(access, false, true), "file access");
  return access;
}

Hdf5Handle hdf5_type(const Hdf5Calls& calls, Element element) {
  const auto copy = [&calls](hid_t type) {
    return calls.handle(H5Tcopy(type), H5Tclose, "element type");
  };
  switch (element) {
    case Element::kF32:
      return copy(H5T_IEEE_F32LE);
    case Element::kI32:
      return copy(H5T_STD_I32LE);
    case Element::kU32:
      return copy(H5T_STD_U32LE);
    case Element::kU16:
      return copy(H5T_STD_U16LE);
    case Element::kU8:
      return copy(H5T_STD_U8LE);
    case Element::kI8:
      return copy(H5T_STD_I8LE);
    case Element::kF16:
      break;
  }
  // IEEE binary16: sign at bit 15, 5 bits of exponent from bit 10, 10 bits of fraction.
  Hdf5Handle type = copy(H5T_IEEE_F32LE);
  calls.check(H5Tset_fields(type, 15, 10, 5, 0, 10), "f16 type");
  calls.check(H5Tset_size(type, 2), "f16 type");
  calls.check(H5Tset_ebias(type, 15), "f16 type");
  return type;
}

void write_text_attribute(const Hdf5Calls& calls,
                          hid_t object,
                          const char* name,
                          std::string_view value) {
  if (value.size() > kMaxAttributeText || value.find('\0') != value.npos)
    calls.reject("the attribute {} cannot hold {} bytes of text", name, value.size());
  const Hdf5Handle type = text_type(calls, std::max<size_t>(value.size(), 1));
  const std::string padded(value.empty() ? std::string(1, '\0') : std::string(value));
  write_attribute(calls, object, name, type, {}, padded.data());
}

void create_u32_attribute(const Hdf5Calls& calls, hid_t object, const char* name, uint32_t value) {
  write_attribute(calls, object, name, H5T_STD_U32LE, {}, &value);
}

void overwrite_u32_attribute(const Hdf5Calls& calls,
                             hid_t object,
                             const char* name,
                             uint32_t value) {
  const Hdf5Handle attribute = open_attribute(calls, object, name);
  calls.check(H5Awrite(attribute, H5T_STD_U32LE, &value), name);
}

void write_sizes_attribute(const Hdf5Calls& calls,
                           hid_t object,
                           const char* name,
                           std::span<const int64_t> values) {
  const std::array<hsize_t, 1> dims = {values.size()};
  write_attribute(calls, object, name, H5T_STD_I64LE, dims, values.data());
}

std::string read_text_attribute(const Hdf5Calls& calls, hid_t object, const char* name) {
  const Hdf5Handle attribute = open_attribute(calls, object, name);
  const Hdf5Handle type = calls.handle(H5Aget_type(attribute), H5Tclose, name);
  const size_t bytes = H5Tget_size(type);
  if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0 || bytes == 0 ||
      bytes > kMaxAttributeText)
    calls.reject(
        "the attribute {} is not text of a fixed length up to {}", name, kMaxAttributeText);
  std::string value(bytes, '\0');
  calls.check(H5Aread(attribute, type, value.data()), name);
  value.resize(value.find_last_not_of('\0') + 1);
  return value;
}

uint32_t read_u32_attribute(const Hdf5Calls& calls, hid_t object, const char* name) {
  const Hdf5Handle attribute = open_attribute(calls, object, name);
  const Hdf5Handle type = calls.handle(H5Aget_type(attribute), H5Tclose, name);
  if (calls.check(H5Tequal(type, H5T_STD_U32LE), name) == 0)
    calls.reject("the attribute {} is not an unsigned integer of 32 bits", name);
  uint32_t value = 0;
  calls.check(H5Aread(attribute, H5T_STD_U32LE, &value), name);
  return value;
}

}  // namespace glm
