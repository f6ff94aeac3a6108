// Object headers of groups and datasets, message by message. SPDX-License-Identifier: MIT
#include "io/hdf5_walk.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>
#include <vector>

namespace glm {
namespace {

constexpr uint64_t kMostBlockBytes = uint64_t{1} << 20;
constexpr size_t kMostObjects = 500'000;
constexpr size_t kMostNameBytes = 1024;
constexpr size_t kMostRank = 32;

enum Message : uint64_t {
  kNil = 0x00,
  kDataspace = 0x01,
  kLinkInfo = 0x02,
  kDatatype = 0x03,
  kFillValue = 0x05,
  kLink = 0x06,
  kExternalFiles = 0x07,
  kLayout = 0x08,
  kGroupInfo = 0x0A,
  kFilters = 0x0B,
  kAttribute = 0x0C,
  kContinuation = 0x10,
  kAttributeInfo = 0x15,
  kReferenceCount = 0x16,
};

enum Class : uint64_t { kInteger = 0, kFloat = 1, kText = 3 };

// Bytes of one element. Only what is decoded without a look elsewhere: integers, floats, and where
// `text` is set text of a fixed length.
uint64_t datatype_bytes(Hdf5Cursor& cursor, bool text) {
  const uint64_t head = cursor.number(1);
  const uint64_t version = head >> 4;
  const uint64_t what = head & 15;
  const uint64_t sign_at = cursor.number(3) >> 8 & 0xFF;
  const uint64_t bytes = cursor.number(4);
  const bool known = what == kInteger || what == kFloat || (what == kText && text);
  if (version < 1 || version > 3 || !known)
    cursor.reject(text ? "it is not text of a fixed length or a number"
                       : "it has another element type than its place demands");
  if (what == kText) {
    if (bytes == 0 || bytes > kMostBlockBytes)
      cursor.reject("it is not text of a fixed length that can be");
    return bytes;
  }
  if (bytes != 1 && bytes != 2 && bytes != 4 && bytes != 8)
    cursor.reject("its element type has an odd size");
  const uint64_t offset = cursor.number(2);
  const uint64_t precision = cursor.number(2);
  bool fits = precision > 0 && offset + precision <= 8 * bytes;
  if (what == kFloat) {
    const uint64_t exponent_at = cursor.number(1);
    const uint64_t exponent = cursor.number(1);
    const uint64_t mantissa_at = cursor.number(1);
    const uint64_t mantissa = cursor.number(1);
    cursor.take(4);
    const uint64_t end = offset + precision;
    fits = fits && sign_at < end && exponent_at + exponent <= end &&
           mantissa_at + mantissa <= end && exponent > 0 && mantissa > 0;
  }
  if (!fits) cursor.reject("its element type has fields outside its bits");
  return bytes;
}

// Number of elements.
uint64_t dataspace_elements(Hdf5Cursor& cursor) {
  cursor.expect(1, 2, "version of a dataspace");
  const uint64_t rank = cursor.number(1);
  const uint64_t flags = cursor.number(1);
  const uint64_t kind = cursor.number(1);
  if (rank > kMostRank || flags > 1 || kind > 2 || (kind != 1 && rank != 0))
    cursor.reject("its dims cannot be");
  uint64_t elements = kind == 2 ? 0 : 1;
  for (uint64_t i = 0; i < rank; ++i) {
    const uint64_t dim = cursor.number(8);
    if (__builtin_mul_overflow(elements, dim, &elements))
      cursor.reject("the product of its dims overflows");
  }
  cursor.take(rank * 8 * flags);
  return elements;
}

class Walk {
 public:
  explicit Walk(const RawFile& file) : file_(file) {}

  void run(uint64_t root) {
    add(root, "/");
    while (!objects_.empty()) {
      const auto [at, name] = std::move(objects_.back());
      objects_.pop_back();
      object(at, name);
    }
  }

 private:
  struct Chunk {
    uint64_t at, bytes;  // of the messages
  };

  void add(uint64_t at, std::string name) {
    if (!file_.first_visit(at)) return;  // hard links may share an object
    if (++n_objects_ > kMostObjects) file_.reject("more than {} objects", kMostObjects);
    objects_.emplace_back(at, std::move(name));
  }

