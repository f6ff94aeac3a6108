// SPDX-License-Identifier: MIT
#include "apps/batch_file.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/crc32c.h"

namespace glm {
namespace {

constexpr int64_t kMaxInputBytes = int64_t{1} << 30;
constexpr int64_t kMaxOutputBytes = int64_t{1} << 32;
constexpr int64_t kMaxLines = 1'000'000;
constexpr JsonLimits kLineLimits = {int64_t{16} << 20, 64, 2'000'000};
constexpr size_t kMaxIdBytes = 512;
constexpr size_t kMaxStops = 64;
constexpr size_t kLinesNamed = 8;
constexpr int64_t kLargestCount = int64_t{1} << 31;

// One line's object on its way into an item.
class LineReader {
 public:
  LineReader(const OrderedJson& json, BatchItem& item) : json_(json), item_(item) {}

  void read() {
    if (!json_.is_object()) fail(ExitCode::kUsage, "expected an object, found {}", kind(json_));
    for (const auto& [key, value] : json_.items()) {
      if (value.is_null()) continue;
      read_key(key, value);
    }
    judge();
  }

 private:
  static const char* kind(const OrderedJson& value) { return value.type_name(); }

  [[noreturn]] static void refuse(const std::string& key,
                                  const std::string& expected,
                                  const OrderedJson& value) {
    const std::string shown = value.is_number() ? value.dump() : kind(value);
    fail(ExitCode::kUsage, "{}: expected {}, found {}", escaped(key), expected, shown);
  }

  static std::string text(const std::string& key, const OrderedJson& value) {
    if (!value.is_string()) refuse(key, "a string", value);
    return value.get<std::string>();
  }
  static bool flag(const std::string& key, const OrderedJson& value) {
    if (!value.is_boolean()) refuse(key, "true or false", value);
    return value.get<bool>();
  }
  static int64_t integer(const std::string& key,
                         const OrderedJson& value,
                         int64_t low,
                         int64_t high) {
    const bool fits = value.is_number_integer() &&
                      !(value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX) &&
                      value.get<int64_t>() >= low && value.get<int64_t>() <= high;
    if (!fits) refuse(key, fmt::format("an integer from {} to {}", low, high), value);
    return value.get<int64_t>();
  }
  static float number(const std::string& key, const OrderedJson& value, double high, bool zero) {
    const double x = value.is_number() ? value.get<double>() : std::nan("");
    if (!((zero ? x >= 0 : x > 0) && x <= high))
      refuse(
          key, fmt::format("a number {} 0 and at most {}", zero ? "from" : "above", high), value);
    return static_cast<float>(x);
  }
  static const OrderedJson& list(const std::string& key, const OrderedJson& value) {
    if (!value.is_array()) refuse(key, "a list", value);
    return value;
  }

  void read_key(const std::string& key, const OrderedJson& value) {
    if (!read_prompt(key, value) && !read_sampling(key, value))
      fail(ExitCode::kUsage, "unknown key \"{}\"", escaped(key));
  }

  bool read_prompt(const std::string& key, const OrderedJson& value) {
    InferOptions& o = item_.options;
    if (key == "id") {
      item_.id = text(key, value);
      if (item_.id.empty() || item_.id.size() > kMaxIdBytes)
        fail(ExitCode::kUsage, "id: expected 1 to {} bytes", kMaxIdBytes);
    } else if (key == "prompt") {
      o.prompt = text(key, value);
      ++n_prompts_;
    } else if (key == "messages") {
      item_.messages = list(key, value);
      ++n_prompts_;
      if (value.empty()) fail(ExitCode::kUsage, "messages: the list is empty");
      for (const OrderedJson& message : value)
        if (!message.is_object() || !message.contains("role") || !message["role"].is_string())
          fail(ExitCode::kUsage, "messages: expected objects with a \"role\"");
    } else if (key == "tokens") {
      ++n_prompts_;
      for (const OrderedJson& id : list(key, value))
        item_.tokens.push_back(
            static_cast<int32_t>(integer(key, id, 0, std::numeric_limits<int32_t>::max())));
      if (value.empty()) fail(ExitCode::kUsage, "tokens: the list is empty");
    } else if (key == "system") {
      o.system = text(key, value);
      own_system_ = true;
    } else if (key == "raw") {
      o.raw = flag(key, value);
      own_raw_ = o.raw;
    } else if (key == "tools") {
      item_.tools = list(key, value);
    } else if (key == "thinking") {
      if (value.is_string() && (value == "on" || value == "off"))
        o.thinking = value == "on";
      else if (value.is_boolean())
        o.thinking = value.get<bool>();
      else
        refuse(key, "\"on\", \"off\", true or false", value);
    } else {
      return false;
    }
    return true;
  }

