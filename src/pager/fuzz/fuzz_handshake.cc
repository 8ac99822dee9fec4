// Text is no list of regions, or one that covers what is to be served of the guest's memory, all of it or a part, in
// order and aligned, and whose end is found where it is, though it comes byte by byte.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <span>

#include "pager/array_end.h"
#include "pager/handshake.h"

namespace {

using stasis::Range;

constexpr uint64_t kMemorySize = 256 << 20;
constexpr std::array kWhole{Range{0, kMemorySize}};
constexpr std::array kPart{Range{0, 4096}, Range{64 << 20, 64 << 20}, Range{kMemorySize - 4096, 4096}};

void require(bool held) {
  if (!held) std::abort();
}

// All that a parser needs of `text`, which it takes, is there when ArrayEnd says so; or that has found it too deep.
void require_end(std::string_view text, std::span<const Range> served) {
  stasis::pager::ArrayEnd end;
  size_t seen = 0;
  while (seen < text.size() && !end.reached()) {
    if (!end.look_at(text.substr(seen++, 1))) return;
  }
  require(end.reached() && stasis::pager::parse_regions(text.substr(0, seen), served).has_value());
}

void check(std::string_view text, std::span<const Range> served) {
  const auto handshake = stasis::pager::parse_regions(text, served);
  if (!handshake) return;
  require_end(text, served);
  uint64_t covered = 0;
  uint64_t end = 0;
  for (const auto& region : handshake->regions) {
    require(region.page_size == 4096 || region.page_size == 2 << 20);
    require(region.host_address % region.page_size == 0 && region.size % region.page_size == 0 && region.size > 0);
    require(region.host_address >= end && region.host_address + region.size > region.host_address);
    require(std::ranges::any_of(served, [&](const Range& range) {
      return region.offset >= range.offset && region.offset < range.end() && region.size <= range.end() - region.offset;
    }));
    end = region.host_address + region.size;
    covered += region.size;
  }
  require(covered == stasis::total_length(served) && handshake->regions.size() <= stasis::pager::kMaxRegions);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check(text, kWhole);
  check(text, kPart);
  return 0;
}
