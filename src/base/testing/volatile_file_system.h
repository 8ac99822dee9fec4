// A FileSystem on a disk that can lose power. Calls go to a real directory, so that the code under test has real
// descriptors; beside it is kept what of that is durable. lose_power() makes the directory what a disk may hold after a
// power cut: everything that was synced, and of the rest what chance leaves (power_loss.h). After FoundationDB's
// AsyncFileNonDurable and LevelDB's fault injection environment.
//
// Files and directories that appear in the directory past the seam are known from the first call that meets them: a
// directory as durable, a file as not synced. Paths outside of the directory are passed on. Thread-safe, except
// for power cuts. To stop the code under test at its n-th call put a FaultyFileSystem in front that fails from then on.
#pragma once

#include <memory>
#include <mutex>
#include <random>
#include <unordered_map>

#include "base/testing/forwarding_file_system.h"
#include "base/testing/power_loss.h"

namespace stasis::testing {

class VolatileFileSystem final : public ForwardingFileSystem {
 public:
  // What is in `root` now is durable.
  explicit VolatileFileSystem(Path root);

  // The moment of a power cut: what is durable then, and what is not.
  struct Cut;
  std::shared_ptr<const Cut> cut_power() const;
  // Power is back: the directory is made one of the things that the disk may hold after `cut`; another one with each
  // state of `random`. Of the first cut the same calls before give the same outcomes, whatever the files are called.
  // Descriptors that are still open belong to files that are gone.
  void come_back(const Cut& cut, std::mt19937_64& random);
  void lose_power(std::mt19937_64& random) { come_back(*cut_power(), random); }
  // The device does not take what the next sync of a file is to write, and no later sync writes it either.
  void fail_next_sync() { sync_fails_ = true; }

  Result<UniqueFd> create(const Path& path) override;
  Status write_at(int fd, uint64_t offset, std::span<const std::byte> data) override;
  Status truncate(int fd, uint64_t size) override;
  Status punch_hole(int fd, Range range) override;
  Status sync(int fd) override;  // remembers; does not wait for the device
  Status sync_directory(const Path& path) override;
  Status make_directory(const Path& path) override;
  Status rename(const Path& from, const Path& to) override;
  Status remove(const Path& path) override;
  Status remove_directory(const Path& path) override;

 private:
  std::optional<Error> before(const char* /*what*/) override { return std::nullopt; }
  bool tracks(const Path& path) const;
  NodePtr directory(const Path& path);
  NodePtr file(int fd);
  NodePtr entry(const Path& path);
  void change_entry(const Path& path, NodePtr node);
  void forget(const Path& path);

  NodePtr new_node(bool is_directory);

  struct Loss;
  void restore_directory(const Node& old, const NodePtr& fresh, const Path& path, Loss& loss);

  const Path root_;
  std::mutex mutex_;
  uint64_t nodes_made_ = 0;
  bool sync_fails_ = false;
  std::unordered_map<uint64_t, NodePtr> nodes_;  // by inode number: what is there now
};

}  // namespace stasis::testing
