// Keeps services running: starts them, starts one again when it ends (after a pause that doubles up to ten seconds and
// is forgotten after half a minute of peace), and stops them in reverse order. The process becomes a subreaper: what a
// service leaves behind when it dies, such as the supervisors of a killed agent, is reparented to this process, goes on
// running, and is reaped here when it ends. Services die with the thread that started them, so that they never outlive
// it unseen.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "base/poll.h"
#include "base/process.h"
#include "base/result.h"

namespace stasis::cli {

struct Service {
  std::string name;
  std::vector<std::string> argv;
};

class Keeper {
 public:
  // Blocks SIGCHLD, SIGTERM, SIGINT and SIGHUP in the calling thread: call before any other thread is started.
  static Result<Keeper> create(std::vector<Service> services);

  // Starts every service, in order.
  Status start();
  // Waits for a signal or for the time of a restart, at most until `deadline`, and does what is due. True if a signal
  // asked this process to stop.
  Result<bool> step(Deadline deadline);
  // The pid of a service, -1 while it does not run.
  pid_t pid_of(const std::string& name) const;
  // How a service ended that is not running now; empty if it never ended.
  std::string end_of(const std::string& name) const;
  // From now on `name` is started with these arguments.
  void set_argv(const std::string& name, const std::vector<std::string>& argv);
  // SIGTERM to each, last started first; SIGKILL after `patience`.
  void stop(std::chrono::milliseconds patience);

 private:
  struct Kept {
    Service service;
    std::optional<Process> process;
    std::string ended = {};
    Deadline::Clock::time_point started = {};
    Deadline::Clock::time_point restart_at = {};
    std::chrono::milliseconds backoff = {};
  };

  Keeper(UniqueFd signals, std::vector<Service> services);
  Status start_one(Kept& kept);
  void collect(Kept& kept);
  void restart_what_is_due();
  Deadline until_next_restart(Deadline deadline) const;
  const Kept* find(const std::string& name) const;

  UniqueFd signals_;
  std::vector<Kept> kept_;
};

}  // namespace stasis::cli
