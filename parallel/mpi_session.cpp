// SPDX-License-Identifier: MIT
#include "parallel/mpi_session.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <limits>
#include <new>
#include <optional>
#include <thread>

#include <mpi.h>
#include <pthread.h>
#include <unistd.h>

#include "core/base/fault.h"
#include "parallel/call_watch.h"
#include "parallel/group_communicator.h"
#include "parallel/mpi_launch.h"
#include "parallel/mpi_node_board.h"
#include "parallel/mpi_transport.h"
#include "parallel/progress.h"

namespace glm {
namespace {

// A rank that does not report waits this long to be ended with the job.
constexpr auto kLongestFarewell = std::chrono::seconds(10);
// Between the reports of neighbouring hosts, and of ranks that can no longer elect one: the first
// one ends the job before the next speaks. Without MPI_Abort the launcher needs longer for it.
constexpr auto kTurnDelay = std::chrono::milliseconds(400);
constexpr auto kLastTurnDelay = std::chrono::seconds(2);
constexpr auto kFirstTurnDelay = std::chrono::seconds(5);
constexpr int kMostTurns = 5;
// A process that has ended may still be seen for a moment. mpirun kills a second after its signal.
constexpr auto kGoneDelay = std::chrono::milliseconds(50);
constexpr int kMostGoneDelays = 16;
// A rank that waits for a stopped one knows more to say than one that does not: it speaks first.
constexpr double kLostGrace = 2.0;
constexpr size_t kLongestLine = 4000;
// Ranks do not start at the same moment, however short their deadlines are.
constexpr double kLeastStartSeconds = 10.0;
// Launchers and batch systems may each hand on the same signal: so soon it is no second one.
constexpr auto kOneRequest = std::chrono::seconds(1);

struct Failure {
  ExitCode code = ExitCode::kRuntime;
  std::string text;
};

Failure describe(const std::exception_ptr& exception) {
  try {
    std::rethrow_exception(exception);
  } catch (const Error& error) {
    return {error.code(), error.what()};
  } catch (const std::bad_alloc&) {
    return {ExitCode::kResources,
            "out of memory; use more ranks, a smaller --context or a smaller dtype"};
  } catch (const std::exception& error) {
    return {ExitCode::kRuntime, error.what()};
  } catch (...) {
    return {ExitCode::kRuntime, "an exception of unknown type"};
  }
}

// One line, one write: lines of several processes do not mix.
void write_error(const std::string& program, const Failure& failure) {
  const char* kind = failure.code == ExitCode::kDrained ? "" : "error: ";
  const std::string line =
      fmt::format("{}: {}{}\n", program, kind, escaped(failure.text, kLongestLine));
  size_t done = 0;
  while (done < line.size()) {
    const ssize_t wrote = write(STDERR_FILENO, line.data() + done, line.size() - done);
    if (wrote <= 0) return;
    done += static_cast<size_t>(wrote);
  }
}

void wait_for_turn(int index, std::chrono::milliseconds delay = kTurnDelay) {
  std::this_thread::sleep_for(std::min(index, kMostTurns) * delay);
}

// Ends the process by a signal, as if nobody had caught it.
[[noreturn]] void end_by_signal(int signal) {
  std::signal(signal, SIG_DFL);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, signal);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  raise(signal);
  _exit(128 + signal);
}

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

}  // namespace

struct MpiSession::Impl {
  std::optional<HeldSignal> held;
  std::string program;
  std::string host = host_name();
  CommOptions options;
  StepContext context;
  bool stops_on_request = false;
  std::atomic<int> stop_signal{0};
  std::chrono::steady_clock::time_point told;  // first
  bool own_mpi = false;                        // initialised here, so finalised here
  MPI_Comm comm = MPI_COMM_NULL;
  MPI_Comm node = MPI_COMM_NULL;
  int rank = 0;
  int size = 1;
  int node_rank = 0;
  int node_size = 1;
  int node_index = 0;
  std::unique_ptr<NodeBoard> board;
  std::shared_ptr<MpiTransport> transport;
  std::unique_ptr<GroupCommunicator> world;

  ~Impl() { close(); }
  void open(int* argc, char*** argv);
  void close();
  int report(const Failure& failure);
  void report_lost();
  void hear(int signal);
  void report_end();
  void report_apart();
  void report_last();
  std::string signed_text(const std::string& text, const std::string& place) const;
};

