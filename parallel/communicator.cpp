// Text between ranks, and the group of one. SPDX-License-Identifier: MIT
#include "parallel/communicator.h"

namespace glm {

void broadcast_string(Communicator& group, std::string& text, int root) {
  auto length = static_cast<int64_t>(text.size());
  group.broadcast(host_tensor(&length, DType::kU8, {static_cast<int64_t>(sizeof(length))}), root);
  text.resize(static_cast<size_t>(length));
  if (length > 0) group.broadcast(host_tensor(text.data(), DType::kU8, {length}), root);
}

std::vector<std::string> all_gather_strings(Communicator& group, const std::string& text) {
  const auto size = static_cast<size_t>(group.size());
  auto length = static_cast<int64_t>(text.size());
  std::vector<int64_t> lengths(size);
  const std::vector<int64_t> width(size, sizeof(length));
  group.all_gather(host_tensor(lengths.data(), DType::kU8, {static_cast<int64_t>(size) * 8}),
                   host_tensor(&length, DType::kU8, {8}),
                   width);
  const int64_t total = total_rows(lengths);
  std::string joined(static_cast<size_t>(total), '\0');
  std::string own = text;
  group.all_gather(host_tensor(joined.data(), DType::kU8, {total}),
                   host_tensor(own.data(), DType::kU8, {length}),
                   lengths);
  std::vector<std::string> texts;
  size_t offset = 0;
  for (const int64_t bytes : lengths) {
    texts.push_back(joined.substr(offset, static_cast<size_t>(bytes)));
    offset += static_cast<size_t>(bytes);
  }
  return texts;
}

}  // namespace glm
