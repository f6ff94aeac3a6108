// SPDX-License-Identifier: MIT
#include "tests/support/subprocess.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace glm::testing_support {
namespace {

using Clock = std::chrono::steady_clock;
constexpr const char* kMark = "GLM_TEST_RUN";

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string new_mark() {
  static std::atomic<int> count = 0;
  return std::to_string(getpid()) + "." + std::to_string(++count);
}

std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// NAME=value entries as /proc/PID/environ has them, each ended by a zero byte.
bool has_entry(const std::string& environment, const std::string& entry) {
  const std::string whole = std::string(1, '\0') + environment;
  return whole.find(std::string(1, '\0') + entry + std::string(1, '\0')) != std::string::npos;
}

bool is_zombie(const std::filesystem::path& folder) {
  const std::string stat = read_text(folder / "stat");
  const size_t end = stat.rfind(')');
  return end == std::string::npos || stat.compare(end, 3, ") Z") == 0;
}

struct Pipe {
  int read_end = -1, write_end = -1;
  Pipe() {
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe2 failed");
    read_end = ends[0];
    write_end = ends[1];
  }
  ~Pipe() {
    close_end(read_end);
    close_end(write_end);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  static void close_end(int& end) {
    if (end >= 0) ::close(end);
    end = -1;
  }
};

std::vector<std::string> environment_of(const Command& command, const std::string& mark) {
  std::vector<std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const std::string name = text.substr(0, text.find('='));
    const bool changed = std::any_of(
        command.env.begin(), command.env.end(), [&](const auto& e) { return e.first == name; });
    if (!changed && name != kMark) out.push_back(text);
  }
  for (const auto& [name, value] : command.env)
    if (value) out.push_back(name + "=" + *value);
  out.push_back(std::string(kMark) + "=" + mark);
  return out;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (const std::string& text : texts) out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

double seconds_of(const timeval& time) {
  return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
}

void limit(int resource, int64_t bytes) {
  if (bytes <= 0) return;
  const rlimit both = {static_cast<rlim_t>(bytes), static_cast<rlim_t>(bytes)};
  setrlimit(static_cast<__rlimit_resource>(resource), &both);
}

}  // namespace

struct Process::Impl {
  explicit Impl(const Command& wanted) : command(wanted) { std::signal(SIGPIPE, SIG_IGN); }

  void start();
  [[noreturn]] void become(const std::vector<char*>& argv, const std::vector<char*>& env) const;
  void pump(int milliseconds);
  void read_from(int& end, std::string& text);
  void write_input();
  bool idle_input() const { return written >= command.input.size(); }
  bool reap();

