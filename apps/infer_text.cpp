// SPDX-License-Identifier: MIT
#include "apps/infer_text.h"

#include <algorithm>

#include "core/model/model_source.h"
#include "io/chat_template.h"
#include "io/json.h"

namespace glm {
namespace {

constexpr int64_t kMaxPromptBytes = int64_t{64} << 20;

// "1,2,3" as ids below `vocab`.
std::vector<int32_t> parse_ids(const std::string& text, int64_t vocab) {
  std::vector<int32_t> ids;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string item = text.substr(begin, end - begin);
    const bool digits = !item.empty() && item.size() <= 10 &&
                        item.find_first_not_of("0123456789") == std::string::npos;
    if (!digits)
      fail(ExitCode::kUsage, "--tokens: '{}' is no token id; write them as 1,2,3", escaped(item));
    const int64_t id = std::stoll(item);
    if (id >= vocab)
      fail(ExitCode::kUsage, "--tokens: id {} is outside the vocabulary of {}", id, vocab);
    ids.push_back(static_cast<int32_t>(id));
    begin = end + 1;
  }
  return ids;
}

}  // namespace

TextSide::TextSide(const ModelTexts& texts, const ModelConfig& config, const std::string& source)
    : texts_(texts),
      config_(config),
      source_(source),
      defaults_(parse_generation_config(
          texts.generation_config, source + ": generation_config.json", config)) {
  if (!texts.tokenizer.empty())
    tokenizer_ = std::make_unique<Tokenizer>(texts.tokenizer, source + ": tokenizer.json");
}

bool greedy_by_default(const InferOptions& options, const GenerationDefaults& defaults) {
  if (options.temperature) return *options.temperature == 0;
  return defaults.do_sample == false || defaults.temperature == 0.0f;
}

SamplingParams TextSide::sampling(const InferOptions& options) const {
  SamplingParams params;
  params.temperature = options.temperature.value_or(defaults_.temperature.value_or(1.0f));
  if (greedy_by_default(options, defaults_)) params.temperature = 0;
  params.top_p = options.top_p.value_or(defaults_.top_p.value_or(1.0f));
  params.top_k = options.top_k.value_or(defaults_.top_k.value_or(0));
  params.min_p = options.min_p.value_or(defaults_.min_p.value_or(0.0f));
  params.repetition_penalty =
      options.repetition_penalty.value_or(defaults_.repetition_penalty.value_or(1.0f));
  params.seed = options.seed;
  return params;
}

std::vector<int32_t> TextSide::prompt_ids(const InferOptions& options,
                                          const OrderedJson& tools) const {
  if (options.tokens) return parse_ids(*options.tokens, config_.vocab);
  if (tokenizer_ == nullptr)
    fail(ExitCode::kUsage,
         "{} has no tokenizer: give the prompt as ids with --tokens",
         escaped(source_));
  const std::string prompt =
      options.prompt_file ? read_file(*options.prompt_file, kMaxPromptBytes, ExitCode::kUsage)
                          : *options.prompt;
  std::vector<int32_t> ids =
      options.raw ? raw_ids(prompt)
                  : chat_ids(chat_messages(prompt, options.system), tools, options.thinking);
  if (ids.empty()) fail(ExitCode::kUsage, "the prompt is empty");
  check_vocabulary(ids);
  return ids;
}

std::vector<int32_t> TextSide::text_ids(const std::string& text) const {
  if (tokenizer_ == nullptr)
    fail(ExitCode::kUsage, "{} has no tokenizer, so that no text can be read", escaped(source_));
  std::vector<int32_t> ids = tokenizer_->encode(text, false);
  if (!ids.empty()) check_vocabulary(ids);
  return ids;
}

void TextSide::check_vocabulary(const std::vector<int32_t>& ids) const {
  const int32_t largest = *std::max_element(ids.begin(), ids.end());
  if (largest >= config_.vocab)
    fail(ExitCode::kModelFile,
         "{}: the tokenizer gives id {}, the vocabulary has {} rows",
         escaped(source_),
         largest,
         config_.vocab);
}

std::vector<int32_t> TextSide::prefix_ids() const {
  std::vector<int32_t> prefix = tokenizer_->prefix();
  const auto mask = tokenizer_->token_id("[gMASK]");
  const auto sop = tokenizer_->token_id("<sop>");
  if (prefix.empty() && mask && sop) prefix = {*mask, *sop};
  return prefix;
}

// Text to be continued, behind its prefix unless it brings its own.
std::vector<int32_t> TextSide::raw_ids(const std::string& text) const {
  std::vector<int32_t> ids = tokenizer_->encode(text, true);
  const std::vector<int32_t> prefix = prefix_ids();
  const bool present =
      ids.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), ids.begin());
  if (!present) ids.insert(ids.begin(), prefix.begin(), prefix.end());
  return ids;
}

OrderedJson chat_messages(const std::string& prompt, const std::optional<std::string>& system) {
  OrderedJson messages = OrderedJson::array();
  if (system) messages.push_back({{"role", "system"}, {"content", *system}});
  messages.push_back({{"role", "user"}, {"content", prompt}});
  return messages;
}

std::vector<int32_t> TextSide::chat_ids(const OrderedJson& messages,
                                        const OrderedJson& tools,
                                        std::optional<bool> thinking) const {
  if (tokenizer_ == nullptr)
    fail(ExitCode::kUsage, "{} has no tokenizer: give prompts as ids", escaped(source_));
  if (texts_.chat_template.empty())
    fail(ExitCode::kUsage,
         "{} has no chat template: use --raw to continue a text",
         escaped(source_));
  RenderInput input;
  input.messages = messages;
  input.tools = tools;
  input.enable_thinking = thinking;
  input.special_tokens =
      special_tokens(texts_.tokenizer_config, source_ + ": tokenizer_config.json");
  if (template_ == nullptr)
    template_ =
        std::make_unique<ChatTemplate>(texts_.chat_template, source_ + ": chat_template.jinja");
  return tokenizer_->encode(template_->render(input));
}

AnswerStream::AnswerStream(const Tokenizer* tokenizer, std::vector<std::string> stops)
    : tokenizer_(tokenizer), stops_(std::move(stops)) {}

std::string AnswerStream::push(int32_t token) {
  tokens_.push_back(token);
  if (tokenizer_ == nullptr) return {};
  if (!tokenizer_->is_special(token)) held_ += characters_.push(tokenizer_->token_bytes(token));
  return release(false);
}

std::string AnswerStream::finish() {
  if (stopped_) return {};
  held_ += characters_.finish();
  return release(true);
}

std::string AnswerStream::release(bool all) {
  size_t cut = std::string::npos;
  for (const std::string& stop : stops_) cut = std::min(cut, held_.find(stop));
  stopped_ = cut != std::string::npos;
  size_t keep = 0;  // longest end of held_ that may begin a stop text
  if (!stopped_ && !all)
    for (const std::string& stop : stops_)
      for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n)
        if (held_.ends_with(std::string_view(stop).substr(0, n))) keep = n;
  std::string out = held_.substr(0, stopped_ ? cut : held_.size() - keep);
  held_ = stopped_ ? std::string() : held_.substr(held_.size() - keep);
  text_ += out;
  return out;
}

}  // namespace glm
