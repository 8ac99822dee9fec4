// The changes that a report has room for: the first ones by path, whatever order they are found in, and how many there
// are of each kind.
#pragma once

#include <map>

#include "files/report.h"

namespace stasis::files {

class ChangeList {
 public:
  // Each path at most once.
  void add(FileChange change);
  Report take() &&;

 private:
  static size_t path_bytes(const FileChange& change) { return change.path.size() + change.old_path.size(); }
  Report report_;
  std::map<std::string, FileChange> first_;
  size_t bytes_ = 0;
};

}  // namespace stasis::files
