#include "vmm/qemu/guest_ram.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "base/file.h"
#include "base/memory.h"
#include "base/pagemap.h"
#include "base/process_memory.h"
#include "snapshot/ranges.h"

namespace stasis::vmm {
namespace {

// So much at once is unregistered: 1.3 ms, in which QEMU's page faults wait.
constexpr uint64_t kUnregisteredAtOnce = uint64_t{64} << 20;

std::vector<Range> relative(std::vector<Range> pages, uint64_t address) {
  for (Range& page : pages) page.offset -= address;
  return pages;
}

// Of so many pieces it is cheaper to ask for all of memory once than for each (2 us a piece, 30 ms for 4 GiB).
constexpr size_t kManyPieces = 4096;

// Those of QEMU's own pages in guest memory at `address`.
Result<std::vector<Range>> private_pages(int pagemap, uint64_t address, Range range) {
  STASIS_ASSIGN(std::vector<Range> pages, scan_private_pages(pagemap, {address + range.offset, range.length}));
  return relative(std::move(pages), address);
}

// Which of `pages` of guest memory at `address` are absent. Others are not walked if they are many: a page that was
// never there is the dearest (3 ns).
Result<std::vector<Range>> absent_pages(int pagemap, uint64_t address, const std::vector<Range>& pages) {
  std::vector<Range> absent;
  for (const Range& walked : join_for_walk(pages)) {
    STASIS_ASSIGN(std::vector<Range> found, scan_absent_pages(pagemap, {address + walked.offset, walked.length}));
    found = relative(std::move(found), address);
    absent.insert(absent.end(), found.begin(), found.end());
  }
  return snapshot::intersect(absent, pages);
}

Result<UniqueFd> open_pagemap(pid_t pid) {
  return real_file_system().open_read("/proc/" + std::to_string(pid) + "/pagemap");
}

}  // namespace

Result<GuestRam> GuestRam::create(uint64_t size) {
  STASIS_ASSIGN(UniqueFd fd, create_memory_file("stasis-ram", size));
  return GuestRam(std::move(fd), size);
}

void GuestRam::is_mapped_at(uint64_t address, UserFaultFd tracker, const std::vector<Range>& of_files,
                            std::vector<Range> served) {
  mapped_at_ = address;
  tracker_ = std::move(tracker);
  of_files_ = snapshot::subtract(join_for_walk(of_files), served);
  anonymous_ = snapshot::subtract(std::array{Range{0, size_}}, snapshot::unite(of_files_, served));
  served_ = std::move(served);
}

Result<MemorySource> GuestRam::source(pid_t vmm) const {
  if (mapped_at_ != 0) return MemorySource::of_process(vmm, mapped_at_);
  STASIS_ASSIGN(UniqueFd file, duplicate(fd_.get()));
  return MemorySource::of_file(std::move(file));
}

Result<GuestMemoryUse> GuestRam::use(pid_t vmm) const {
  if (mapped_at_ == 0) {
    STASIS_ASSIGN(const std::vector<Range> ranges, real_file_system().data_ranges(fd_.get()));
    const uint64_t held = total_length(ranges);
    return GuestMemoryUse{held, held};
  }
  STASIS_ASSIGN(const UniqueFd pagemap, open_pagemap(vmm));
  STASIS_ASSIGN(const uint64_t present, present_bytes(pagemap.get(), {mapped_at_, size_}));
  STASIS_ASSIGN(const std::vector<Range> own, private_pages(pagemap.get(), mapped_at_, {0, size_}));
  return GuestMemoryUse{present, total_length(own)};
}

Result<ChangedPages> GuestRam::changed(pid_t vmm, std::span<const Range> given_back, Piecework* walk) {
  auto pages = mapped_at_ != 0 ? changed_in_mappings(vmm, given_back, walk) : changed_in_file(vmm, walk);
  if (pages) told_ = pages->all;
  return pages;
}

// A scan that re-arms forgets what it told: if anything fails after it, the next call must not rely on the scan alone.
Result<ChangedPages> GuestRam::changed_in_file(pid_t vmm, Piecework* walk) {
  const bool tracked = std::exchange(tracked_, false);
  STASIS_ASSIGN(const uint64_t address, this->address(vmm));
  STASIS_ASSIGN(const UniqueFd pagemap, open_pagemap(vmm));
  auto scanned = scan_written_pages(pagemap.get(), {address, size_}, true, walk);
  if (!scanned && scanned.error().code != Code::kUnimplemented) return fail(std::move(scanned).error());
  if (!scanned || !tracked) {
    // After the scan: a page that comes meanwhile is then held, or will be told as written by the next one.
    STASIS_ASSIGN(const std::vector<Range> held, real_file_system().data_ranges(fd_.get()));
    tracked_ = scanned.has_value();
    return ChangedPages{held, held, tracked_};
  }
  const std::vector<Range> written = relative(std::move(*scanned), address);
  // Which of them does the file not hold? It is asked only where QEMU has pages that it does not see, since the file
  // tells more slowly than the page table (30 ms and 4 ms for 4 GiB).
  STASIS_ASSIGN(std::vector<Range> absent, absent_pages(pagemap.get(), address, written));
  if (!absent.empty()) {
    STASIS_ASSIGN(const std::vector<Range> held, real_file_system().data_ranges(fd_.get()));
    absent = snapshot::subtract(absent, held);
  }
  tracked_ = true;
  const std::vector<Range> fresh = snapshot::subtract(written, absent);
  return ChangedPages{snapshot::unite(told_, fresh), fresh, true};
}

Result<ChangedPages> GuestRam::changed_in_mappings(pid_t vmm, std::span<const Range> given_back, Piecework* walk) {
  const bool tracked = std::exchange(tracked_, false);
  STASIS_ASSIGN(const UniqueFd pagemap, open_pagemap(vmm));
  auto touched = touched_in_mappings(pagemap.get(), walk);
  if (!touched && touched.error().code != Code::kUnimplemented) return fail(std::move(touched).error());
  // After that scan: a page that becomes QEMU's own meanwhile will be told by the next one.
  if (!touched || !tracked) {
    STASIS_ASSIGN(const std::vector<Range> own, private_pages(pagemap.get(), mapped_at_, {0, size_}));
    tracked_ = touched.has_value();
    return ChangedPages{own, own, tracking_ && tracked_};
  }
  STASIS_ASSIGN(const std::vector<Range> own, own_pages(pagemap.get(), *touched));
  STASIS_ASSIGN(const std::vector<Range> gone, gone_of_told(pagemap.get(), given_back));
  tracked_ = true;
  return ChangedPages{snapshot::unite(snapshot::subtract(told_, gone), own), own, tracking_};
}

Result<std::vector<Range>> GuestRam::gone_of_told(int pagemap, std::span<const Range> given_back) const {
  std::vector<Range> in_doubt = snapshot::intersect(told_, given_back);
  if (in_doubt.empty()) return in_doubt;
  STASIS_ASSIGN(const std::vector<Range> kept, own_pages(pagemap, in_doubt));
  return snapshot::subtract(in_doubt, kept);
}

std::vector<Range> GuestRam::watched() const {
  if (tracking_) return {{0, size_}};
  return anonymous_tracked_ ? snapshot::unite(anonymous_, served_) : served_;
}

Result<std::vector<Range>> GuestRam::touched_in_mappings(int pagemap, Piecework* walk) const {
  const std::vector<Range> watched = this->watched();
  std::vector<Range> written;
  for (const Range& range : watched) {
    const Range there{mapped_at_ + range.offset, range.length};
    STASIS_ASSIGN(std::vector<Range> part, scan_written_there(pagemap, there, walk));
    for (const Range& piece : relative(std::move(part), mapped_at_)) append_range(written, piece);
  }
  return snapshot::unite(written, snapshot::subtract(std::array{Range{0, size_}}, watched));
}

Result<std::vector<Range>> GuestRam::own_pages(int pagemap, const std::vector<Range>& among) const {
  if (among.size() > kManyPieces) {
    STASIS_ASSIGN(const std::vector<Range> own, private_pages(pagemap, mapped_at_, {0, size_}));
    return snapshot::intersect(own, among);
  }
  std::vector<Range> own;
  for (const Range& range : among) {
    STASIS_ASSIGN(const std::vector<Range> part, private_pages(pagemap, mapped_at_, range));
    for (const Range& piece : part) append_range(own, piece);
  }
  return own;
}

Status GuestRam::start_tracking(pid_t vmm) {
  if (tracking_ || tracker_.fd() < 0) return {};
  if (mapped_at_ == 0) {
    STASIS_ASSIGN(const uint64_t address, this->address(vmm));
    STASIS_TRY(tracker_.register_write_protect({address, size_}));
    tracking_ = true;
    tracked_ = false;  // what was written until now is told once
    return {};
  }
  tracking_ = anonymous_tracked_ = true;  // whatever comes: a scan of what is not registered says so
  for (const Range& range : snapshot::unite(of_files_, anonymous_)) {
    STASIS_TRY(tracker_.register_write_protect({mapped_at_ + range.offset, range.length}));
  }
  return {};
}

void GuestRam::stop_tracking() {
  if (mapped_at_ == 0 || !std::exchange(tracking_, false)) return;
  for (const Range& range : of_files_) {
    for (uint64_t offset = range.offset; offset < range.end(); offset += kUnregisteredAtOnce) {
      // Of a QEMU that has ended there is nothing left to unregister.
      const uint64_t length = std::min(kUnregisteredAtOnce, range.end() - offset);
      if (!tracker_.unregister({mapped_at_ + offset, length})) return;
    }
  }
}

// Asked once: to read all of /proc/PID/maps takes 0.2 ms, which a stopped guest would wait for.
Result<uint64_t> GuestRam::address(pid_t vmm) {
  if (file_at_ != 0) return file_at_;
  auto found = first_mapping_of(vmm, fd_.get());
  if (!found) return fail(Code::kInternal, "QEMU has not mapped its memory: " + found.error().message);
  file_at_ = *found;
  return file_at_;
}

}  // namespace stasis::vmm
