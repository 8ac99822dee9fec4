// Which files differ between two file systems: both trees are walked together, by name. What is only on one side and is
// the same inode (number, generation, time of creation) on the other was renamed. Times, link counts and the content of
// directories are no change. A file with several names is told under each.
#pragma once

#include "files/contents.h"
#include "files/report.h"

namespace stasis::files {

// What may be only on one side, in all.
inline constexpr size_t kMaxOneSided = size_t{1} << 20;

// kDataLoss, with the inode, of the first damage found; kResourceExhausted beyond the limits of this room's headers.
Result<Report> diff_trees(const Versions& versions);

// The same of two disks: opens both file systems, and says which one cannot be read.
Result<Report> diff_disks(const snapshot::AddressSpace& before, const snapshot::AddressSpace& now);

}  // namespace stasis::files
