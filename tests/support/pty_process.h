// A program on a terminal of its own (a pty), for tests that type. SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <sys/types.h>
#include <termios.h>

namespace glm::testing_support {

class PtyProcess {
 public:
  explicit PtyProcess(const std::vector<std::string>& argv,
                      const std::vector<std::pair<std::string, std::string>>& env = {});
  // Kills what still runs.
  ~PtyProcess();
  PtyProcess(const PtyProcess&) = delete;
  PtyProcess& operator=(const PtyProcess&) = delete;

  void type(const std::string& keys);
  // Until `text` appears behind what earlier calls have waited for.
  bool wait_for(const std::string& text, double seconds = 60);
  // Until the program ends; its exit code, -1 when a signal or the time ended it.
  int finish(double seconds = 60);
  // Everything that was shown so far.
  const std::string& shown() const { return shown_; }
  pid_t pid() const { return pid_; }
  termios modes() const;

 private:
  bool read_some(double seconds);

  pid_t pid_ = -1;
  int master_ = -1;
  int slave_ = -1;  // kept open, so that the modes outlive the program
  int status_ = 0;
  bool ended_ = false;
  std::string shown_;
  size_t seen_ = 0;
};

}  // namespace glm::testing_support