  bool read_sampling(const std::string& key, const OrderedJson& value) {
    InferOptions& o = item_.options;
    if (key == "max_tokens") {
      o.max_tokens = integer(key, value, 1, kLargestCount);
    } else if (key == "temperature") {
      o.temperature = number(key, value, 100, true);
    } else if (key == "top_p") {
      o.top_p = number(key, value, 1, false);
    } else if (key == "top_k") {
      o.top_k = static_cast<int>(integer(key, value, 0, kLargestCount - 1));
    } else if (key == "min_p") {
      o.min_p = number(key, value, 1, true);
    } else if (key == "repetition_penalty") {
      o.repetition_penalty = number(key, value, 100, false);
    } else if (key == "seed") {
      o.seed = static_cast<uint64_t>(integer(key, value, 0, std::numeric_limits<int64_t>::max()));
    } else if (key == "stop") {
      read_stop(value);
    } else {
      return false;
    }
    return true;
  }

  void read_stop(const OrderedJson& value) {
    std::vector<std::string>& stops = item_.options.stop;
    stops.clear();
    if (value.is_string()) {
      stops.push_back(value.get<std::string>());
    } else if (value.is_array() && value.size() <= kMaxStops) {
      for (const OrderedJson& stop : value) stops.push_back(text("stop", stop));
    } else {
      refuse("stop", fmt::format("a string or a list of at most {}", kMaxStops), value);
    }
    for (const std::string& stop : stops)
      if (stop.empty()) fail(ExitCode::kUsage, "stop: expected texts of at least one byte");
  }

  // What belongs together, as on the command line; its --raw and --system are meant for prompts.
  void judge() {
    InferOptions& o = item_.options;
    if (n_prompts_ != 1)
      fail(ExitCode::kUsage,
           "expected one of prompt, messages and tokens, found {}",
           n_prompts_ == 0 ? "none" : "several");
    if (!o.prompt) {
      if (own_raw_ || own_system_) fail(ExitCode::kUsage, "raw and system go with prompt only");
      if (!item_.tokens.empty() && !item_.tools.is_null())
        fail(ExitCode::kUsage, "tools do not go with tokens");
      o.raw = false;
      o.system.reset();
    } else if (o.raw) {
      if (own_system_ || !item_.tools.is_null())
        fail(ExitCode::kUsage, "raw goes neither with system nor with tools");
      o.system.reset();
    }
  }

  const OrderedJson& json_;
  BatchItem& item_;
  int n_prompts_ = 0;
  bool own_system_ = false;
  bool own_raw_ = false;
};

bool blank(std::string_view line) {
  return line.find_first_not_of(" \t\r") == std::string_view::npos;
}

// The reason without the name of the file, which finish() puts before it.
std::string without_source(const std::string& text, const std::string& source) {
  return text.starts_with(source + ": ") ? text.substr(source.size() + 2) : text;
}

}  // namespace

void LineErrors::add(int64_t line, const std::string& text) {
  const std::string source = fmt::format("{}:{}", path_, line);
  if (first_.empty())
    first_ = fmt::format("{}: {}", escaped(source), without_source(text, source));
  else
    others_.push_back(line);
}

void LineErrors::finish() const {
  if (first_.empty()) return;
  if (others_.empty()) fail(ExitCode::kUsage, "{}", first_);
  const std::span named = std::span(others_).first(std::min(others_.size(), kLinesNamed));
  fail(ExitCode::kUsage,
       "{}; {} more bad line{}: {}{}",
       first_,
       others_.size(),
       others_.size() == 1 ? "" : "s",
       fmt::join(named, ", "),
       named.size() < others_.size() ? ", ..." : "");
}

void read_json_lines(const std::string& path,
                     const std::function<void(int64_t line, const OrderedJson& json)>& judge) {
  const std::string text = read_file(path, kMaxInputBytes, ExitCode::kUsage);
  LineErrors errors(path);
  int64_t number = 0;
  bool any = false;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    if (++number > kMaxLines)
      fail(ExitCode::kUsage, "{}: more than {} lines", escaped(path), kMaxLines);
    if (blank(line)) continue;
    any = true;
    errors.check(number, [&] {
      judge(number,
            parse_ordered_json(
                line, fmt::format("{}:{}", path, number), ExitCode::kUsage, kLineLimits));
    });
  }
  errors.finish();
  if (!any) fail(ExitCode::kUsage, "{}: no line with a request", escaped(path));
}

std::vector<BatchItem> read_batch(const std::string& path, const InferOptions& defaults) {
  std::vector<BatchItem> items;
  std::set<std::string> ids;
  read_json_lines(path, [&](int64_t number, const OrderedJson& json) {
    BatchItem item;
    item.line = number;
    item.id = std::to_string(number);
    item.options = defaults;
    LineReader(json, item).read();
    if (!ids.insert(item.id).second)
      fail(ExitCode::kUsage, "the id \"{}\" was used by an earlier line", escaped(item.id));
    items.push_back(std::move(item));
  });
  return items;
}

