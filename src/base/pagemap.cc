#include "base/pagemap.h"

#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <span>
#include <string>
#include <utility>

#include "base/sync_point.h"

namespace stasis {
namespace {

// Newer than Debian 12's kernel headers (6.1): values from include/uapi/linux/fs.h of Linux 6.7.
struct PageRegion {
  uint64_t start;
  uint64_t end;
  uint64_t categories;
};

struct PmScanArg {
  uint64_t size;
  uint64_t flags;
  uint64_t start;
  uint64_t end;
  uint64_t walk_end;
  uint64_t vec;
  uint64_t vec_len;
  uint64_t max_pages;
  uint64_t category_inverted;
  uint64_t category_mask;
  uint64_t category_anyof_mask;
  uint64_t return_mask;
};

constexpr unsigned long kPagemapScan = _IOWR('f', 16, PmScanArg);
constexpr uint64_t kPmScanWpMatching = 1U << 0;
constexpr uint64_t kPmScanCheckWpAsync = 1U << 1;
constexpr uint64_t kPageIsWritten = 1U << 1;
constexpr uint64_t kPageIsFile = 1U << 2;
constexpr uint64_t kPageIsPresent = 1U << 3;
constexpr uint64_t kPageIsSwapped = 1U << 4;
constexpr uint64_t kPageIsZero = 1U << 5;

// Of an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
constexpr uint64_t kEntryFileOrShared = uint64_t{1} << 61;
constexpr uint64_t kEntrySwapped = uint64_t{1} << 62;
constexpr uint64_t kEntryPresent = uint64_t{1} << 63;
constexpr uint64_t kPage = 4096;
// For as long as one call walks, nobody maps or unmaps anything there: who wants to waits for all of it if that is
// 4 GiB (1.9 ms; a new thread's first malloc() is enough). Of so much at once, which costs the scan less than a tenth,
// it waits 0.02 ms, if it is awake by then: who has to be woken (30 us) finds the next call at work, for up to 4 ms.
constexpr uint64_t kWalkedAtOnce = uint64_t{32} << 20;
// A call costs as much as walking so much.
constexpr uint64_t kWalkedBetween = uint64_t{2} << 20;
constexpr const char* kGone = "the process whose memory is looked at has gone";

// Of a process that has ended a scan finds nothing, as if nothing had been written: the memory must still be there
// after it. (A read tells: it gives no bytes.)
Status require_alive(int pagemap_fd, uint64_t address) {
  uint64_t entry = 0;
  const auto bytes = std::as_writable_bytes(std::span(&entry, 1));
  STASIS_ASSIGN(const size_t n, real_file_system().read_at(pagemap_fd, address / kPage * sizeof entry, bytes));
  if (n != sizeof entry) return fail(Code::kUnavailable, kGone);
  return {};
}

// A point "pagemap.scan": a test may set the number of an error, as a kernel answers that has no such call.
int scan_call(int pagemap_fd, PmScanArg& scan) {
  int refused = 0;
  sync_point("pagemap.scan", &refused);
  if (refused == 0) return ::ioctl(pagemap_fd, kPagemapScan, &scan);
  errno = refused;
  return -1;
}

// One call: appends what it finds from the beginning of `range` on, and returns how far it came: to the end, unless
// there was more than fits into one answer. `wanted` says which pages: its categories and flags.
Result<uint64_t> scan_once(int pagemap_fd, Range range, const PmScanArg& wanted, std::vector<Range>& found) {
  std::array<PageRegion, 512> regions;
  PmScanArg scan = wanted;
  scan.size = sizeof scan;
  scan.start = range.offset;
  scan.end = range.end();
  scan.vec = reinterpret_cast<uint64_t>(regions.data());
  scan.vec_len = regions.size();
  int n = 0;
  do {
    n = scan_call(pagemap_fd, scan);
  } while (n < 0 && errno == EINTR);
  if (n < 0 && (errno == ENOTTY || errno == EINVAL))
    return fail(Code::kUnimplemented, "this kernel has no PAGEMAP_SCAN");
  if (n < 0 && errno == EPERM) return fail(Code::kUnimplemented, "this memory is not write-protected asynchronously");
  if (n < 0) return fail_errno(errno, "PAGEMAP_SCAN");
  for (const PageRegion& region : std::span(regions).first(static_cast<size_t>(n))) {
    append_range(found, {region.start, region.end - region.start});
  }
  return scan.walk_end;
}

// Appends all that there is in `range`, by as many calls as it takes.
Status scan_piece(int pagemap_fd, Range range, const PmScanArg& wanted, std::vector<Range>& found) {
  for (uint64_t position = range.offset; position < range.end();) {
    STASIS_ASSIGN(position, scan_once(pagemap_fd, {position, range.end() - position}, wanted, found));
  }
  return {};
}

// `walk(piece, found)` appends what it finds. kUnavailable if the process has ended.
using Walk = std::function<Status(Range, std::vector<Range>&)>;

Result<std::vector<Range>> walk_pieces(int pagemap_fd, Range range, Piecework* shared, const Walk& walk) {
  struct Part {
    std::vector<Range> found;
    Status walked;
  };
  std::vector<Part> parts((range.length + kWalkedAtOnce - 1) / kWalkedAtOnce);
  const auto walk_part = [&](size_t number) {
    const uint64_t begin = range.offset + number * kWalkedAtOnce;
    const Range piece{begin, std::min(range.end() - begin, kWalkedAtOnce)};
    parts[number].walked = walk(piece, parts[number].found);
  };
  Piecework alone;
  (shared != nullptr ? *shared : alone).run(parts.size(), walk_part);
  std::vector<Range> found;
  for (const Part& part : parts) {
    STASIS_TRY(part.walked);
    for (const Range& piece : part.found) append_range(found, piece);
  }
  STASIS_TRY(require_alive(pagemap_fd, range.offset));
  return found;
}

Result<std::vector<Range>> scan(int pagemap_fd, Range range, const PmScanArg& wanted, Piecework* shared = nullptr) {
  return walk_pieces(pagemap_fd, range, shared, [&](Range piece, std::vector<Range>& found) {
    return scan_piece(pagemap_fd, piece, wanted, found);
  });
}

PmScanArg private_pages() {
  PmScanArg wanted{};
  wanted.category_inverted = kPageIsFile | kPageIsZero;
  wanted.category_mask = kPageIsFile | kPageIsZero;
  wanted.category_anyof_mask = kPageIsPresent | kPageIsSwapped;
  wanted.return_mask = kPageIsPresent;
  return wanted;
}

// Pages whose entry `wanted` accepts.
template <typename Wanted>
Result<std::vector<Range>> read_entries(int pagemap_fd, Range range, Wanted wanted) {
  std::vector<Range> found;
  std::vector<uint64_t> entries(8192);
  for (uint64_t position = range.offset; position < range.end();) {
    const uint64_t count = std::min<uint64_t>(entries.size(), (range.end() - position) / kPage);
    const auto bytes = std::as_writable_bytes(std::span(entries).first(count));
    STASIS_ASSIGN(const size_t n, real_file_system().read_at(pagemap_fd, position / kPage * sizeof(uint64_t), bytes));
    if (n != bytes.size()) return fail(Code::kUnavailable, kGone);
    for (uint64_t i = 0; i < count; ++i) {
      if (wanted(entries[i])) append_range(found, {position + i * kPage, kPage});
    }
    position += count * kPage;
  }
  return found;
}

Status require_written_pages() {
  if (kernel_tells_written_pages()) return {};
  return fail(Code::kUnimplemented, "this kernel does not tell which pages were written", "run Linux 6.9 or newer");
}

}  // namespace

bool tells_written_pages(std::string_view kernel_release) {
  const std::string release(kernel_release);
  int major = 0;
  int minor = 0;
  if (std::sscanf(release.c_str(), "%d.%d", &major, &minor) != 2) return false;
  return std::pair(major, minor) >= std::pair(6, 9);
}

bool kernel_tells_written_pages() {
  static const bool tells = [] {
    utsname system{};
    return ::uname(&system) == 0 && tells_written_pages(system.release);
  }();
  return tells;
}

Result<std::vector<Range>> scan_written_pages(int pagemap_fd, Range range, bool reset, Piecework* shared) {
  STASIS_TRY(require_written_pages());
  PmScanArg wanted{};
  wanted.flags = reset ? kPmScanWpMatching | kPmScanCheckWpAsync : 0;
  wanted.category_mask = kPageIsWritten;
  wanted.return_mask = kPageIsWritten;
  return scan(pagemap_fd, range, wanted, shared);
}

Result<std::vector<Range>> scan_private_pages(int pagemap_fd, Range range) {
  auto found = scan(pagemap_fd, range, private_pages());
  if (!found && found.error().code == Code::kUnimplemented) return read_private_pages(pagemap_fd, range);
  return found;
}

// The kernel has a short way for "written and nothing else" (1.1 ns a page instead of 2.5 of pages that are protected),
// but on it a page that is not there counts as written, and would be marked. So it only looks, and the long way goes
// over what it finds; and over a whole piece where that is more than fits into one answer.
Result<std::vector<Range>> scan_written_there(int pagemap_fd, Range range, Piecework* shared) {
  STASIS_TRY(require_written_pages());
  PmScanArg look{};
  look.flags = kPmScanCheckWpAsync;
  look.category_mask = kPageIsWritten;
  look.return_mask = kPageIsWritten;
  PmScanArg take = look;
  take.flags |= kPmScanWpMatching;
  take.category_anyof_mask = kPageIsPresent | kPageIsSwapped;
  return walk_pieces(pagemap_fd, range, shared, [&](Range piece, std::vector<Range>& found) -> Status {
    std::vector<Range> looked_at;
    STASIS_ASSIGN(const uint64_t end, scan_once(pagemap_fd, piece, look, looked_at));
    if (end < piece.end()) looked_at = {piece};
    for (const Range& part : join_for_walk(looked_at)) STASIS_TRY(scan_piece(pagemap_fd, part, take, found));
    return {};
  });
}

std::vector<Range> join_for_walk(const std::vector<Range>& ranges) {
  std::vector<Range> joined;
  for (const Range& range : ranges) {
    if (!joined.empty() && range.offset - joined.back().end() <= kWalkedBetween) {
      joined.back().length = range.end() - joined.back().offset;
    } else {
      joined.push_back(range);
    }
  }
  return joined;
}

Result<std::vector<Range>> scan_absent_pages(int pagemap_fd, Range range) {
  PmScanArg wanted{};
  wanted.category_inverted = kPageIsPresent;
  wanted.category_mask = kPageIsPresent;
  wanted.return_mask = kPageIsPresent;
  return scan(pagemap_fd, range, wanted);
}

Result<std::vector<Range>> read_private_pages(int pagemap_fd, Range range) {
  return read_entries(pagemap_fd, range, [](uint64_t entry) {
    return (entry & (kEntryPresent | kEntrySwapped)) != 0 && (entry & kEntryFileOrShared) == 0;
  });
}

Result<uint64_t> present_bytes(int pagemap_fd, Range range) {
  PmScanArg wanted{};
  wanted.category_mask = kPageIsPresent;
  wanted.return_mask = kPageIsPresent;
  auto found = scan(pagemap_fd, range, wanted);
  if (!found && found.error().code == Code::kUnimplemented) {
    found = read_entries(pagemap_fd, range, [](uint64_t entry) { return (entry & kEntryPresent) != 0; });
  }
  if (!found) return fail(std::move(found).error());
  return total_length(*found);
}

}  // namespace stasis
