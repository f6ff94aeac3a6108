// tokenizer.model of older GLM repositories: lines of a base64 token and its rank. It becomes the
// text of a tokenizer.json, so that nothing else knows of it. SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>

#include "io/json.h"

namespace glm {

// Whether the text begins like such a file; a SentencePiece model, which has the same name, does
// not.
bool is_tiktoken(std::string_view text);

// `added`: the added_tokens_decoder of tokenizer_config.json. Merges are every way to put a token
// together from two others, by rank; the pattern is that of all GLM tokenizers; [gMASK] and <sop>,
// where they exist, go before a raw prompt. Throws Error(kModelFile) naming `source` and line, or
// the entry of `added_source`.
std::string tiktoken_to_json(std::string_view text,
                             const std::string& source,
                             const OrderedJson& added,
                             const std::string& added_source);

}  // namespace glm
