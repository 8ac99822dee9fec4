// Keeping another process out of the way of what one thread does: for as long as a KeptApart lives, the other process's
// threads run on any processor but the one on which its maker ran when it was made, and the maker stays on that one.
// The kernel puts a thread that wakes where it ran last or where it was woken from, and there it waits for as long as 3
// ms behind a thread that does not sleep, with another processor idle.
#pragma once

#include <sched.h>
#include <sys/types.h>

#include <optional>
#include <thread>
#include <vector>

namespace stasis {

class KeptApart {
 public:
  // By the thread that stays, and so the destructor. Threads that the other process starts later are kept off as well.
  // What the kernel refuses is left as it is: also a thread that may run nowhere else.
  explicit KeptApart(pid_t process);
  ~KeptApart();  // all may run again where they might before
  // A thread of this process too, for as long as it lives.
  void keep_off(std::thread& thread) const;
  KeptApart(const KeptApart&) = delete;
  KeptApart& operator=(const KeptApart&) = delete;

 private:
  struct Allowed {
    pid_t thread;
    cpu_set_t processors;
  };
  void keep_off(pid_t thread);
  pid_t process_;
  int here_;  // the processor
  std::optional<cpu_set_t> own_;
  std::vector<Allowed> theirs_;
};

}  // namespace stasis
