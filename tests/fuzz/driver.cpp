// The main() of a fuzz target without libFuzzer: replays a corpus, then mutates it for a while. The
// same seed gives the same inputs. Usage: TARGET CORPUS DICTIONARY SECONDS; docs/fuzzing.md tells
// the environment variables. SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include <sys/resource.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

extern "C" void __sanitizer_set_death_callback(void (*callback)()) __attribute__((weak));

namespace glm::fuzz {
namespace {

constexpr unsigned kSecondsPerInput = 30;
constexpr long kMaxGrowthKib = 1 << 20;  // of the process, quarantines of sanitizers included

// The input that is being tried, for the signal handlers: they cannot be given anything.
const std::string* current = nullptr;
std::string crash_path;

void keep_input() {
  if (current == nullptr) return;
  std::FILE* file = std::fopen(crash_path.c_str(), "wb");
  if (file == nullptr) return;
  std::fwrite(current->data(), 1, current->size(), file);
  std::fclose(file);
  std::fprintf(stderr, "the input is kept in %s\n", crash_path.c_str());
  current = nullptr;
}

extern "C" void on_signal(int signal) {
  keep_input();
  if (signal == SIGALRM) std::fprintf(stderr, "the input took %u seconds\n", kSecondsPerInput);
  std::signal(SIGABRT, SIG_DFL);
  std::abort();
}

long resident_kib() {
  struct rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

void try_input(const std::string& input) {
  current = &input;
  ::alarm(kSecondsPerInput);
  // A copy of exactly its size, so that a byte too far is seen.
  std::vector<uint8_t> bytes(input.begin(), input.end());
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  ::alarm(0);
  current = nullptr;
}

std::string file_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> read_corpus(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) paths.push_back(entry);
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> out;
  for (const auto& path : paths) out.push_back(file_bytes(path));
  return out;
}

// Lines of the form "text" with \\, \" and \xHH, as libFuzzer reads them.
std::vector<std::string> read_dictionary(const std::string& path) {
  std::vector<std::string> out;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.size() < 2 || line.front() != '"' || line.back() != '"') continue;
    std::string word;
    for (size_t i = 1; i + 1 < line.size(); ++i) {
      if (line[i] == '\\' && line[i + 1] == 'x') {
        word += static_cast<char>(std::stoi(line.substr(i + 2, 2), nullptr, 16));
        i += 3;
      } else {
        i += line[i] == '\\';
        word += line[i];
      }
    }
    out.push_back(word);
  }
  return out;
}

class Mutator {
 public:
  Mutator(const std::vector<std::string>& corpus, std::vector<std::string> words, uint64_t seed)
      : corpus_(corpus), words_(std::move(words)), rng_(seed) {
    for (const char* word :
         {"0", "-1", "1e9", "4294967296", "9223372036854775807", "NaN", "\"", "{"})
      words_.emplace_back(word);
    for (const uint64_t value : {uint64_t{0}, uint64_t{1} << 31, uint64_t{1} << 32, ~uint64_t{0}})
      for (const size_t bytes : {1, 2, 4, 8})
        words_.emplace_back(reinterpret_cast<const char*>(&value), bytes);
    for (const std::string& input : corpus_) longest_ = std::max(longest_, 2 * input.size() + 4096);
  }

  std::string next() {
    std::string input = corpus_[below(corpus_.size())];
    for (uint64_t change = 0, last = below(8); change <= last; ++change) mutate(input);
    if (input.size() > longest_) input.resize(longest_);
    return input;
  }

 private:
  size_t below(size_t limit) { return limit == 0 ? 0 : static_cast<size_t>(rng_() % limit); }

  // A piece of `from`: mostly short.
  std::string piece(const std::string& from) {
    const size_t at = below(from.size());
    const size_t most = below(4) == 0 ? from.size() : 16;
    return from.substr(at, 1 + below(most));
  }

  void overwrite(std::string& input, size_t at, const std::string& with) {
    input.replace(at, std::min(with.size(), input.size() - at), with);
  }

  void mutate(std::string& input) {
    const size_t at = below(input.size() + 1);
    switch (below(9)) {
      case 0:
        if (at < input.size()) input[at] = static_cast<char>(input[at] ^ (1u << below(8)));
        break;
      case 1:
        if (at < input.size()) input[at] = static_cast<char>(below(256));
        break;
      case 2:
        input.erase(at, 1 + below(below(4) == 0 ? 256 : 4));
        break;
      case 3:
        input.insert(at, 1 + below(4), static_cast<char>(below(256)));
        break;
      case 4:
        input.insert(at, words_[below(words_.size())]);
        break;
      case 5:
        overwrite(input, at, words_[below(words_.size())]);
        break;
      case 6:
        input.insert(at, piece(corpus_[below(corpus_.size())]));
        break;
      case 7:
        overwrite(input, at, piece(corpus_[below(corpus_.size())]));
        break;
      default:
        input.insert(at, piece(input));
    }
  }

  const std::vector<std::string>& corpus_;
  std::vector<std::string> words_;
  std::mt19937_64 rng_;
  size_t longest_ = 4096;
};

// The value of an environment variable, or `fallback`.
uint64_t setting(const char* name, uint64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtoull(text, nullptr, 10);
}

int run(const std::string& program,
        const std::string& corpus_path,
        const std::string& words,
        uint64_t seconds) {
  crash_path = fmt::format("{}-crash-{}", program, ::getpid());
  for (const int signal : {SIGABRT, SIGALRM, SIGSEGV, SIGBUS, SIGFPE, SIGILL})
    std::signal(signal, on_signal);
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(keep_input);
  const std::vector<std::string> corpus = read_corpus(corpus_path);
  require(!corpus.empty(), "a corpus");
  for (const std::string& input : corpus) try_input(input);
  const long start_kib = resident_kib();
  const uint64_t runs = setting("GLM_FUZZ_RUNS", ~uint64_t{0});
  const auto budget = std::chrono::seconds(setting("GLM_FUZZ_SECONDS", seconds));
  const auto start = std::chrono::steady_clock::now();
  Mutator mutator(corpus, read_dictionary(words), setting("GLM_FUZZ_SEED", 1));
  uint64_t tried = 0;
  for (; tried < runs && std::chrono::steady_clock::now() - start < budget; ++tried) {
    const std::string input = mutator.next();
    try_input(input);
    if (resident_kib() - start_kib < kMaxGrowthKib) continue;
    current = &input;
    require(false, "memory that does not grow by a gigabyte");
  }
  fmt::print("{}: {} inputs of the corpus, {} mutated ones\n", program, corpus.size(), tried);
  return 0;
}

}  // namespace
}  // namespace glm::fuzz

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: %s CORPUS DICTIONARY SECONDS\n", argv[0]);
    return 2;
  }
  return glm::fuzz::run(argv[0], argv[1], argv[2], std::strtoull(argv[3], nullptr, 10));
}
