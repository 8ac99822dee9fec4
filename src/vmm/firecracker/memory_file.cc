#include "vmm/firecracker/memory_file.h"

#include <array>

#include "base/sync_point.h"

namespace stasis::vmm {
namespace {

using snapshot::kBlockSize;

constexpr uint64_t kProbeBytes = uint64_t{4} << 20;                      // more than a huge page
constexpr uint64_t kProbeOffset = uint64_t{5} * 64 * 1024 + kBlockSize;  // no multiple of any larger block

// Written as Firecracker does it: the length first, then a page in the middle. A point "memory_file.data": the data
// ranges, as another file system would tell them.
Result<bool> one_page_is_one_page(FileSystem& fs, int fd) {
  std::array<std::byte, kBlockSize> page;
  page.fill(std::byte{0xa5});
  STASIS_TRY(fs.truncate(fd, kProbeBytes));
  STASIS_TRY(fs.write_at(fd, kProbeOffset, page));
  STASIS_ASSIGN(std::vector<Range> data, fs.data_ranges(fd));
  sync_point("memory_file.data", &data);
  return data == std::vector<Range>{{kProbeOffset, kBlockSize}};
}

Result<std::vector<Range>> written_ranges(FileSystem& fs, int fd) {
  STASIS_ASSIGN(std::vector<Range> ranges, fs.data_ranges(fd));
  for (const Range& range : ranges) {
    if (range.offset % kBlockSize != 0 || range.length % kBlockSize != 0) {
      return fail(Code::kInternal, "Firecracker's memory file holds part of a page");
    }
  }
  return ranges;
}

}  // namespace

Result<bool> holes_are_exact(const Path& directory) {
  FileSystem& fs = real_file_system();
  const Path path = directory / "holes";
  (void)fs.remove(path);
  STASIS_ASSIGN(const UniqueFd file, fs.create(path));
  (void)fs.remove(path);
  return one_page_is_one_page(fs, file.get());
}

Result<SavedMemory> open_memory_file(const Path& file, uint64_t memory_bytes, SnapshotType type) {
  FileSystem& fs = real_file_system();
  STASIS_ASSIGN(const FileInfo info, fs.info(file));
  if (info.size != memory_bytes) {
    return fail(Code::kInternal, "Firecracker's memory file has " + std::to_string(info.size) + " bytes instead of " +
                                     std::to_string(memory_bytes));
  }
  SavedMemory saved;
  STASIS_ASSIGN(UniqueFd content, fs.open_read(file));
  if (type == SnapshotType::kFull) {
    saved.candidates = {{0, memory_bytes}};
  } else {
    STASIS_ASSIGN(saved.candidates, written_ranges(fs, content.get()));
  }
  saved.fresh = saved.candidates;
  saved.source = MemorySource::of_file(std::move(content));
  return saved;
}

}  // namespace stasis::vmm
