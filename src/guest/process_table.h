// All processes started by RPC. run() is the daemon's one loop for them: it reads their output, reaps every child of
// the daemon (as init that is every orphan of the system), kills at deadlines and reports ends. A process has ended,
// for its followers, when it has exited and its output is at an end or has been silent for kLinger (a background child
// may hold it open for ever; what that writes later is read and dropped). An ended process can be connected to for a
// while.
#pragma once

#include <poll.h>

#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "guest/guest_process.h"
#include "guest/spawn.h"

namespace stasis::guest {

class ProcessTable {
 public:
  static constexpr std::chrono::milliseconds kLinger{1000};
  static constexpr size_t kMaxRunning = 256;
  static constexpr size_t kMaxEnded = 32;
  static constexpr uint64_t kMaxEndedBytes = uint64_t{8} << 20;

  // Blocks the signals that run() takes; call it before any thread is started.
  ProcessTable();
  ProcessTable(const ProcessTable&) = delete;
  ProcessTable& operator=(const ProcessTable&) = delete;

  struct Start {
    SpawnRequest spawn;
    nlohmann::json config;
    std::string tag;
    std::optional<std::chrono::milliseconds> timeout;
  };
  // Blocks until the program runs, which a file system that does not answer may put off for ever: meanwhile the process
  // is listed, and can be killed like any other.
  Result<std::shared_ptr<GuestProcess>> start(const Start& request);

  std::shared_ptr<GuestProcess> find(pid_t pid) const;  // running, or ended lately
  std::shared_ptr<GuestProcess> find(const std::string& tag) const;
  std::vector<std::shared_ptr<GuestProcess>> running() const;

  // Runs until SIGTERM, SIGINT or SIGPWR, or stop().
  void run();
  void stop();
  // SIGKILL to every process group started here.
  void kill_all();

 private:
  using Clock = GuestProcess::Clock;
  struct Watch {
    std::shared_ptr<GuestProcess> process;
    int output;
  };

  std::shared_ptr<GuestProcess> prepare(const Start& request, PreparedSpawn& spawn);
  Status add(const std::shared_ptr<GuestProcess>& process);
  Status settle(const std::shared_ptr<GuestProcess>& process, Status started);
  std::shared_ptr<GuestProcess> running_with(pid_t pid) const;  // with mutex_
  Clock::time_point collect(std::vector<pollfd>& entries, std::vector<Watch>& watches);
  void read_output(GuestProcess& process, int output);
  void drain(std::vector<pollfd>& entries, size_t first);
  bool take_signals();
  void reap();
  void enforce_deadlines();
  void finish_exited();
  void finish(const std::shared_ptr<GuestProcess>& process);
  void wake() const;

  mutable std::mutex mutex_;
  // In the order of their starts, with those under way: one that is being started has a pid before it can end.
  std::vector<std::shared_ptr<GuestProcess>> running_;
  std::deque<std::shared_ptr<GuestProcess>> ended_;
  std::vector<UniqueFd> drains_;  // outputs of ended processes that something still holds open
  UniqueFd signals_;
  UniqueFd wake_;
  bool stopping_ = false;
  std::vector<char> buffer_;
};

}  // namespace stasis::guest