  void object(uint64_t at, const std::string& name) {
    const std::string prefix = file_.block(at, 6);
    const auto flags = static_cast<uint8_t>(prefix[5]);
    if (!prefix.starts_with("OHDR\x02") || (flags & 0xC0) != 0)
      file_.reject("{}: no object header of version 2 at byte {}", name, at);
    const uint64_t fields = 6u + ((flags & 0x20) != 0 ? 16 : 0) + ((flags & 0x10) != 0 ? 4 : 0);
    const uint64_t width = uint64_t{1} << (flags & 3);
    const std::string head = file_.block(at, fields + width);
    uint64_t bytes = 0;
    std::memcpy(&bytes, &head[fields], width);
    if (bytes > kMostBlockBytes)
      file_.reject("{}: its header of {} bytes is too large", name, bytes);
    const bool ordered = (flags & 4) != 0;
    std::vector<std::pair<uint64_t, uint64_t>> more;
    const std::string first = file_.sealed(at, fields + width + bytes, "OHDR");
    messages(std::string_view(first).substr(fields + width), name, ordered, more);
    while (!more.empty()) {
      const auto [place, size] = more.back();
      more.pop_back();
      if (size < 8 || size > kMostBlockBytes)
        file_.reject("{}: a part of its header has {} bytes", name, size);
      file_.claim(place);
      const std::string chunk = file_.sealed(place, size - 4, "OCHK");
      messages(std::string_view(chunk).substr(4), name, ordered, more);
    }
  }

  void messages(std::string_view bytes,
                const std::string& name,
                bool ordered,
                std::vector<std::pair<uint64_t, uint64_t>>& more) {
    Hdf5Cursor cursor(file_, bytes, name);
    const size_t head = ordered ? 6 : 4;
    while (cursor.left() >= head) {
      const uint64_t type = cursor.number(1);
      const uint64_t size = cursor.number(2);
      const uint64_t flags = cursor.number(1);
      cursor.take(head - 4);
      Hdf5Cursor message(file_, cursor.take(size), name);
      if ((flags & 2) != 0) message.reject("shared messages are not accepted");
      if (type == kContinuation) {
        const uint64_t at = message.number(8);
        more.emplace_back(at, message.number(8));
      } else {
        judge(type, message, name);
      }
    }
  }

  void judge(uint64_t type, Hdf5Cursor& message, const std::string& name) {
    switch (type) {
      case kNil:
        return;
      case kDataspace:
        dataspace_elements(message);
        return;
      case kDatatype:
        datatype_bytes(message, false);
        return;
      case kLinkInfo:
        return link_info(message, name);
      case kLink:
        return link(message, name);
      case kFillValue:
        message.expect(1, 3, "version of a fill value");
        if ((message.number(1) & 0x20) != 0) message.reject("it has a fill value");
        return;
      case kLayout: {
        const uint64_t version = message.number(1);
        if ((version != 3 && version != 4) || message.number(1) != 1)
          message.reject("it is not stored as one plain run of bytes");
        message.take(16);
        return;
      }
      case kExternalFiles:
      case kFilters:
        message.reject("it is not stored as one plain run of bytes");
      case kGroupInfo: {
        message.expect(1, 0, "version of a group");
        const uint64_t flags = message.number(1);
        message.take(((flags & 1) != 0 ? 4 : 0) + ((flags & 2) != 0 ? 4 : 0));
        return;
      }
      case kAttribute:
        return attribute(message, name);
      case kAttributeInfo:
        message.expect(1, 0, "version of its attributes");
        message.expect(1, 0, "order of its attributes");
        if (message.number(8) != kHdf5Undefined || message.number(8) != kHdf5Undefined)
          message.reject("attributes in a heap are not accepted");
        return;
      case kReferenceCount:
        message.expect(1, 0, "version of a count of links");
        message.take(4);
        return;
      default:
        message.reject(fmt::format("a message of type {} is not accepted", type));
    }
  }

  void link_info(Hdf5Cursor& message, const std::string& name) {
    message.expect(1, 0, "version of its links");
    message.expect(1, 0, "order of its links");
    const uint64_t heap = message.number(8);
    const uint64_t tree = message.number(8);
    if (heap == kHdf5Undefined && tree == kHdf5Undefined) return;
    walk_dense_links(file_, heap, tree, [&](std::string_view bytes) {
      Hdf5Cursor cursor(file_, bytes, name);
      link(cursor, name);
    });
  }

  void link(Hdf5Cursor& message, const std::string& group) {
    message.expect(1, 1, "version of a link");
    const uint64_t flags = message.number(1);
    if ((flags & ~uint64_t{0x1B}) != 0)
      message.reject("links in the order of creation are not accepted");
    const uint64_t kind = (flags & 8) != 0 ? message.number(1) : 0;
    if ((flags & 0x10) != 0 && message.number(1) > 1)
      message.reject("a link has an unknown character set");
    const uint64_t bytes = message.number(size_t{1} << (flags & 3));
    if (bytes == 0 || bytes > kMostNameBytes)
      message.reject(fmt::format("a link's name has {} bytes", bytes));
    const std::string_view name = message.take(bytes);
    const std::string path =
        fmt::format("{}{}{}", group, group == "/" ? "" : "/", escaped(name, 60));
    if (kind != 0) file_.reject("{} is a soft or external link; these are not accepted", path);
    add(message.number(8), path);
  }

