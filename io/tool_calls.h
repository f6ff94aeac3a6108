// Tool calls that a model writes into its answers, parsed into JSON, and the list of tools it was
// offered. Answers are untrusted: what is no whole call stays text. SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"

namespace glm {

struct ToolCall {
  std::string name;
  OrderedJson arguments = OrderedJson::object();
};

// The tools of a file: a list, or an object with such a list under "tools", of
// {"type": "function", "function": {"name": ...}} or of the inner objects alone. Throws
// Error(kUsage) naming `source`.
OrderedJson parse_tools(std::string_view text, const std::string& source);

struct CallsInText {
  std::string text;  // without the calls, trimmed where there were some
  std::vector<ToolCall> calls;
  bool malformed = false;  // something began like a call and is none
};

// Finds, all of them between <tool_call> and </tool_call>:
//   GLM-4.5, 4.6   name, then lines <arg_key>K</arg_key> <arg_value>V</arg_value>
//   GLM-4.7, 5     the same without line breaks
//   Qwen 3         {"name": ..., "arguments": {...}}
//   INTELLECT-3    <function=NAME> <parameter=K> V </parameter> ... </function>
// and of GLM-4-0414, where the whole answer is one call: the name of a tool, a line break, the
// arguments as a JSON object. Values that are no JSON are strings; `tools` says which ones are
// strings in any case. `complete`: the model has ended the answer, so that a closing tag at the
// very end may be missing. Linear in the length of the text.
CallsInText parse_tool_calls(std::string_view text, const OrderedJson& tools, bool complete);

// {"name": ..., "arguments": {...}}
OrderedJson tool_call_json(const ToolCall& call);
// The form in messages: [{"type": "function", "function": {...}}, ...].
OrderedJson tool_calls_json(const std::vector<ToolCall>& calls);

}  // namespace glm
