#include "agent/warm_room.h"

#include <algorithm>
#include <numeric>

namespace stasis::agent {
namespace {

constexpr uint64_t kShare = 10;                      // one part of so many
constexpr uint64_t kEnoughFree = uint64_t{4} << 30;  // on a disk of any size

uint64_t kept_free(const DiskSpace& space) { return std::min(space.total_bytes / kShare, kEnoughFree); }

uint64_t above(uint64_t value, uint64_t limit) { return value > limit ? value - limit : 0; }

}  // namespace

bool is_short(const DiskSpace& space) { return space.free_bytes < kept_free(space); }

size_t warm_bases_too_many(std::span<const uint64_t> stored, const DiskSpace& space) {
  const uint64_t held = std::accumulate(stored.begin(), stored.end(), uint64_t{0});
  const uint64_t excess = std::max(above(held, space.total_bytes / kShare), above(kept_free(space), space.free_bytes));
  size_t count = 0;
  for (uint64_t given = 0; given < excess && count < stored.size(); ++count) given += stored[count];
  return count;
}

}  // namespace stasis::agent
