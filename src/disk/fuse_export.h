// Exports one CowDisk as a raw file through FUSE (libfuse3 low-level API, direct I/O, so that the host caches a base
// layer once for all clones). The file system has one file, `root.raw`, whose size is the disk's; reads, writes, fsync
// and fallocate(PUNCH_HOLE | ZERO_RANGE) are served by a fixed number of threads. It is mounted in the caller's mount
// namespace and unmounted by the destructor, which also joins the threads; a process that dies takes the mount with its
// namespace. A process that still has the file open when the export ends gets ENOTCONN from then on; nothing waits for
// it.
#pragma once

#include <memory>
#include <optional>

#include "disk/cow_disk.h"

namespace stasis::disk {

class FuseExport {
 public:
  // `mount_point` is an existing, empty directory. `disk` must outlive the export.
  static Result<std::unique_ptr<FuseExport>> mount(CowDisk& disk, const Path& mount_point);
  ~FuseExport();
  FuseExport(const FuseExport&) = delete;
  FuseExport& operator=(const FuseExport&) = delete;

  // From now on the file is this disk, which must outlive the export; the one before is no longer needed.
  // kInvalidArgument unless it is of the same size: whoever has opened the file knows that. The caller makes sure that
  // nobody reads or writes meanwhile.
  Status show(CowDisk& disk);

  Path file() const;
  static Path file_in(const Path& mount_point);  // mount_point / "root.raw"

  // Readable once the disk has failed the guest other than by being full (which the guest is told as ENOSPC): data of a
  // layer that is damaged or cannot be read. The guest got EIO; failure() is the reason.
  int failed_fd() const;
  std::optional<Error> failure() const;

 private:
  struct State;
  explicit FuseExport(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace stasis::disk
