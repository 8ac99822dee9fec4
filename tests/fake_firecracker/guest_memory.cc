#include "guest_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "misbehave.h"

namespace fake {

using stasis::Result;
using stasis::Status;

Result<GuestMemory> GuestMemory::create(uint64_t bytes) {
  GuestMemory memory;
  memory.bytes_ = bytes;
  memory.written_.resize(bytes / kPage);
  memory.resident_before_.resize(bytes / kPage);
  for (uint64_t offset = 0; offset < bytes;) {
    const uint64_t length = std::min(bytes - offset, kFirstRegionBytes);
    STASIS_ASSIGN(stasis::Mapping mapping, stasis::Mapping::anonymous(length));
    // No huge pages: a written page is one page, as with Firecracker's userfaultfd.
    ::madvise(mapping.bytes().data(), length, MADV_NOHUGEPAGE);
    memory.regions_.push_back({std::move(mapping), offset});
    offset += length;
  }
  return memory;
}

Status GuestMemory::map_file(const stasis::Path& path) {
  STASIS_ASSIGN(const stasis::FileInfo info, stasis::real_file_system().info(path));
  if (info.size != bytes_) return stasis::fail(stasis::Code::kInternal, "memory file size does not match");
  STASIS_ASSIGN(const stasis::UniqueFd file, stasis::real_file_system().open_read(path));
  for (const MemoryRegion& region : regions_) {
    const auto there = region.mapping.bytes();
    if (::mmap(there.data(), there.size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, file.get(),
               static_cast<off_t>(region.offset)) == MAP_FAILED) {
      return stasis::fail_errno(errno, "mmap");
    }
  }
  mapped_ = true;
  return {};
}

std::byte* GuestMemory::at(uint64_t offset) const {
  const MemoryRegion& region = regions_[offset < kFirstRegionBytes ? 0 : 1];
  return region.mapping.bytes().data() + (offset - region.offset);
}

void GuestMemory::mark_written(uint64_t offset, uint64_t length) {
  for (uint64_t page = offset / kPage; page * kPage < offset + length; ++page) written_[page] = true;
}

Status GuestMemory::give_back(uint64_t offset, uint64_t length) {
  for (uint64_t page = offset; page < offset + length; page += kPage) {
    if (mapped_) {
      if (::mmap(at(page), kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
        return stasis::fail_errno(errno, "mmap");
    } else if (::madvise(at(page), kPage, MADV_DONTNEED) != 0) {
      return stasis::fail_errno(errno, "MADV_DONTNEED");
    }
  }
  return {};
}

Status GuestMemory::write_range(int fd, uint64_t offset, uint64_t length) const {
  while (length > 0) {
    const uint64_t in_region = offset < kFirstRegionBytes ? std::min(length, kFirstRegionBytes - offset) : length;
    STASIS_TRY(stasis::real_file_system().write_at(fd, offset, {at(offset), in_region}));
    offset += in_region;
    length -= in_region;
  }
  return {};
}

std::vector<bool> GuestMemory::resident() const {
  std::vector<bool> pages;
  pages.reserve(bytes_ / kPage);
  for (const MemoryRegion& region : regions_) {
    std::vector<unsigned char> in_core(region.mapping.bytes().size() / kPage);
    if (::mincore(region.mapping.bytes().data(), region.mapping.bytes().size(), in_core.data()) != 0) std::abort();
    for (const unsigned char page : in_core) pages.push_back((page & 1) != 0);
  }
  return pages;
}

template <typename Wanted>
Status GuestMemory::write_pages(int fd, Wanted wanted) {
  const uint64_t pages = bytes_ / kPage;
  for (uint64_t page = 0; page < pages;) {
    uint64_t end = page;
    while (end < pages && wanted(end)) ++end;
    if (end > page) STASIS_TRY(write_range(fd, page * kPage, (end - page) * kPage));
    page = end + 1;
  }
  return {};
}

Status GuestMemory::write_full(int fd) {
  if (misbehaves("sparse_full")) {
    const std::vector<bool> now = resident();
    STASIS_TRY(write_pages(fd, [&](uint64_t page) { return now[page]; }));
  } else {
    STASIS_TRY(write_pages(fd, [](uint64_t) { return true; }));
  }
  resident_before_ = resident();
  forget_written();
  return {};
}

Status GuestMemory::write_diff(int fd, bool restored) {
  const std::vector<bool> now = resident();
  STASIS_TRY(write_pages(
      fd, [&](uint64_t page) { return written_[page] || (restored && now[page] && !resident_before_[page]); }));
  resident_before_ = resident();
  forget_written();
  return {};
}

}  // namespace fake
