// How much of the disk warm bases may take: together a tenth of the file system, except that one alone may have more;
// and while the file system is short of space they give way, and none is made.
#pragma once

#include <cstdint>
#include <span>

#include "base/host_probe.h"

namespace stasis::agent {

// Less than a tenth of it is free, and less than 4 GiB.
bool is_short(const DiskSpace& space);
// How many have to go, the least recently used first: so many as give back what is too much, by what each stores.
size_t warm_bases_too_many(std::span<const uint64_t> stored, const DiskSpace& space);

}  // namespace stasis::agent
