#include "pager/handshake.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string>

#include "base/unix_socket.h"
#include "pager/array_end.h"

namespace stasis::pager {
namespace {

using nlohmann::json;

constexpr uint64_t kSmallPage = 4096;
constexpr uint64_t kHugePage = 2 << 20;

tl::unexpected<Error> refuse(const std::string& why) { return fail(Code::kInvalidArgument, "uffd handshake: " + why); }

Result<uint64_t> unsigned_field(const json& object, const char* name) {
  const auto field = object.find(name);
  if (field == object.end() || !field->is_number_unsigned()) {
    return refuse("region without a number '" + std::string(name) + "'");
  }
  return field->get<uint64_t>();
}

// Both names say bytes. A message that names two sizes leaves open which of them its sender goes by.
Result<uint64_t> page_size_of(const json& object) {
  const bool old_name = object.contains("page_size_kib");
  if (!object.contains("page_size")) {
    if (!old_name) return refuse("region without 'page_size' or 'page_size_kib'");
    return unsigned_field(object, "page_size_kib");
  }
  STASIS_ASSIGN(const uint64_t size, unsigned_field(object, "page_size"));
  if (!old_name) return size;
  STASIS_ASSIGN(const uint64_t other, unsigned_field(object, "page_size_kib"));
  if (other == size) return size;
  return refuse("page_size " + std::to_string(size) + " and page_size_kib " + std::to_string(other) +
                " (bytes, both) of one region differ");
}

Result<Region> parse_region(const json& object) {
  if (!object.is_object()) return refuse("a region is not an object");
  Region region;
  STASIS_ASSIGN(region.host_address, unsigned_field(object, "base_host_virt_addr"));
  STASIS_ASSIGN(region.size, unsigned_field(object, "size"));
  STASIS_ASSIGN(region.offset, unsigned_field(object, "offset"));
  STASIS_ASSIGN(region.page_size, page_size_of(object));
  if (region.page_size != kSmallPage && region.page_size != kHugePage) {
    return refuse("page size " + std::to_string(region.page_size) + " is neither 4 KiB nor 2 MiB");
  }
  if (region.size == 0 || (region.host_address | region.size | region.offset) % region.page_size != 0) {
    return refuse("region at " + std::to_string(region.host_address) + " is empty or not aligned to its pages");
  }
  if (region.host_address + region.size < region.host_address) return refuse("region wraps around");
  return region;
}

// Sorted by offset, regions must follow each other without gap or overlap, from the beginning to the end of each range.
Status check_coverage(std::vector<Region> regions, std::span<const Range> served) {
  std::sort(regions.begin(), regions.end(), [](const Region& a, const Region& b) { return a.offset < b.offset; });
  auto range = served.begin();
  uint64_t expected = range->offset;
  uint64_t covered = 0;
  for (const Region& region : regions) {
    if (expected == range->end() && std::next(range) != served.end()) expected = (++range)->offset;
    if (region.offset != expected)
      return refuse("regions overlap or leave a gap at offset " + std::to_string(expected));
    if (region.size > range->end() - expected) return refuse("regions are larger than the snapshot's memory");
    expected += region.size;
    covered += region.size;
  }
  const uint64_t whole = total_length(served);
  if (covered != whole) {
    return refuse("regions have " + std::to_string(covered) + " bytes, the snapshot's memory " + std::to_string(whole));
  }
  return {};
}

Status check_disjoint_addresses(const std::vector<Region>& sorted) {
  for (size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i - 1].host_address + sorted[i - 1].size > sorted[i].host_address)
      return refuse("regions overlap in memory");
  }
  return {};
}

Status check_page_sizes(const std::vector<Region>& regions) {
  const auto differs = [&](const Region& region) { return region.page_size != regions.front().page_size; };
  if (std::ranges::none_of(regions, differs)) return {};
  return refuse("regions of 4 KiB pages beside regions of 2 MiB pages");
}

}  // namespace

Result<Handshake> parse_regions(std::string_view text, std::span<const Range> served) {
  const json parsed = json::parse(text, nullptr, false);
  if (!parsed.is_array() || parsed.empty()) return refuse("the message is not a JSON array of regions");
  if (parsed.size() > kMaxRegions) return refuse("more than " + std::to_string(kMaxRegions) + " regions");
  Handshake handshake;
  handshake.write_protect = true;
  for (const json& object : parsed) {
    STASIS_ASSIGN(const Region region, parse_region(object));
    handshake.regions.push_back(region);
    const auto protect = object.find("stasis_write_protect");
    handshake.write_protect &= protect != object.end() && *protect == true;
  }
  std::sort(handshake.regions.begin(), handshake.regions.end(),
            [](const Region& a, const Region& b) { return a.host_address < b.host_address; });
  STASIS_TRY(check_page_sizes(handshake.regions));
  STASIS_TRY(check_disjoint_addresses(handshake.regions));
  STASIS_TRY(check_coverage(handshake.regions, served));
  return handshake;
}

Result<Handshake> receive_handshake(int socket, std::span<const Range> served, Deadline deadline, int stop) {
  std::string text;
  ArrayEnd end;
  std::vector<UniqueFd> fds;
  std::array<std::byte, 64 * 1024> buffer;
  const std::array waiting{socket, stop};
  while (!end.reached()) {
    STASIS_ASSIGN(const auto ready, wait_any(waiting, deadline));
    if (ready[1]) return fail(Code::kCancelled, "uffd handshake: stopped");
    // Also of a peer that always has a byte more.
    if (!ready[0] || deadline.passed()) {
      return fail(Code::kDeadlineExceeded, "uffd handshake: the VMM did not send its regions in time");
    }
    STASIS_ASSIGN(Received part, receive_with_fds(socket, buffer));
    for (UniqueFd& fd : part.fds) fds.push_back(std::move(fd));
    // Told at once: a peer that sends some with every byte would use up the descriptors of this process.
    if (fds.size() > 1) return refuse("expected one descriptor, got " + std::to_string(fds.size()));
    if (part.bytes == 0) return refuse("the VMM closed the connection before its regions were complete");
    const std::string_view received(reinterpret_cast<const char*>(buffer.data()), part.bytes);
    text.append(received);
    if (text.size() > kMaxHandshakeBytes) return refuse("the message is longer than 1 MiB");
    if (!end.look_at(received)) return refuse("the message is not a JSON array of regions");
  }
  if (fds.empty()) return refuse("expected one descriptor, got none");
  STASIS_ASSIGN(Handshake handshake, parse_regions(text, served));
  auto uffd = UserFaultFd::received(std::move(fds.front()));
  if (!uffd) return fail(std::move(uffd).error().with_context("uffd handshake"));
  handshake.uffd = std::move(*uffd);
  return handshake;
}

}  // namespace stasis::pager
