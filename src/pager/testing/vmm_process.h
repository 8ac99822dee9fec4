// A VMM that is a process of its own: it registers memory with userfaultfd, hands it over, and then touches it, gives
// it back, unmaps it ..., as it is told. Each command runs in a thread of its own there, so that many can be on their
// way at once. The process is forked: start it before this process has threads. Killed by the destructor.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/fd.h"
#include "base/file_system.h"
#include "base/poll.h"
#include "base/userfaultfd.h"

namespace stasis::pager::testing {

struct VmmShape {
  // What its userfaultfd is told of: pages that are missing, those and (asynchronously) what is written, or nothing
  // until somebody registers the memory.
  enum class Watch { kMissing, kMissingAndWrites, kNothing };
  uint64_t pages = 0;
  uint64_t page_size = 4096;  // or 2 MiB, of the pool of huge pages
  bool shared = false;        // a memory file; else anonymous memory, as restored guests have
  int file = -1;              // a file of this process, mapped shared or privately instead of memory of its own
  Watch watch = Watch::kMissing;
  uint64_t features = 0;    // of userfaultfd, beside EVENT_REMOVE
  uint64_t first_half = 0;  // pages of a first region; 0: all memory is one
};

struct VmmReply {
  bool ok = false;
  uint64_t value = 0;
};

class VmmProcess {
 public:
  using Ticket = uint32_t;

  // Null if the memory cannot be had (no huge pages).
  static std::unique_ptr<VmmProcess> start(const VmmShape& shape);
  ~VmmProcess();
  VmmProcess(const VmmProcess&) = delete;
  VmmProcess& operator=(const VmmProcess&) = delete;

  pid_t pid() const { return pid_; }
  uint64_t address() const { return address_; }  // of its memory, there
  const UserFaultFd& uffd() const { return uffd_; }

  Ticket connect(const Path& socket);               // and hand the memory over; not ok if nobody listens
  Ticket read(uint64_t page);                       // value: a byte of it
  Ticket read_all(uint64_t first, uint64_t count);  // value: hash_of() the bytes read
  Ticket write(uint64_t page, std::byte value);     // the whole page
  Ticket give_back(uint64_t first, uint64_t count);
  // Gives every fifth of the pages back, so many times.
  Ticket give_back_often(uint64_t first, uint64_t count, uint64_t rounds);
  Ticket unmap(uint64_t first, uint64_t count);
  Ticket move(uint64_t first, uint64_t count);  // to another address
  Ticket fork();
  Ticket disconnect();  // from the page server

  bool is_done(Ticket ticket);
  // nullopt if it is not done by then, or never will be.
  std::optional<VmmReply> wait(Ticket ticket, Deadline deadline = Deadline::after(Milliseconds(20'000)));
  std::optional<std::byte> read_now(uint64_t page);

  // Faults that wait for an answer, whether their events have been read or not.
  uint64_t faults_waiting() const;
  bool await_faults(uint64_t count) const;
  // Until something can be read from the userfaultfd. While no fault is unread: another event.
  bool await_event() const;
  // The same beside faults that are unread: until a REMOVE waits. `there` is a page that has been touched.
  bool await_remove(uint64_t there) const;
  // Its anonymous memory: not what it shares with others, and no page of zeros that is everybody's.
  uint64_t own_bytes() const;
  // Of a page that it has touched, all bytes; empty if they cannot be read.
  std::vector<std::byte> content(uint64_t page) const;
  void kill();

 private:
  struct Command;
  VmmProcess(const VmmShape& shape, pid_t pid, UniqueFd control, UserFaultFd uffd, uint64_t address)
      : shape_(shape), pid_(pid), control_(std::move(control)), uffd_(std::move(uffd)), address_(address) {}
  Ticket send(Command command);
  bool receive(Deadline deadline);

  VmmShape shape_;
  pid_t pid_;
  UniqueFd control_;
  UserFaultFd uffd_;
  uint64_t address_;
  Ticket next_ = 1;
  std::map<Ticket, VmmReply> replies_;
  friend class VmmBody;
};

// Of bytes in their order, one of each page.
uint64_t hash_of(const std::vector<std::byte>& bytes);

}  // namespace stasis::pager::testing
