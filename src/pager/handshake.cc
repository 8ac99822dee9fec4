#include "pager/handshake.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string>

#include "base/unix_socket.h"

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

Result<Region> parse_region(const json& object) {
  if (!object.is_object()) return refuse("a region is not an object");
  Region region;
  STASIS_ASSIGN(region.host_address, unsigned_field(object, "base_host_virt_addr"));
  STASIS_ASSIGN(region.size, unsigned_field(object, "size"));
  STASIS_ASSIGN(region.offset, unsigned_field(object, "offset"));
  const char* page_field = object.contains("page_size") ? "page_size" : "page_size_kib";
  STASIS_ASSIGN(region.page_size, unsigned_field(object, page_field));
  if (region.page_size != kSmallPage && region.page_size != kHugePage) {
    return refuse("page size " + std::to_string(region.page_size) + " is neither 4 KiB nor 2 MiB");
  }
  if (region.size == 0 || (region.host_address | region.size | region.offset) % region.page_size != 0) {
    return refuse("region at " + std::to_string(region.host_address) + " is empty or not aligned to its pages");
  }
  if (region.host_address + region.size < region.host_address) return refuse("region wraps around");
  return region;
}

// Sorted by offset, regions must follow each other without gap or overlap, from 0 to the end of memory.
Status check_coverage(std::vector<Region> regions, uint64_t memory_size) {
  std::sort(regions.begin(), regions.end(), [](const Region& a, const Region& b) { return a.offset < b.offset; });
  uint64_t expected = 0;
  for (const Region& region : regions) {
    if (region.offset != expected)
      return refuse("regions overlap or leave a gap at offset " + std::to_string(expected));
    if (region.size > memory_size - expected) return refuse("regions are larger than the snapshot's memory");
    expected += region.size;
  }
  if (expected != memory_size) {
    return refuse("regions have " + std::to_string(expected) + " bytes, the snapshot's memory " +
                  std::to_string(memory_size));
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

// The message has no length: it is complete when it is one JSON value.
bool complete(std::string_view text) {
  const size_t end = text.find_last_not_of(" \r\n\t\0");
  return end != std::string_view::npos && text[end] == ']' && json::accept(text);
}

}  // namespace

Result<Handshake> parse_regions(std::string_view text, uint64_t memory_size) {
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
  STASIS_TRY(check_disjoint_addresses(handshake.regions));
  STASIS_TRY(check_coverage(handshake.regions, memory_size));
  return handshake;
}

Result<Handshake> receive_handshake(int socket, uint64_t memory_size, Deadline deadline, int stop) {
  std::string text;
  std::vector<UniqueFd> fds;
  std::array<std::byte, 64 * 1024> buffer;
  const std::array waiting{socket, stop};
  while (!complete(text)) {
    STASIS_ASSIGN(const auto ready, wait_any(waiting, deadline));
    if (ready[1]) return fail(Code::kCancelled, "uffd handshake: stopped");
    if (!ready[0]) return fail(Code::kDeadlineExceeded, "uffd handshake: the VMM did not send its regions in time");
    STASIS_ASSIGN(Received part, receive_with_fds(socket, buffer));
    for (UniqueFd& fd : part.fds) fds.push_back(std::move(fd));
    // Told at once: a peer that sends some with every byte would use up the descriptors of this process.
    if (fds.size() > 1) return refuse("expected one descriptor, got " + std::to_string(fds.size()));
    if (part.bytes == 0) return refuse("the VMM closed the connection before its regions were complete");
    text.append(reinterpret_cast<const char*>(buffer.data()), part.bytes);
    if (text.size() > kMaxHandshakeBytes) return refuse("the message is longer than 1 MiB");
  }
  if (fds.empty()) return refuse("expected one descriptor, got none");
  STASIS_ASSIGN(Handshake handshake, parse_regions(text, memory_size));
  handshake.uffd = UserFaultFd(std::move(fds.front()));
  return handshake;
}

}  // namespace stasis::pager
