// What a disk may hold after it has lost power: for each file and directory the state that was synced last, and what
// was done since, of which any part may have reached the disk, in any order, unless a sync came after it. That is a
// file system without a journal: harsher than ext4 or XFS, so that nothing rests on what one of them happens to do.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace stasis::testing {

using Content = std::vector<std::byte>;

// The unit that a disk writes wholly or not at all.
inline constexpr size_t kSector = 512;

// A write (zeros where a hole was punched), or a new size.
struct UnsyncedChange {
  uint64_t offset = 0;
  Content data;
  std::optional<uint64_t> new_size;
};

struct Node;
using NodePtr = std::shared_ptr<Node>;

struct Node {
  uint64_t number = 0;  // the n-th that was made: what chance does to it does not hang on random names
  bool is_directory = false;

  // Of a file.
  Content synced;
  unsigned synced_mode = 0600;
  std::vector<UnsyncedChange> unsynced;
  std::set<size_t> lost;  // where sectors begin whose writes a failed sync has dropped: they are as of `synced`

  void sync(Content live);
  // What Linux does when a write-back fails: the pages count as clean, and no later sync writes them.
  void fail_sync();

  // Of a directory. A null entry is a name that was taken away.
  std::map<std::string, NodePtr> synced_entries;
  std::vector<std::pair<std::string, NodePtr>> unsynced_entries;

  void apply_entries();  // a sync of the directory
};

// One outcome for a file. `live` is what it holds now, if it still has a name. Sectors written since the last sync are
// each what they were, what any of the writes made of them, or, where there was nothing, what the disk held before;
// the size is one of those that the file had.
Content content_after_loss(const Node& file, const std::optional<Content>& live, std::mt19937_64& random);
// One outcome for a directory: each change applied or not. A rename is two changes.
std::map<std::string, NodePtr> entries_after_loss(const Node& directory, std::mt19937_64& random);

}  // namespace stasis::testing
