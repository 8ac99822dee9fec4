// A place in the store for layers that take long to make: `staging/<name>/`. A collection may run meanwhile and leaves
// it alone as long as its maker lives (flock on the directory); what a dead maker left is swept. When everything is
// there, take_over() moves a layer into the store proper.
#pragma once

#include "snapshot/store.h"

namespace stasis::snapshot {

// Where they all are. It need not exist.
Path staging_dir(const Store& store);

class Staging {
 public:
  // A new and empty directory, locked. `name`: a plain file name; kAborted if somebody is at work under it.
  static Result<Staging> open(const Store& store, const std::string& name);
  Staging(Staging&& other) noexcept;
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  Staging& operator=(Staging&&) = delete;
  // Removes the directory with everything in it.
  ~Staging();

  const Path& directory() const { return directory_; }

  // Publishes a finished layer of this directory: afterwards it is in layers/. The caller holds the store's shared lock
  // until something refers to it.
  Status take_over(LayerId id) const;

 private:
  Staging(FileSystem& fs, Path layers_dir, Path directory, UniqueFd lock);
  FileSystem* fs_;
  Path layers_dir_;
  Path directory_;
  UniqueFd lock_;
};

// Removes the files of a layer that nothing refers to. What cannot be removed is left to a collection.
void drop_layer(FileSystem& fs, const Path& layers_dir, LayerId id);

}  // namespace stasis::snapshot
