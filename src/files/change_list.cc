#include "files/change_list.h"

namespace stasis::files {

void ChangeList::add(FileChange change) {
  ++report_.counts[static_cast<size_t>(change.kind)];
  bytes_ += path_bytes(change);
  std::string path = change.path;
  first_.emplace(std::move(path), std::move(change));
  while (first_.size() > kMaxChangesTold || bytes_ > kMaxPathBytes) {
    const auto last = std::prev(first_.end());
    bytes_ -= path_bytes(last->second);
    first_.erase(last);
  }
}

Report ChangeList::take() && {
  for (auto& [path, change] : first_) report_.changes.push_back(std::move(change));
  return std::move(report_);
}

}  // namespace stasis::files
