#include "uffd_backend.h"

#include <unistd.h>
#include <array>
#include <nlohmann/json.hpp>

#include "base/unix_socket.h"
#include "base/userfaultfd.h"
#include "misbehave.h"

namespace fake {
namespace {

std::string regions_json(const GuestMemory& memory) {
  nlohmann::json list = nlohmann::json::array();
  for (const MemoryRegion& region : memory.regions()) {
    list.push_back({{"base_host_virt_addr", region.mapping.address()},
                    {"size", region.mapping.bytes().size()},
                    {"offset", region.offset},
                    {"page_size", kPage},
                    {"page_size_kib", kPage}});
  }
  if (misbehaves("wrong_regions")) list[0]["size"] = memory.regions()[0].mapping.bytes().size() / 2;
  return list.dump();
}

}  // namespace

stasis::Status hand_over_memory(const GuestMemory& memory, const stasis::Path& socket) {
  STASIS_ASSIGN(const stasis::UserFaultFd uffd, stasis::UserFaultFd::create(false));
  for (const MemoryRegion& region : memory.regions()) {
    STASIS_TRY(uffd.register_missing({region.mapping.address(), region.mapping.bytes().size()}, false));
  }
  // Firecracker keeps a descriptor of its own: a page server that dies leaves its guest waiting, not running on zeros.
  if (::dup(uffd.fd()) < 0) return stasis::fail(stasis::Code::kInternal, "dup");
  if (misbehaves("no_handshake")) return {};
  STASIS_ASSIGN(stasis::UniqueFd connection, stasis::connect_unix(socket));
  const std::string text = regions_json(memory);
  const std::array fds{uffd.fd()};
  STASIS_TRY(stasis::send_all(connection.get(), std::as_bytes(std::span(text)), fds));
  (void)connection.release();
  return {};
}

}  // namespace fake
