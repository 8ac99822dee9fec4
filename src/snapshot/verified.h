// Which layers this host knows to be whole: those whose every frame it has checked since it booted, or which it wrote
// itself. Noted beside the layers, one small file each (`verified/<uuid>`): the boot id, and the size, times and inode
// that the data file had while it was read. What was noted before a boot, or of a file that has changed in any way
// since, does not count; so nothing need be durable, and a lost note costs one more verification. The notes say nothing
// of the device: what it does to a page after that page was read shows when it is read again.
// Thread-safe; any number of processes may use one store.
#pragma once

#include <string>

#include "snapshot/store.h"

namespace stasis::snapshot {

class VerifiedLayers {
 public:
  explicit VerifiedLayers(const Store& store) : store_(store) {}
  // As if the machine's boot id were this one: for tests.
  VerifiedLayers(const Store& store, std::string boot_id) : store_(store), boot_id_(std::move(boot_id)) {}

  // What a layer's data file is now: to be taken before the first byte is read, and given to note() after the last.
  Result<std::string> identity(LayerId id) const;
  // Notes the layer, unless its file is not `identity` any more (kAborted).
  Status note(LayerId id, const std::string& identity) const;
  // Notes a layer that this process has just written and synced. If that fails it costs a verification, nothing else.
  void note_written(LayerId id) const;
  // A damaged frame was found.
  void forget(LayerId id) const;
  // False also when it cannot be found out.
  bool holds(LayerId id) const;

 private:
  Path directory() const { return store_.root() / kVerifiedDirectory; }

  const Store& store_;
  std::string boot_id_;  // empty: the machine's
};

}  // namespace stasis::snapshot
