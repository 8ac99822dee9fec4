// Text is no list of regions, or one that covers the guest's memory, in order and aligned, and whose end is found where
// it is, though it comes byte by byte.
#include <algorithm>
#include <cstdlib>

#include "pager/array_end.h"
#include "pager/handshake.h"

namespace {

constexpr uint64_t kMemorySize = 256 << 20;

void require(bool held) {
  if (!held) std::abort();
}

// All that a parser needs of `text`, which it takes, is there when ArrayEnd says so; or that has found it too deep.
void require_end(std::string_view text) {
  stasis::pager::ArrayEnd end;
  size_t seen = 0;
  while (seen < text.size() && !end.reached()) {
    if (!end.look_at(text.substr(seen++, 1))) return;
  }
  require(end.reached() && stasis::pager::parse_regions(text.substr(0, seen), kMemorySize).has_value());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto handshake = stasis::pager::parse_regions(text, kMemorySize);
  if (!handshake) return 0;
  require_end(text);
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
