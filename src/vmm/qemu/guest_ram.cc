#include "vmm/qemu/guest_ram.h"

#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>

#include "base/memory.h"
#include "base/userfaultfd.h"
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

}  // namespace

std::vector<Range> intersect(const std::vector<Range>& a, const std::vector<Range>& b) {
  std::vector<Range> common;
  size_t i = 0;
  size_t j = 0;
  while (i < a.size() && j < b.size()) {
    const uint64_t start = std::max(a[i].offset, b[j].offset);
    const uint64_t end = std::min(a[i].end(), b[j].end());
    if (start < end) common.push_back({start, end - start});
    (a[i].end() < b[j].end() ? i : j) += 1;
  }
  return common;
}

Result<GuestRam> GuestRam::create(uint64_t size) {
  STASIS_ASSIGN(UniqueFd fd, create_memory_file("stasis-ram", size));
  return GuestRam(std::move(fd), size);
}

Result<ChangedPages> GuestRam::changed(pid_t vmm) {
  // The scan forgets what it told: if it fails halfway, the next call must not rely on it.
  const bool tracked = std::exchange(tracked_, false);
  auto written = written_pages(vmm);
  if (!written && written.error().code != Code::kUnimplemented) return fail(std::move(written).error());
  // After the scan: a page that comes meanwhile is then held, or will be told as written by the next one.
  STASIS_ASSIGN(const std::vector<Range> held, real_file_system().data_ranges(fd_.get()));
  ChangedPages pages{held, held, written.has_value()};
  if (written && tracked) {
    pages.fresh = intersect(*written, held);
    pages.all = intersect(snapshot::unite(told_, pages.fresh), held);
  }
  told_ = pages.all;
  tracked_ = true;
  return pages;
}

Result<std::vector<Range>> GuestRam::written_pages(pid_t vmm) const {
  struct stat st {};
  if (::fstat(fd_.get(), &st) != 0) return fail_errno(errno, "look at guest memory");
  STASIS_ASSIGN(const uint64_t address, mapped_address(vmm, st.st_ino));
  STASIS_ASSIGN(const UniqueFd pagemap, real_file_system().open_read("/proc/" + std::to_string(vmm) + "/pagemap"));
  STASIS_ASSIGN(std::vector<Range> pages, scan_written_pages(pagemap.get(), {address, size_}, true));
  for (Range& page : pages) page.offset -= address;
  return pages;
}

}  // namespace stasis::vmm
