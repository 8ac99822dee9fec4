// The file system that a FuseExport serves: one directory with one file, `root.raw`. Handlers run in any number of
// threads.
#pragma once

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>

#include <atomic>
#include <mutex>
#include <optional>

#include "base/poll.h"
#include "disk/cow_disk.h"

namespace stasis::disk {

inline constexpr char kFileName[] = "root.raw";

class FuseFileSystem {
 public:
  // `failed` is set when the disk fails other than by running full.
  FuseFileSystem(CowDisk& disk, const Event& failed) : disk_(&disk), failed_(failed) {}

  // FuseExport::show().
  void show(CowDisk& disk) { disk_ = &disk; }

  // The table for fuse_session_new, whose userdata is the FuseFileSystem.
  static const fuse_lowlevel_ops& operations();
  std::optional<Error> failure() const;

 private:
  struct Handlers;
  void reply(fuse_req_t request, const Status& status);
  int error_number(const Error& error);
  struct stat attributes(fuse_ino_t inode) const;

  CowDisk& disk() const { return *disk_; }

  std::atomic<CowDisk*> disk_;
  const Event& failed_;
  mutable std::mutex mutex_;
  std::optional<Error> failure_;
};

}  // namespace stasis::disk