void MpiSession::Impl::open(int* argc, char*** argv) {
  int provided = 0;
  if (MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS)
    fail(ExitCode::kCommunication, "MPI_Init_thread failed");
  own_mpi = true;
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size");
  // Until all ranks have talked to each other: the world's own calls have a deadline only then.
  std::optional<CallWatch> watch;
  if (size > 1) watch.emplace(options.timeout_seconds, [this] { report_apart(); });
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "MPI_Comm_dup");
  check_mpi(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &node),
            "MPI_Comm_split_type");
  check_mpi(MPI_Comm_rank(node, &node_rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(node, &node_size), "MPI_Comm_size");
  board = std::make_unique<NodeBoard>(node, rank, host);
  transport = std::make_shared<MpiTransport>(comm, *board, ranks_exceed_cores(node_size));
  world = GroupCommunicator::world(transport, options);
  std::vector<std::string> hosts = all_gather_strings(*world, host);
  // Hosts in the order of their first ranks.
  std::vector<std::string> seen;
  for (const std::string& name : hosts)
    if (std::find(seen.begin(), seen.end(), name) == seen.end()) seen.push_back(name);
  node_index = static_cast<int>(std::find(seen.begin(), seen.end(), host) - seen.begin());
  transport->set_hosts(std::move(hosts));
}

void MpiSession::Impl::close() {
  if (!own_mpi) return;
  own_mpi = false;
  std::optional<CallWatch> watch;
  if (size > 1) watch.emplace(options.timeout_seconds, [this] { report_last(); });
  // From here on nobody speaks for a rank that is gone, and SIGTERM ends the process as usual.
  if (board) board->stop();
  held.reset();
  if (board) board->release();
  world.reset();
  transport.reset();
  if (node != MPI_COMM_NULL) MPI_Comm_free(&node);
  if (comm != MPI_COMM_NULL) MPI_Comm_free(&comm);
  MPI_Finalize();
}

// place: as place_text() makes it; left out where the text says it already.
std::string MpiSession::Impl::signed_text(const std::string& text, const std::string& place) const {
  if (size == 1) return text;
  const bool said = text.find(place) != std::string::npos;
  return fmt::format("{} [rank {} of {} on host {}{}]", text, rank, size, host, said ? "" : place);
}

// Alone: says the error and returns the code. Of several ranks one speaks and ends the job; the
// others keep silent until they are ended.
int MpiSession::Impl::report(const Failure& failure) {
  const int code = static_cast<int>(failure.code);
  if (size == 1) {
    write_error(program, failure);
    return code;
  }
  if (board->elect()) {
    wait_for_turn(node_index);
    write_error(program, {failure.code, signed_text(failure.text, place_text(&context))});
    MPI_Abort(MPI_COMM_WORLD, code);
  }
  std::this_thread::sleep_for(kLongestFarewell);
  _exit(code);
}

// On the heartbeat thread, where MPI may not be called: the launcher ends the others when this
// process is gone.
void MpiSession::Impl::report_lost() {
  if (board->elect()) {
    wait_for_turn(node_index);
    write_error(program,
                {ExitCode::kCommunication,
                 signed_text(fmt::format("{} was last in {}; {}",
                                         transport->rank_text(rank),
                                         transport->noted_text(),
                                         board->stalled_text()),
                             {})});
  } else {
    std::this_thread::sleep_for(kLongestFarewell);
  }
  _exit(static_cast<int>(ExitCode::kCommunication));
}

// On the heartbeat thread.
void MpiSession::Impl::hear(int signal) {
  if (!stops_on_request) return report_end();
  const auto now = std::chrono::steady_clock::now();
  if (stop_signal != 0 && now - told >= kOneRequest) end_by_signal(signal);
  if (stop_signal != 0) return;
  told = now;
  stop_signal = signal;
}

// On the heartbeat thread: the launcher ends the job. Of the rank that made it do so nothing will
// be heard; those of its host have seen it and tell. Hosts that miss nobody keep silent.
void MpiSession::Impl::report_end() {
  if (size == 1 || !board->elect()) end_by_signal(SIGTERM);
  std::string gone = board->gone_text();
  for (int i = 0; i < kMostGoneDelays && gone.empty(); ++i) {
    std::this_thread::sleep_for(kGoneDelay);
    gone = board->gone_text();
  }
  if (!gone.empty())
    write_error(program,
                {ExitCode::kRuntime,
                 signed_text(fmt::format("{}; {} was last in {}",
                                         gone,
                                         transport->rank_text(rank),
                                         transport->noted_text()),
                             {})});
  end_by_signal(SIGTERM);
}

// On a thread of open(): there is no board yet, so ranks speak in turn.
void MpiSession::Impl::report_apart() {
  wait_for_turn(rank, kFirstTurnDelay);
  write_error(
      program,
      {ExitCode::kCommunication,
       fmt::format(
           "rank {} of {} on host {} waited {:.3g} s for the others at the start; where hosts "
           "have several networks, name the one to use, as 10.1.0.0/16 or eth0: mpirun "
           "--mca btl_tcp_if_include NETWORK, or OMPI_MCA_btl_tcp_if_include=NETWORK",
           rank,
           size,
           host,
           options.timeout_seconds)});
  _exit(static_cast<int>(ExitCode::kCommunication));
}

