#include "base/memory_source.h"

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>

namespace stasis {
namespace {

constexpr size_t kRangesAtOnce = 64;

// What is left of `pieces` behind their first `bytes`.
std::span<iovec> behind(std::span<iovec> pieces, size_t bytes) {
  while (!pieces.empty() && bytes >= pieces.front().iov_len) {
    bytes -= pieces.front().iov_len;
    pieces = pieces.subspan(1);
  }
  if (bytes > 0)
    pieces.front() = {static_cast<std::byte*>(pieces.front().iov_base) + bytes, pieces.front().iov_len - bytes};
  return pieces;
}

}  // namespace

Status MemorySource::read(FileSystem& fs, std::span<const Range> ranges, std::span<std::byte> out) const {
  return process_ == 0 ? read_file(fs, ranges, out) : read_process(ranges, out);
}

Status MemorySource::read(FileSystem& fs, uint64_t offset, std::span<std::byte> out) const {
  return read(fs, std::array{Range{offset, out.size()}}, out);
}

Status MemorySource::read_file(FileSystem& fs, std::span<const Range> ranges, std::span<std::byte> out) const {
  for (const Range& range : ranges) {
    auto n = fs.read_at(file_.get(), range.offset, out.first(range.length));
    if (!n) return fail(std::move(n).error().with_context("offset " + std::to_string(range.offset)));
    if (*n != range.length) return fail(Code::kOutOfRange, "the memory ends at " + std::to_string(range.offset + *n));
    out = out.subspan(range.length);
  }
  return {};
}

Status MemorySource::read_process(std::span<const Range> ranges, std::span<std::byte> out) const {
  while (!ranges.empty()) {
    const auto some = ranges.first(std::min(ranges.size(), kRangesAtOnce));
    const uint64_t bytes = total_length(some);
    STASIS_TRY(read_at_once(some, out.first(bytes)));
    ranges = ranges.subspan(some.size());
    out = out.subspan(bytes);
  }
  return {};
}

// Not through /proc/PID/mem, which looks up each page by itself and copies it twice. Pages of 4 KiB in runs of 128 KiB
// take 1.1 us each there, and 0.94 here (0.86 out of a memfd); one by one 1.8 and 2.2, and 1.05 where many are asked
// for at once.
Status MemorySource::read_at_once(std::span<const Range> ranges, std::span<std::byte> out) const {
  std::array<iovec, kRangesAtOnce> pieces{};
  std::ranges::transform(ranges, pieces.begin(), [&](const Range& range) {
    return iovec{reinterpret_cast<void*>(address_ + range.offset), range.length};  // NOLINT(performance-no-int-to-ptr)
  });
  for (auto rest = std::span(pieces).first(ranges.size()); !rest.empty();) {
    const iovec here{out.data(), out.size()};
    const ssize_t n = ::process_vm_readv(process_, &here, 1, rest.data(), rest.size(), 0);
    // What lies before a page that cannot be had is given first.
    if (n <= 0) {
      const uint64_t offset = reinterpret_cast<uint64_t>(rest.front().iov_base) - address_;
      return fail_errno(n < 0 ? errno : EFAULT, "read offset " + std::to_string(offset) + " of the memory of process " +
                                                    std::to_string(process_));
    }
    out = out.subspan(static_cast<size_t>(n));
    rest = behind(rest, static_cast<size_t>(n));
  }
  return {};
}

}  // namespace stasis
