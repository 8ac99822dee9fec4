// The images of this host: directories made by images/build.py, imported into the store once for each content
// (image.json's key). Kept in STATE/images.json. An image whose content changed is imported anew; the old one, and
// one that is not named any more, is removed from the store, its layers live on for as long as snapshots or sandboxes
// need them.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "snapshot/store.h"

namespace stasis::agent {

struct Image {
  std::string key;
  snapshot::SnapshotId id;
};

// Name -> image, for each of `directories` (name, directory).
Result<std::map<std::string, Image>> load_images(const snapshot::Store& store, const Path& record_file,
                                                 const std::vector<std::pair<std::string, Path>>& directories);

}  // namespace stasis::agent
