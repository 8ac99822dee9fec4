// Text is no list of regions, or one that covers the guest's memory, in order and aligned.
#include <algorithm>
#include <cstdlib>

#include "pager/handshake.h"

namespace {

constexpr uint64_t kMemorySize = 256 << 20;

void require(bool held) {
  if (!held) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto handshake = stasis::pager::parse_regions({reinterpret_cast<const char*>(data), size}, kMemorySize);
  if (!handshake) return 0;
  uint64_t covered = 0;
  uint64_t end = 0;
  for (const auto& region : handshake->regions) {
    require(region.page_size == 4096 || region.page_size == 2 << 20);
    require(region.host_address % region.page_size == 0 && region.size % region.page_size == 0 && region.size > 0);
    require(region.host_address >= end && region.host_address + region.size > region.host_address);
    require(region.offset <= kMemorySize && region.size <= kMemorySize - region.offset);
    end = region.host_address + region.size;
    covered += region.size;
  }
  require(covered == kMemorySize && handshake->regions.size() <= stasis::pager::kMaxRegions);
  return 0;
}
