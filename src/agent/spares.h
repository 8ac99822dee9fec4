// Spares: supervisors with a VMM that were started ahead and wait for a snapshot (supervisor/protocol.h), so that a
// restore does not pay for exec and device set-up. A bounded number, of the shape that was restored last; the others go
// first when there is no room. They are started in the background, one after another, never while something is being
// restored; they go when the host gets short of memory, when nobody has asked for their shape for long, and with the
// agent, however that ends. Each is a directory below `dir`; what a former agent left there is removed. Thread-safe.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/process.h"
#include "supervisor/client.h"

namespace stasis::agent {

// Which machines a spare can become.
struct SpareShape {
  snapshot::MachineShape machine;
  uint64_t disk_bytes = 0;
  friend bool operator==(const SpareShape&, const SpareShape&) = default;
};

// 10% or more of the last ten seconds were lost by waiting for memory, or less than 512 MiB are left. A spare takes 24
// MiB of it (PSS of a supervisor and QEMU; 16 are its own).
bool host_is_short_of_memory();

struct SpareOptions {
  Path dir;
  Path supervisor_program;
  std::string vmm;
  size_t most = 1;                               // 0: none
  Milliseconds keep = std::chrono::minutes(10);  // after its shape was last asked for
  Milliseconds tick = std::chrono::seconds(1);   // between two looks at the host's memory
  std::function<bool()> memory_is_short = host_is_short_of_memory;
};

// Since the agent began.
struct SpareCounts {
  uint64_t ready = 0;  // now
  uint64_t started = 0;
  uint64_t used = 0;
  uint64_t failed = 0;   // did not start, died, did not answer, or did not become what it should
  uint64_t dropped = 0;  // for memory, for room, for age
};

// One that is ready, and its owner's now: whoever lets it go ends it. Its directory goes with it; by then it has moved
// to the sandbox's.
class Spare {
 public:
  explicit Spare(Path dir) : dir_(std::move(dir)) {}
  ~Spare();
  Spare(const Spare&) = delete;
  Spare& operator=(const Spare&) = delete;

  std::optional<Process> process;
  std::shared_ptr<supervisor::Client> client;

 private:
  Path dir_;
};

class Spares {
 public:
  static Result<std::unique_ptr<Spares>> start(SpareOptions options);
  ~Spares();
  Spares(const Spares&) = delete;
  Spares& operator=(const Spares&) = delete;

  // Returns at once; every spare ends soon.
  void stop();

  // As long as it lives, no spare is started.
  class Quiet {
   public:
    explicit Quiet(Spares& spares);
    ~Quiet();
    Quiet(const Quiet&) = delete;
    Quiet& operator=(const Quiet&) = delete;

   private:
    Spares& spares_;
  };

  bool empty() const;
  std::unique_ptr<Spare> take(const SpareShape& shape);
  // What became of one that was taken.
  void count(bool used);
  // Something of this shape was restored: the next one will want a spare.
  void want(const SpareShape& shape);
  SpareCounts counts() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Waiting {
    SpareShape shape;
    Clock::time_point asked;
    std::unique_ptr<Spare> spare;
  };
  Spares(SpareOptions options, Event stop, Event wake);
  void run();
  void look_after();
  size_t let_go(const std::function<bool(const Waiting&)>& which, uint64_t SpareCounts::*counter);
  // What is to be started now.
  std::optional<SpareShape> next();
  void start_one(const SpareShape& shape);
  Result<std::unique_ptr<Spare>> make(const SpareShape& shape);
  Result<std::shared_ptr<supervisor::Client>> connect(const Path& dir, const Process& process) const;

  const SpareOptions options_;
  Event stop_;
  Event wake_;
  mutable std::mutex mutex_;
  std::vector<Waiting> waiting_;  // oldest first
  std::optional<SpareShape> wanted_;
  Clock::time_point asked_;
  std::shared_ptr<supervisor::Client> starting_;
  size_t restoring_ = 0;
  bool stopping_ = false;
  SpareCounts counts_;
  std::thread thread_;
};

}  // namespace stasis::agent
