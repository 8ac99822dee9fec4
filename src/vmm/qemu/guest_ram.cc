#include "vmm/qemu/guest_ram.h"

#include <sys/stat.h>

#include <array>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>

#include "base/file.h"
#include "base/memory.h"
#include "base/pagemap.h"
#include "snapshot/ranges.h"

namespace stasis::vmm {
namespace {

// Where a process has mapped the file with this inode: the first line of /proc/PID/maps that names it.
// Line: "7f6c...-7f6d... rw-s 00000000 00:01 1045   /memfd:stasis-ram (deleted)".
Result<uint64_t> mapped_address(pid_t pid, ino_t inode) {
  std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
  std::string line;
  while (std::getline(maps, line)) {
    std::istringstream fields(line);
    std::string range;
    std::string skipped;
    uint64_t line_inode = 0;
    fields >> range >> skipped >> skipped >> skipped >> line_inode;
    if (line_inode == inode && line.find("/memfd:") != std::string::npos) return std::stoull(range, nullptr, 16);
  }
  return fail(Code::kInternal, "QEMU has not mapped its memory");
}

Result<UniqueFd> open_pagemap(pid_t pid) {
  return real_file_system().open_read("/proc/" + std::to_string(pid) + "/pagemap");
}

}  // namespace

Result<GuestRam> GuestRam::create(uint64_t size) {
  STASIS_ASSIGN(UniqueFd fd, create_memory_file("stasis-ram", size));
  return GuestRam(std::move(fd), size);
}

void GuestRam::is_mapped_at(uint64_t address, UserFaultFd tracker, std::vector<Range> served) {
  mapped_at_ = address;
  tracker_ = std::move(tracker);
  mapped_ = snapshot::subtract(std::array{Range{0, size_}}, served);
  served_ = std::move(served);
}

Result<UniqueFd> GuestRam::source(pid_t vmm) const {
  if (mapped_at_ == 0) return duplicate(fd_.get());
  return real_file_system().open_read("/proc/" + std::to_string(vmm) + "/mem");
}

Result<GuestMemoryUse> GuestRam::use(pid_t vmm) const {
  if (mapped_at_ == 0) {
    STASIS_ASSIGN(const std::vector<Range> ranges, real_file_system().data_ranges(fd_.get()));
    const uint64_t held = total_length(ranges);
    return GuestMemoryUse{held, held};
  }
  STASIS_ASSIGN(const UniqueFd pagemap, open_pagemap(vmm));
  STASIS_ASSIGN(const uint64_t present, present_bytes(pagemap.get(), {mapped_at_, size_}));
  STASIS_ASSIGN(const std::vector<Range> own, private_pages(vmm));
  return GuestMemoryUse{present, total_length(own)};
}

std::vector<Range> GuestRam::watched() const {
  if (mapped_at_ != 0 && !tracking_) return served_;
  return {{0, size_}};
}

Result<ChangedPages> GuestRam::changed(pid_t vmm) {
  const bool mapped = mapped_at_ != 0;
  const std::vector<Range> watched = this->watched();
  // The scan forgets what it told: if it fails halfway, the next call must not rely on it.
  const bool tracked = std::exchange(tracked_, false);
  auto written = written_pages(vmm);
  if (!written && written.error().code != Code::kUnimplemented) return fail(std::move(written).error());
  // After the scan: a page that comes meanwhile is then held, or will be told as written by the next one.
  STASIS_ASSIGN(const std::vector<Range> held, mapped ? private_pages(vmm) : real_file_system().data_ranges(fd_.get()));
  ChangedPages pages{held, held, written.has_value() && (!mapped || tracking_)};
  if (written && tracked) {
    const std::vector<Range> unwatched = snapshot::subtract(held, watched);
    pages.fresh = snapshot::unite(snapshot::intersect(*written, held), unwatched);
    pages.all = snapshot::intersect(snapshot::unite(told_, pages.fresh), held);
  }
  told_ = pages.all;
  tracked_ = true;
  return pages;
}

Status GuestRam::start_tracking() {
  if (mapped_at_ == 0 || tracking_ || tracker_.fd() < 0) return {};
  tracking_ = true;
  for (const Range& range : mapped_) {
    STASIS_TRY(tracker_.register_write_protect({mapped_at_ + range.offset, range.length}));
  }
  return {};
}

void GuestRam::forget_told() {
  told_.clear();
  if (!std::exchange(tracking_, false)) return;
  // Of a QEMU that has ended there is nothing left to unregister.
  for (const Range& range : mapped_) (void)tracker_.unregister({mapped_at_ + range.offset, range.length});
}

Result<uint64_t> GuestRam::address(pid_t vmm) const {
  if (mapped_at_ != 0) return mapped_at_;
  struct stat st {};
  if (::fstat(fd_.get(), &st) != 0) return fail_errno(errno, "look at guest memory");
  return mapped_address(vmm, st.st_ino);
}

Result<std::vector<Range>> GuestRam::written_pages(pid_t vmm) const {
  STASIS_ASSIGN(const uint64_t address, this->address(vmm));
  STASIS_ASSIGN(const UniqueFd pagemap, open_pagemap(vmm));
  std::vector<Range> pages;
  for (const Range& range : watched()) {
    const Range memory{address + range.offset, range.length};
    STASIS_ASSIGN(const std::vector<Range> written, mapped_at_ != 0 ? scan_written_private_pages(pagemap.get(), memory)
                                                                    : scan_written_pages(pagemap.get(), memory, true));
    for (const Range& page : written) append_range(pages, {page.offset - address, page.length});
  }
  return pages;
}

Result<std::vector<Range>> GuestRam::private_pages(pid_t vmm) const {
  STASIS_ASSIGN(const UniqueFd pagemap, open_pagemap(vmm));
  STASIS_ASSIGN(std::vector<Range> pages, scan_private_pages(pagemap.get(), {mapped_at_, size_}));
  for (Range& page : pages) page.offset -= mapped_at_;
  return pages;
}

}  // namespace stasis::vmm
