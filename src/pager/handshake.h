// Firecracker's userfaultfd handshake, which Stasis's QEMU speaks too: one message on a unix stream socket, a JSON
// array with an object per memory region, and one descriptor, the userfaultfd. Source: Firecracker's docs/snapshotting/
// handling-page-faults-on-snapshot-resume.md and what was seen (shared/notes/firecracker.md). `page_size_kib` holds
// bytes despite its name; newer versions add `page_size`: where both are there they must be equal, and all regions have
// pages of one size. Stasis's preloaded library adds `"stasis_write_protect": true` where it has registered the region
// for asynchronous write-protection: what layers hold then comes write-protected. Zeros come as the zero page, which
// cannot be (ZEROPAGE has no such mode): a scan calls it written, and tells it from a page that was.
// The message has no length, and may come in any number of reads; it is parsed once, when its array is closed
// (array_end.h). Unknown fields are ignored. Anything else is refused with a reason, and every descriptor that came
// along is closed.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/poll.h"
#include "base/range.h"
#include "base/result.h"
#include "base/userfaultfd.h"

namespace stasis::pager {

// A piece of guest memory in the VMM's address space.
struct Region {
  uint64_t host_address = 0;  // bytes, in the VMM process
  uint64_t size = 0;          // bytes
  uint64_t offset = 0;        // of its first byte in guest memory
  uint64_t page_size = 0;     // bytes: 4096 or 2 MiB
};

struct Handshake {
  std::vector<Region> regions;  // sorted by host address
  bool write_protect = false;   // every region is registered for write-protection too
  UserFaultFd uffd;
};

inline constexpr size_t kMaxHandshakeBytes = 1 << 20;
inline constexpr size_t kMaxRegions = 4096;

// The JSON text alone: used by receive_handshake, and by the fuzzer. Regions must be aligned to their page size,
// disjoint in both address spaces, and cover `served`, exactly; between their host addresses may be gaps. `served`:
// what of guest memory is to be handed over, sorted, disjoint, none beside another.
Result<Handshake> parse_regions(std::string_view json, std::span<const Range> served);

// kDeadlineExceeded for a peer that is silent or never comes to an end, kInvalidArgument for a malformed message,
// kCancelled as soon as `stop` (a descriptor, or -1) is readable.
Result<Handshake> receive_handshake(int socket, std::span<const Range> served, Deadline deadline, int stop = -1);

}  // namespace stasis::pager
