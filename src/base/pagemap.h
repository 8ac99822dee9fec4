// What the pages of a process are: PAGEMAP_SCAN, and the bits of /proc/PID/pagemap where the kernel has no such call
// (before Linux 6.7). `pagemap_fd` is /proc/PID/pagemap; ranges are addresses in that process, in bytes, multiples of
// the page size; results are sorted and merged. Who gives a Piecework shares the walk with whoever helps there.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/file_system.h"
#include "base/piecework.h"
#include "base/result.h"

namespace stasis {

// Whether a kernel of this release (uname -r) does. From Linux 6.7 until "fix uffd-wp confusion in
// pagemap_scan_pmd_entry()" (6.9, and 6.8.10: a distribution's 6.8 does not say whether it has it) a page that was
// written and then swapped out, or was about to be moved, could be taken for one that was not written.
bool tells_written_pages(std::string_view kernel_release);
bool kernel_tells_written_pages();  // this one

// Pages that were written since they were last write-protected by a userfaultfd, or never were. With `reset` they are
// write-protected again in the same step. kUnimplemented where the kernel does not tell, and with `reset` also where
// the range is not registered for asynchronous write-protection.
Result<std::vector<Range>> scan_written_pages(int pagemap_fd, Range range, bool reset, Piecework* shared = nullptr);

// Pages that are the process's own, present or swapped out: of a private mapping of a file those that it has written,
// elsewhere those that it has touched. A page of zeros that was only read may be among them (before Linux 6.7). Not for
// shared memory: what of that is swapped out is not told.
Result<std::vector<Range>> scan_private_pages(int pagemap_fd, Range range);
// Pages that are there (present or swapped out) and that scan_written_pages() would tell, write-protected again in the
// same step. For private mappings: that one would also protect pages that are not there, by markers which a later scan
// takes for pages that are swapped out. Pages of a mapped file that were only read are among them. An order of
// magnitude cheaper than to ask whose each page is (1.2 to 2.4 ms and 30 ms for 4 GiB).
Result<std::vector<Range>> scan_written_there(int pagemap_fd, Range range, Piecework* shared = nullptr);
// Pages that are not present: never touched, given back or swapped out. kUnimplemented before Linux 6.7.
Result<std::vector<Range>> scan_absent_pages(int pagemap_fd, Range range);
// As scan_private_pages(), from the bits alone.
Result<std::vector<Range>> read_private_pages(int pagemap_fd, Range range);

// Sorted, disjoint ranges as the scans above walk them best: joined where no more is between two of them than a call
// costs to walk.
std::vector<Range> join_for_walk(const std::vector<Range>& ranges);

// Bytes of pages that are present, whatever they are.
Result<uint64_t> present_bytes(int pagemap_fd, Range range);

}  // namespace stasis
