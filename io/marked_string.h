// A string whose bytes remember who wrote them (text.h). What template operations produce keeps the
// marks of what it was made of. SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/text.h"

namespace glm {

class MarkedString {
 public:
  MarkedString() = default;
  MarkedString(std::string_view text, Origin origin) { append(text, origin); }

  const std::string& text() const { return text_; }
  size_t size() const { return text_.size(); }
  bool empty() const { return text_.empty(); }

  void append(std::string_view text, Origin origin);
  void append(const MarkedString& other);
  void append(const MarkedString& other, size_t begin, size_t end);
  MarkedString slice(size_t begin, size_t end) const;
  // Of the byte at `at`; kTemplate at and behind the end.
  Origin origin_at(size_t at) const;
  Text runs() const;

 private:
  struct Mark {
    size_t end;
    Origin origin;
  };
  std::string text_;
  std::vector<Mark> marks_;  // ends ascend; neighbours differ in origin
};

}  // namespace glm
