// A place to take snapshots in and restore them from, for tests: a store in a temporary directory, a page server for
// each machine that is restored by userfaultfd. What the supervisor does, without the supervisor.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "pager/page_server.h"
#include "snapshot/capture.h"
#include "snapshot/store.h"
#include "vmm/contract/fixture.h"

namespace stasis::vmm::contract {

// A directory that goes with the object.
class TemporaryDirectory {
 public:
  explicit TemporaryDirectory(const Path& parent = "/tmp");
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const Path& path() const { return path_; }

 private:
  Path path_;
};

// /dev/shm where there is one: holes are read from it without filling the page cache, which a guest of 3 GiB is made
// of.
Path directory_in_memory();

struct Snapshot {
  Path state;
  snapshot::BlockMap memory;
  VmmInfo saved_with = {};
  uint64_t blocks_stored = 0;
  uint64_t blocks_zeroed = 0;
  uint64_t blocks_compared = 0;
};

// A restored machine. Its page server ends the VMM when a page cannot be had, as a supervisor does.
struct Restored {
  // Shared with the page server's thread.
  struct Failure {
    std::mutex mutex;
    std::optional<Error> error;
    pid_t vmm = 0;
  };
  Machine machine;
  std::shared_ptr<Failure> failure;
  std::shared_ptr<snapshot::AddressSpace> memory;
  std::unique_ptr<pager::PageServer> pages;  // none where all of memory is mapped
  Path mapped_file;                          // where the VMM maps one
  Status status;                             // of restore()

  Vmm& vmm() { return *machine.vmm; }
  GuestControl& guest() { return *machine.guest; }
  std::optional<Error> page_failure() const;
  // What the guest has given back since this was asked last: for one capture, since it may write there afterwards.
  std::vector<Range> take_removed() const { return pages ? pages->take_removed() : std::vector<Range>{}; }
};

class Lab {
 public:
  Lab(Fixture& fixture, Path directory, Way way = Way::kUffd, bool prepared = false);

  Path layers() const { return directory_ / "layers"; }
  snapshot::BlockMap nothing() const;

  // Saves a paused machine and captures its memory over `parent`.
  Result<Snapshot> take(Vmm& vmm, const snapshot::BlockMap& parent, std::span<const Range> removed = {});
  Result<SavedMemory> save(Vmm& vmm, Path& state);
  Result<Snapshot> capture(const Path& state, const SavedMemory& saved, const snapshot::BlockMap& parent,
                           std::span<const Range> removed = {});
  // The same snapshot with its memory in one layer, which is mapped by huge pages where the file system has them.
  Status compact(Snapshot& snapshot);
  // Restores into a new machine, which `adjust` may change before. Fails if the page server cannot start; whether the
  // memory could be mapped and the VMM restored is in `status`. Where the VMM maps one file only, the memory is made
  // one. What is mapped in part is so in many pieces.
  Result<Restored> restore(const Snapshot& snapshot, const std::function<void(Machine&)>& adjust = {});
  // The same without anybody at the page server's socket.
  Status restore_without_pages(Machine& machine, const Path& state);
  // Damages one page that fill(filled, seed) has written, where it is stored: one whose whole frame (what is read and
  // checked at once) was written by the same fill, so that nothing else in the guest meets the damage.
  Status damage_filled_page(const Snapshot& snapshot, Range filled, uint64_t seed);
  static Status overwrite(const Path& file, uint64_t offset, std::string_view text);
  static Status cut_short(const Path& file);
  // The whole guest memory of a machine that is stopped or saved, read out of the VMM's process: past everything that
  // a capture relies on. What was never loaded is loaded by that. `saved` tells where QEMU has mapped memory.
  Result<std::vector<std::byte>> memory_of(const Restored& machine, const SavedMemory& saved) const;
  // The content of a snapshot's memory.
  Result<std::vector<std::byte>> content(const snapshot::BlockMap& map, Range range);

 private:
  static Status read_served(const Restored& machine, std::span<std::byte> out);
  static Status read_mapped_file(const Restored& machine, std::span<std::byte> out);
  Status plan_mapping(Restored& restored, RestoreSpec& spec);
  Status serve_pages(Restored& restored, RestoreSpec& spec);
  // The same memory in one layer, written as a compaction writes it.
  Result<snapshot::BlockMap> compacted(const snapshot::AddressSpace& memory);

  Fixture& fixture_;
  Path directory_;
  Way way_;
  bool prepared_;
  snapshot::Store store_;
  int files_ = 0;
  VmmInfo saved_with_;  // at the last save()
};

}  // namespace stasis::vmm::contract