  void attribute(Hdf5Cursor& message, const std::string& name) {
    message.expect(1, 3, "version of an attribute");
    message.expect(1, 0, "sharing of an attribute");
    const uint64_t name_bytes = message.number(2);
    const uint64_t type_bytes = message.number(2);
    const uint64_t space_bytes = message.number(2);
    if (message.number(1) > 1) message.reject("an attribute has an unknown character set");
    const std::string_view title = message.take(name_bytes);
    if (title.empty() || title.find('\0') != title.size() - 1)
      message.reject("an attribute's name does not end");
    const std::string what =
        fmt::format("{}: the attribute {}", name, escaped(title.substr(0, title.size() - 1), 60));
    Hdf5Cursor type(file_, message.take(type_bytes), what);
    Hdf5Cursor space(file_, message.take(space_bytes), what);
    const uint64_t element = datatype_bytes(type, true);
    uint64_t bytes = dataspace_elements(space);
    if (__builtin_mul_overflow(bytes, element, &bytes) || bytes > message.left())
      type.reject("it is longer than its message");
  }

  Hdf5Bytes file_;
  std::vector<std::pair<uint64_t, std::string>> objects_;  // to be walked: address, name
  size_t n_objects_ = 0;
};

}  // namespace

uint32_t hdf5_checksum(std::string_view bytes) {
  const auto start = static_cast<uint32_t>(0xDEADBEEF + bytes.size());
  uint32_t a = start;
  uint32_t b = start;
  uint32_t c = start;
  const auto word = [&](size_t at) {
    uint32_t value = 0;
    if (at < bytes.size())
      std::memcpy(&value, bytes.data() + at, std::min<size_t>(4, bytes.size() - at));
    return value;
  };
  size_t at = 0;
  for (; bytes.size() - at > 12; at += 12) {
    a += word(at);
    b += word(at + 4);
    c += word(at + 8);
    a = (a - c) ^ std::rotl(c, 4), c += b;
    b = (b - a) ^ std::rotl(a, 6), a += c;
    c = (c - b) ^ std::rotl(b, 8), b += a;
    a = (a - c) ^ std::rotl(c, 16), c += b;
    b = (b - a) ^ std::rotl(a, 19), a += c;
    c = (c - b) ^ std::rotl(b, 4), b += a;
  }
  if (at == bytes.size()) return c;
  a += word(at);
  b += word(at + 4);
  c += word(at + 8);
  c = (c ^ b) - std::rotl(b, 14);
  a = (a ^ c) - std::rotl(c, 11);
  b = (b ^ a) - std::rotl(a, 25);
  c = (c ^ b) - std::rotl(b, 16);
  a = (a ^ c) - std::rotl(c, 4);
  b = (b ^ a) - std::rotl(a, 14);
  return (c ^ b) - std::rotl(b, 24);
}

std::string Hdf5Bytes::block(uint64_t at, uint64_t bytes) {
  const auto size = static_cast<uint64_t>(file_.size());
  if (bytes > kMostBlockBytes || at > size || bytes > size - at)
    reject("an HDF5 structure of {} bytes at byte {} does not lie inside the file", bytes, at);
  if (bytes > left_) reject("its HDF5 structures are too large");
  left_ -= bytes;
  std::string out(bytes, '\0');
  file_.read(static_cast<int64_t>(at), out.data(), static_cast<int64_t>(bytes));
  return out;
}

std::string Hdf5Bytes::sealed(uint64_t at, uint64_t bytes, std::string_view signature) {
  std::string out = block(at, bytes + 4);
  uint32_t found = 0;
  std::memcpy(&found, &out[bytes], sizeof found);
  out.resize(bytes);
  if (!out.starts_with(signature) || found != hdf5_checksum(out))
    reject("the HDF5 structure {} at byte {} is damaged", signature, at);
  return out;
}

void Hdf5Bytes::claim(uint64_t at) {
  if (!first_visit(at)) reject("the HDF5 structure at byte {} is part of two others", at);
}

std::string_view Hdf5Cursor::take(uint64_t bytes) {
  if (bytes > left_.size()) reject("an HDF5 structure is shorter than what it holds");
  const std::string_view out = left_.substr(0, bytes);
  left_.remove_prefix(bytes);
  return out;
}

uint64_t Hdf5Cursor::number(size_t bytes) {
  uint64_t value = 0;
  std::memcpy(&value, take(bytes).data(), bytes);
  return value;
}

void Hdf5Cursor::expect(size_t bytes, uint64_t wanted, std::string_view field) {
  if (const uint64_t found = number(bytes); found != wanted)
    reject(fmt::format("{} is {} where {} is expected", field, found, wanted));
}

void Hdf5Cursor::reject(std::string_view reason) const { file_.reject("{}: {}", what_, reason); }

void check_hdf5_structures(const RawFile& file, uint64_t root) { Walk(file).run(root); }

}  // namespace glm
