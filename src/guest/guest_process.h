// A process started by an RPC: what it is, what it wrote, and how it ended. Shared by the table, which feeds it, and by
// the streams that follow it. Thread-safe.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "guest/output_log.h"
#include "guest/socket.h"

namespace stasis::guest {

struct ProcessEnd {
  bool exited = false;
  int code = 0;  // exit code if exited, else the signal
  bool core_dumped = false;
  bool timed_out = false;  // killed at its deadline
};

// The "end" event: {"exited":true,"status":"exit status 0"}, {"exitCode":-1,"status":"signal: killed",...}.
nlohmann::json end_event(const ProcessEnd& end);

class GuestProcess {
 public:
  using Clock = std::chrono::steady_clock;

  GuestProcess(nlohmann::json config, std::string tag)
      : config_(std::move(config)), tag_(std::move(tag)), starter_(log_.attach()) {}

  pid_t pid() const { return pid_; }  // 0 until there is a process
  const nlohmann::json& config() const { return config_; }
  const std::string& tag() const { return tag_; }
  bool has_pty() const { return pty_.valid(); }

  // Writes to its stdin or terminal; waits while that is full, until `deadline`, the end of the process, or the loss of
  // `client`. kFailedPrecondition if it has no such input (any more).
  Status send_input(bool to_pty, std::string_view data, Clock::time_point deadline, const Socket& client);
  Status close_stdin();
  Status resize(uint16_t columns, uint16_t rows);
  // To its whole process group; kNotFound if it has ended.
  Status signal(int number);

  std::optional<ProcessEnd> ended() const;

 private:
  friend class ProcessTable;
  friend class Subscription;

  void append(Stream stream, std::string_view data);
  void set_end(const ProcessEnd& end);
  void wake_readers();  // with mutex_ held

  std::atomic<pid_t> pid_ = 0;  // written by the kernel, see spawn_as_user
  const nlohmann::json config_;
  const std::string tag_;

  mutable std::mutex mutex_;
  OutputLog log_;
  // The place of the stream that started it, kept from the first byte on; 0 once that stream has taken it.
  OutputLog::ReaderId starter_;
  std::optional<ProcessEnd> end_;
  std::set<int> reader_events_;  // eventfds of the subscriptions

  std::mutex input_mutex_;
  UniqueFd stdin_;
  UniqueFd pty_;

  bool started_ = false;            // its start is over (guarded by mutex_); until then it is not finished
  std::optional<ProcessEnd> exit_;  // it has exited (guarded by mutex_); end_ follows when its output has been read

  // Only the table's thread uses these once the process is in the table.
  UniqueFd outputs_[2];  // stdout or the terminal, stderr
  std::optional<Clock::time_point> deadline_;
  Clock::time_point last_activity_;
  bool killed_at_deadline_ = false;
};

// One stream's view of a process. What was sent but not acknowledged by the peer when the subscription ends counts as
// not delivered, and goes to whoever connects next.
class Subscription {
 public:
  // The stream that started the process must be made into one with `starter`, whatever becomes of it: until then output
  // is held for it.
  Subscription(std::shared_ptr<GuestProcess> process, Socket& socket, bool starter);
  Subscription(const Subscription&) = delete;
  Subscription& operator=(const Subscription&) = delete;
  ~Subscription();

  enum class What { kOutput, kEnd, kIdle, kGone };
  struct Item {
    What what = What::kIdle;
    OutputChunk output = {};
    ProcessEnd end = {};
  };
  // The next thing to send: waits for it until `until` (then kIdle), or until the peer is gone.
  Item next(GuestProcess::Clock::time_point until);
  // To be called after a chunk was written to the socket.
  void wrote(const OutputChunk& chunk);

 private:
  std::optional<Item> ready();
  void note_acknowledged();

  std::shared_ptr<GuestProcess> process_;
  Socket& socket_;
  UniqueFd event_;
  OutputLog::ReaderId reader_ = 0;
  struct Mark {
    uint64_t socket_bytes;
    uint64_t position;
  };
  std::deque<Mark> unacknowledged_;
};

}  // namespace stasis::guest