// On a thread of close(): all ranks have come to the end, but one does not leave. The board may be
// gone, so ranks speak in turn.
void MpiSession::Impl::report_last() {
  wait_for_turn(rank, kLastTurnDelay);
  write_error(program,
              {ExitCode::kCommunication,
               signed_text(fmt::format("rank {} (host {}) waited {:.3g} s in MPI_Finalize{}; "
                                       "another rank of the job does not leave",
                                       rank,
                                       host,
                                       options.timeout_seconds,
                                       place_text(&context)),
                           {})});
  _exit(static_cast<int>(ExitCode::kCommunication));
}

MpiSession::MpiSession(int* argc,
                       char*** argv,
                       const std::string& program,
                       bool stops_on_request,
                       double start_seconds)
    : impl_(std::make_unique<Impl>()) {
  static constexpr auto kAdvice =
      "this Slurm step has several tasks, but each would be a job of one rank: launch with srun "
      "--mpi=pmix";
  impl_->program = program;
  impl_->options.timeout_seconds = std::max(start_seconds, kLeastStartSeconds);
  if (split_slurm_step() && started_alone()) throw Error(ExitCode::kUsage, kAdvice);
  prepare_environment();
  impl_->stops_on_request = stops_on_request;
  if (stops_on_request || !started_alone()) impl_->held.emplace(stops_on_request);
  impl_->open(argc, argv);
  if (split_slurm_step() && impl_->size == 1) throw Error(ExitCode::kUsage, kAdvice);
}

MpiSession::~MpiSession() = default;

void MpiSession::configure(const CommOptions& options) {
  impl_->options = options;
  impl_->world->set_options(options);
  impl_->board->start_heartbeat(options.timeout_seconds + kLostGrace,
                                {[impl = impl_.get()] { impl->report_lost(); },
                                 [impl = impl_.get()](int signal) { impl->hear(signal); },
                                 [impl = impl_.get()] { impl->report_end(); }});
}

int MpiSession::stop_signal() const { return impl_->stop_signal; }

StepContext& MpiSession::context() { return impl_->context; }

Communicator& MpiSession::world() { return *impl_->world; }
int MpiSession::node_rank() const { return impl_->node_rank; }
int MpiSession::node_size() const { return impl_->node_size; }
std::string MpiSession::host() const { return impl_->host; }

std::string MpiSession::library_version() const {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  check_mpi(MPI_Get_library_version(text.data(), &length), "MPI_Get_library_version");
  const std::string all(text.data(), static_cast<size_t>(length));
  return all.substr(0, all.find(','));
}

int MpiSession::run(const std::function<int()>& body) {
  try {
    int code = 0;
    try {
      code = body();
    } catch (const AgreedError& error) {
      if (impl_->rank == 0) write_error(impl_->program, {error.code(), error.what()});
      code = static_cast<int>(error.code());
    }
    // Nobody enters MPI_Finalize, which has no deadline, before all have come this far. The body's
    // own context and trace may be gone.
    impl_->context = {"exit", impl_->context.step, -1, ""};
    impl_->world->set_options({impl_->options.timeout_seconds, &impl_->context, nullptr});
    impl_->world->barrier();
    fault_point({"leave", impl_->rank});
    return code;
  } catch (...) {
    return impl_->report(describe(std::current_exception()));
  }
}

void MpiSession::on_root(const std::function<void()>& judge) {
  Failure failure{ExitCode::kOk, {}};
  if (impl_->rank == 0) {
    try {
      judge();
    } catch (...) {
      failure = describe(std::current_exception());
    }
  }
  auto code = static_cast<int32_t>(failure.code);
  impl_->world->broadcast(host_tensor(&code, DType::kI32, {1}), 0);
  if (code == 0) return;
  broadcast_string(*impl_->world, failure.text, 0);
  throw AgreedError(static_cast<ExitCode>(code), failure.text);
}

int run_mpi_program(int argc,
                    char** argv,
                    const std::string& program,
                    const std::function<int(MpiSession&)>& body,
                    bool stops_on_request,
                    double start_seconds) {
  try {
    MpiSession session(&argc, &argv, program, stops_on_request, start_seconds);
    return session.run([&] { return body(session); });
  } catch (...) {
    // No session, so no ranks to agree with: of the tasks of a Slurm step the first one speaks.
    const Failure failure = describe(std::current_exception());
    const char* task = std::getenv("SLURM_PROCID");
    if (task == nullptr || std::string(task) == "0") write_error(program, failure);
    return static_cast<int>(failure.code);
  }
}

}  // namespace glm
