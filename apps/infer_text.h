// Text in and text out on rank 0: from the options to prompt ids, from sampled ids to a stream of
// whole characters with stop texts held back. SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/infer_options.h"
#include "core/engine/sequence.h"
#include "core/model/config.h"
#include "io/chat_template.h"
#include "io/model_file.h"
#include "io/tokenizer.h"

namespace glm {

// The model's texts made ready. The tokenizer is absent when the model file has none.
class TextSide {
 public:
  TextSide(const ModelTexts& texts, const ModelConfig& config, const std::string& source);

  // Prompt ids of --tokens, --raw or the chat template, which also takes the tools. Throws
  // Error(kUsage) for ids outside the vocabulary, an empty prompt, unreadable prompt files,
  // --prompt without a tokenizer.
  std::vector<int32_t> prompt_ids(const InferOptions& options,
                                  const OrderedJson& tools = nullptr) const;
  // The chat template around messages; tools may be null.
  std::vector<int32_t> chat_ids(const OrderedJson& messages,
                                const OrderedJson& tools,
                                std::optional<bool> thinking) const;
  // Text as it is: control tokens in it are ordinary text. Throws Error(kUsage) without a
  // tokenizer.
  std::vector<int32_t> text_ids(const std::string& text) const;
  // What stands before text that is to be continued: the prefix of the tokenizer, or [gMASK]<sop>
  // where the vocabulary has them.
  std::vector<int32_t> prefix_ids() const;
  const Tokenizer* tokenizer() const { return tokenizer_.get(); }
  // Ids that end an answer.
  const std::vector<int32_t>& stop_ids() const { return defaults_.eos_ids; }
  // The model's generation defaults overridden by the options.
  SamplingParams sampling(const InferOptions& options) const;

 private:
  void check_vocabulary(const std::vector<int32_t>& ids) const;
  std::vector<int32_t> raw_ids(const std::string& text) const;

  const ModelTexts& texts_;
  const ModelConfig& config_;
  std::string source_;
  GenerationDefaults defaults_;
  std::unique_ptr<Tokenizer> tokenizer_;
  mutable std::unique_ptr<ChatTemplate> template_;  // parsed when the first chat needs it
};

// Whether the most likely token is always taken where a request says nothing else: by the options,
// or the model's generation defaults.
bool greedy_by_default(const InferOptions& options, const GenerationDefaults& defaults);

// The conversation of --prompt, --system.
OrderedJson chat_messages(const std::string& prompt, const std::optional<std::string>& system);

// The answer as it grows. Text that may be the beginning of a stop text is held back until it is
// certain.
class AnswerStream {
 public:
  // `tokenizer` may be null: ids are collected only.
  AnswerStream(const Tokenizer* tokenizer, std::vector<std::string> stops);

  // Returns the text that has become certain.
  std::string push(int32_t token);
  // What was held back, at the end of the answer.
  std::string finish();
  // A stop text has appeared: the answer ends before it.
  bool stopped() const { return stopped_; }
  const std::string& text() const { return text_; }  // all that push() and finish() returned
  const std::vector<int32_t>& tokens() const { return tokens_; }

 private:
  std::string release(bool all);

  const Tokenizer* tokenizer_;
  std::vector<std::string> stops_;
  Utf8Stream characters_;
  std::string held_;
  std::string text_;
  std::vector<int32_t> tokens_;
  bool stopped_ = false;
};

}  // namespace glm