BatchOutput::BatchOutput(const std::string& path,
                         const std::string& input,
                         bool resume,
                         const OutputMark* mark)
    : path_(path) {
  struct stat info = {};
  if (::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode))
    fail(ExitCode::kUsage, "--output {}: not a regular file", escaped(path));
  file_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (file_ < 0 || ::fstat(file_, &info) != 0)
    fail(ExitCode::kUsage, "--output {}: {}", escaped(path), std::strerror(errno));
  try {
    struct stat of_input = {};
    if (::stat(input.c_str(), &of_input) == 0 && of_input.st_dev == info.st_dev &&
        of_input.st_ino == info.st_ino)
      fail(ExitCode::kUsage, "--output {} is the file of --batch", escaped(path));
    if (::flock(file_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
      fail(ExitCode::kUsage, "--output {}: another job is writing to it", escaped(path));
    if (info.st_size > 0 && !resume)
      fail(ExitCode::kUsage,
           "--output {} has answers already; add --resume to go on with it, or name another file",
           escaped(path));
    if (info.st_size > 0) read_done(mark);
    if (mark != nullptr && mark_.lines < mark->lines) check(*mark);
  } catch (...) {
    ::close(file_);
    throw;
  }
}

void BatchOutput::count(std::string_view line) {
  ++mark_.lines;
  mark_.bytes += static_cast<int64_t>(line.size());
  mark_.checksum = crc32c(mark_.checksum, line.data(), line.size());
}

// That the lines so far are the marked ones.
void BatchOutput::check(const OutputMark& mark) const {
  if (mark_.lines < mark.lines)
    fail(ExitCode::kUsage,
         "--output {}: it has {} answers, the state of the job says {}; put the file back, or take "
         "the state away as well to begin anew",
         escaped(path_),
         mark_.lines,
         mark.lines);
  if (mark_.bytes != mark.bytes || mark_.checksum != mark.checksum)
    fail(ExitCode::kUsage,
         "--output {}: its first {} answers are not those of the job that saved the state; put the "
         "file back, or take the state away as well to begin anew",
         escaped(path_),
         mark.lines);
}

// A job that was killed may have left part of a line at the end.
void BatchOutput::read_done(const OutputMark* mark) {
  const std::string text = read_file(path_, kMaxOutputBytes, ExitCode::kUsage);
  const size_t whole = text.rfind('\n') + 1;  // 0 when there is none
  int64_t number = 0;
  for (size_t begin = 0; begin < whole;) {
    const size_t end = text.find('\n', begin);
    const std::string source = fmt::format("{}:{}", path_, ++number);
    const Json json =
        parse_json(std::string_view(text).substr(begin, end - begin), source, ExitCode::kUsage);
    if (!json.is_object() || !json.contains("id") || !json["id"].is_string() ||
        !json.contains("finish_reason"))
      fail(ExitCode::kUsage, "{}: no answer of an earlier run", escaped(source));
    lines_.push_back(json["id"].get<std::string>());
    done_.insert(lines_.back());
    count(std::string_view(text).substr(begin, end + 1 - begin));
    if (mark != nullptr && mark_.lines == mark->lines) check(*mark);
    begin = end + 1;
  }
  if (whole == text.size()) return;
  if (::ftruncate(file_, static_cast<off_t>(whole)) != 0)
    fail(ExitCode::kUsage, "--output {}: {}", escaped(path_), std::strerror(errno));
}

BatchOutput::~BatchOutput() {
  if (file_ >= 0) ::close(file_);
}

void BatchOutput::append(std::string line) {
  line += '\n';
  ssize_t written = -1;
  do {
    written = ::write(file_, line.data(), line.size());
  } while (written < 0 && errno == EINTR);
  if (written == static_cast<ssize_t>(line.size())) {
    count(line);
    return;
  }
  const int error = written < 0 ? errno : ENOSPC;
  // Best effort: --resume would cut the same bytes off.
  if (written > 0 && ::ftruncate(file_, static_cast<off_t>(mark_.bytes)) != 0) written = 0;
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
  fail(full ? ExitCode::kResources : ExitCode::kRuntime,
       "--output {}: {}; the answers so far are safe, --resume goes on behind them",
       escaped(path_),
       std::strerror(error));
}

void BatchOutput::sync() {
  if (::fdatasync(file_) != 0 && errno != EINVAL)
    fail(ExitCode::kRuntime, "--output {}: {}", escaped(path_), std::strerror(errno));
}

}  // namespace glm
