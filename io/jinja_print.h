// Values as text: str(), repr() and json.dumps() of Python, with provenance.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "io/jinja_value.h"

namespace glm::jinja {

MarkedString to_text(Context& context, const Value& value);
void append_repr(Context& context, MarkedString& out, const Value& value);
std::string float_repr(double value);

struct JsonStyle {
  bool ensure_ascii = false;
  bool has_indent = false;
  std::string indent;  // of one level
  MarkedString item_separator{", ", Origin::kTemplate};
  MarkedString key_separator{": ", Origin::kTemplate};
  bool sort_keys = false;
};
MarkedString to_json(Context& context, const Value& value, const JsonStyle& style);

}  // namespace glm::jinja
