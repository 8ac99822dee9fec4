#include "base/resident.h"

#include <sys/mman.h>

#include <cerrno>

namespace stasis {

Status keep_resident(std::span<const std::byte> range) {
  if (::mlock(range.data(), range.size()) != 0) return fail_errno(errno, "keep pages in memory");
  return {};
}

}  // namespace stasis
