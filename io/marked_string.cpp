// Strings with provenance. SPDX-License-Identifier: MIT
#include "io/marked_string.h"

#include <algorithm>

namespace glm {

void MarkedString::append(std::string_view text, Origin origin) {
  if (text.empty()) return;
  text_ += text;
  if (!marks_.empty() && marks_.back().origin == origin) {
    marks_.back().end = text_.size();
  } else {
    marks_.push_back({text_.size(), origin});
  }
}

void MarkedString::append(const MarkedString& other) { append(other, 0, other.size()); }

void MarkedString::append(const MarkedString& other, size_t begin, size_t end) {
  const auto by_end = [](size_t at, const Mark& mark) { return at < mark.end; };
  auto mark = std::upper_bound(other.marks_.begin(), other.marks_.end(), begin, by_end);
  for (; begin < end; ++mark) {
    const size_t stop = std::min(end, mark->end);
    append(std::string_view(other.text_).substr(begin, stop - begin), mark->origin);
    begin = stop;
  }
}

MarkedString MarkedString::slice(size_t begin, size_t end) const {
  MarkedString out;
  out.append(*this, begin, end);
  return out;
}

Origin MarkedString::origin_at(size_t at) const {
  const auto by_end = [](size_t position, const Mark& mark) { return position < mark.end; };
  const auto mark = std::upper_bound(marks_.begin(), marks_.end(), at, by_end);
  return mark == marks_.end() ? Origin::kTemplate : mark->origin;
}

Text MarkedString::runs() const {
  Text out;
  size_t begin = 0;
  for (const Mark& mark : marks_) {
    out.push_back({text_.substr(begin, mark.end - begin), mark.origin});
    begin = mark.end;
  }
  return out;
}

}  // namespace glm