  Command command;
  std::string mark = new_mark();
  Pipe in, out, err;
  size_t written = 0;
  pid_t pid = 0;
  bool ended = false;
  int status = 0;
  Clock::time_point begin = Clock::now();
  Outcome outcome;
};

void Process::Impl::start() {
  const std::vector<std::string> entries = environment_of(command, mark);
  const std::vector<char*> argv = pointers(command.argv), env = pointers(entries);
  pid = fork();
  if (pid < 0) throw std::runtime_error("fork failed");
  if (pid == 0) become(argv, env);
  Pipe::close_end(in.read_end);
  Pipe::close_end(out.write_end);
  Pipe::close_end(err.write_end);
  fcntl(in.write_end, F_SETFL, O_NONBLOCK);
}

// In the child, between fork and exec: system calls only.
void Process::Impl::become(const std::vector<char*>& argv, const std::vector<char*>& env) const {
  setpgid(0, 0);
  std::signal(SIGPIPE, SIG_DFL);
  dup2(in.read_end, STDIN_FILENO);
  dup2(err.write_end, STDERR_FILENO);
  int target = out.write_end;
  if (!command.stdout_path.empty())
    target = open(command.stdout_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  dup2(target, STDOUT_FILENO);
  if (command.close_stdin) ::close(STDIN_FILENO);
  if (command.close_stdout) ::close(STDOUT_FILENO);
  limit(RLIMIT_AS, command.address_space);
  if (command.file_size > 0) std::signal(SIGXFSZ, SIG_IGN);
  limit(RLIMIT_FSIZE, command.file_size);
  const bool there = command.folder.empty() || chdir(command.folder.c_str()) == 0;
  if (there) execvpe(argv[0], argv.data(), env.data());
  _exit(127);
}

void Process::Impl::read_from(int& end, std::string& text) {
  std::array<char, 65536> buffer{};
  const ssize_t n = ::read(end, buffer.data(), buffer.size());
  if (n > 0)
    text.append(buffer.data(), static_cast<size_t>(n));
  else if (n == 0 || errno != EINTR)
    Pipe::close_end(end);
}

void Process::Impl::write_input() {
  const ssize_t n =
      ::write(in.write_end, command.input.data() + written, command.input.size() - written);
  if (n > 0) written += static_cast<size_t>(n);
  if (n < 0 && errno != EAGAIN && errno != EINTR) written = command.input.size();
}

// Moves what can be moved, waiting at most so long for it.
void Process::Impl::pump(int milliseconds) {
  if (written >= command.input.size() && !command.late_input.empty()) {
    if (since(begin) >= command.input_pause) {
      command.input = std::exchange(command.late_input, {});
      written = 0;
    }
  } else if (written >= command.input.size()) {
    Pipe::close_end(in.write_end);
  }
  std::array<pollfd, 3> ends = {pollfd{out.read_end, POLLIN, 0},
                                pollfd{err.read_end, POLLIN, 0},
                                pollfd{idle_input() ? -1 : in.write_end, POLLOUT, 0}};
  if (poll(ends.data(), ends.size(), milliseconds) <= 0) return;
  if (ends[0].revents != 0) read_from(out.read_end, outcome.out);
  if (ends[1].revents != 0) read_from(err.read_end, outcome.err);
  if (ends[2].revents != 0) write_input();
}

bool Process::Impl::reap() {
  rusage usage = {};
  if (!ended && wait4(pid, &status, WNOHANG, &usage) == pid) {
    ended = true;
    outcome.seconds = since(begin);
    outcome.cpu_seconds = seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
    outcome.peak_bytes = int64_t{1024} * usage.ru_maxrss;
    if (WIFEXITED(status)) outcome.code = WEXITSTATUS(status);
    if (WIFSIGNALED(status)) outcome.signal = WTERMSIG(status);
  }
  return ended;
}

Process::Process(const Command& command) : impl_(std::make_unique<Impl>(command)) {
  impl_->start();
}

Process::~Process() {
  for (const pid_t pid : pids()) kill(pid, SIGKILL);
  if (!impl_->ended) {
    kill(impl_->pid, SIGKILL);
    waitpid(impl_->pid, &impl_->status, 0);
  }
}

bool Process::wait_for(double seconds) {
  const auto start = Clock::now();
  while (!impl_->reap() && since(start) < seconds) impl_->pump(10);
  return impl_->ended;
}

Outcome Process::finish() {
  if (!wait_for(impl_->command.timeout - since(impl_->begin))) {
    impl_->outcome.timed_out = true;
    for (const pid_t pid : pids()) kill(pid, SIGKILL);
    wait_for(10);
  }
  // What is still in the pipes; a descendant that lives on could hold them open.
  const auto start = Clock::now();
  while ((impl_->out.read_end >= 0 || impl_->err.read_end >= 0) && since(start) < 1)
    impl_->pump(10);
  return impl_->outcome;
}

const std::string& Process::err() const { return impl_->outcome.err; }

std::vector<pid_t> Process::pids() const {
  std::vector<pid_t> out;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string environment = read_text(entry.path() / "environ");
    if (has_entry(environment, std::string(kMark) + "=" + impl_->mark) && !is_zombie(entry.path()))
      out.push_back(static_cast<pid_t>(std::stol(name)));
  }
  return out;
}

pid_t Process::rank_pid(int rank) const {
  for (const pid_t pid : pids()) {
    const std::string environment = read_text("/proc/" + std::to_string(pid) + "/environ");
    if (has_entry(environment, "OMPI_COMM_WORLD_RANK=" + std::to_string(rank))) return pid;
  }
  return 0;
}

Outcome run(const Command& command) {
  Process process(command);
  Outcome outcome = process.finish();
  for (int i = 0; i < 10 && !process.pids().empty(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  if (!process.pids().empty()) {
    outcome.timed_out = true;
    outcome.err += "\nprocesses were left behind\n";
  }
  return outcome;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

}  // namespace glm::testing_support
