// The two threads that a stopped guest waits for while it is saved: the one that made this, which looks at its memory,
// and one that waits for QEMU and then helps. Each is where it need not wait for the other: QEMU and the second thread
// run on any processor but that of the first. Made before the guest stops, and destroyed when it runs again, by the
// first thread.
#pragma once

#include <sys/types.h>

#include <functional>
#include <future>
#include <optional>
#include <thread>

#include "base/kept_apart.h"
#include "base/piecework.h"
#include "base/result.h"

namespace stasis::vmm {

class SaveCrew {
 public:
  explicit SaveCrew(pid_t vmm);
  ~SaveCrew();
  SaveCrew(const SaveCrew&) = delete;
  SaveCrew& operator=(const SaveCrew&) = delete;

  // Once: does `wait_for_vmm` in the second thread, and `look` in this one, to whose walk the second comes when it is
  // done. Without a second thread to be had, one after the other. Returns what `wait_for_vmm` does.
  Status run(const std::function<Status()>& wait_for_vmm, const std::function<void(Piecework& walk)>& look);

 private:
  using Task = std::function<Status()>;
  Piecework walk_;
  std::optional<std::promise<Task>> task_;  // until it is given; none: it ends
  std::future<Status> done_;
  std::thread second_;
  std::optional<KeptApart> apart_;
};

}  // namespace stasis::vmm
