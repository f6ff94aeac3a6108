// The files of --batch: requests as JSON lines, judged all together before any work, and the
// answers, appended as whole lines. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "apps/infer_options.h"
#include "io/json.h"
#include "io/run_state.h"

namespace glm {

// One line of the input (docs/batching.md).
struct BatchItem {
  std::string id;
  int64_t line = 0;  // counted from 1
  // The command line's options overridden by the line's. One of options.prompt, messages and tokens
  // is the prompt.
  InferOptions options;
  OrderedJson messages, tools;
  std::vector<int32_t> tokens;
};

// Every line of the file. Throws Error(kUsage) that names the file, the first bad line and what is
// wrong with it, and how many others are bad; for files without a line and for those that are too
// large as well.
std::vector<BatchItem> read_batch(const std::string& path, const InferOptions& defaults);

// Every line of a file of JSON lines that is not blank, counted from 1. Throws as read_batch()
// does; an Error(kUsage) of `judge` counts against its line.
void read_json_lines(const std::string& path,
                     const std::function<void(int64_t line, const OrderedJson& json)>& judge);

// Collects what is wrong with lines of a file into one error.
class LineErrors {
 public:
  explicit LineErrors(std::string path) : path_(std::move(path)) {}
  // Runs `judge`; an Error(kUsage) of it counts against the line.
  template <class F>
  void check(int64_t line, const F& judge) {
    try {
      judge();
    } catch (const Error& error) {
      if (error.code() != ExitCode::kUsage) throw;
      add(line, error.what());
    }
  }
  void add(int64_t line, const std::string& text);
  // Throws when there was any.
  void finish() const;

 private:
  std::string path_;
  std::string first_;
  std::vector<int64_t> others_;
};

// The answers' file. Each line is written by one call, so that whoever reads or whatever ends the
// job finds whole lines.
class BatchOutput {
 public:
  // Without `resume` the file must be absent or empty. With it, ids are read from its lines, and an
  // incomplete last line is cut off. `mark`: what the file must begin with. Throws Error(kUsage).
  BatchOutput(const std::string& path,
              const std::string& input,
              bool resume,
              const OutputMark* mark = nullptr);
  ~BatchOutput();
  BatchOutput(const BatchOutput&) = delete;
  BatchOutput& operator=(const BatchOutput&) = delete;

  // Ids that the file had answers for; and in the order of its lines.
  const std::set<std::string>& done() const { return done_; }
  const std::vector<std::string>& lines() const { return lines_; }
  // All of it.
  const OutputMark& mark() const { return mark_; }
  // Appends `line` and its end. Throws Error(kResources) when the disk is full.
  void append(std::string line);
  // Waits until the disk has everything.
  void sync();

 private:
  void read_done(const OutputMark* mark);
  void check(const OutputMark& mark) const;
  void count(std::string_view line);

  std::string path_;
  int file_ = -1;
  OutputMark mark_;
  std::set<std::string> done_;
  std::vector<std::string> lines_;
};

}  // namespace glm
