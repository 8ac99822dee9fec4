#include "snapshot/working_set.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "snapshot/crc32c.h"
#include "snapshot/wire.h"

namespace stasis::snapshot {
namespace {

constexpr std::string_view kMagic = "STASISWS";
constexpr uint32_t kVersion = 1;
constexpr size_t kHeaderSize = 36;
constexpr size_t kEntrySize = 12;
constexpr size_t kHeaderCrcOffset = 32;

bool is_memory_size(uint64_t size) { return size > 0 && size % kBlockSize == 0 && size <= kMaxAddressSpace; }

bool is_valid(const WorkingSetEntry& entry, uint64_t memory_size) {
  const Range& range = entry.range;
  return range.length > 0 && range.offset % kBlockSize == 0 && range.length % kBlockSize == 0 &&
         range.offset < memory_size && range.length <= memory_size - range.offset;
}

tl::unexpected<Error> damaged(const char* what) { return fail(Code::kDataLoss, std::string("working set: ") + what); }

}  // namespace

Result<std::vector<std::byte>> WorkingSet::encode() const {
  if (!is_memory_size(memory_size)) {
    return fail(Code::kInvalidArgument, "a working set belongs to a memory of whole blocks");
  }
  if (entries.size() > kMaxWorkingSetEntries) return fail(Code::kInvalidArgument, "the working set is too large");
  WireWriter table(entries.size() * kEntrySize);
  for (const WorkingSetEntry& entry : entries) {
    if (!is_valid(entry, memory_size)) return fail(Code::kInvalidArgument, "the working set leaves its memory");
    table.u32(static_cast<uint32_t>(entry.range.offset / kBlockSize));
    table.u32(static_cast<uint32_t>(entry.range.length / kBlockSize));
    table.u32(entry.when_us);
  }
  WireWriter file(kHeaderSize + table.bytes().size());
  file.append(kMagic.data(), kMagic.size());
  file.u32(kVersion);
  file.u32(static_cast<uint32_t>(entries.size()));
  file.u64(memory_size);
  file.u32(restores);
  file.u32(crc32c(table.bytes()));
  file.u32(crc32c(file.bytes()));
  file.append(table.bytes().data(), table.bytes().size());
  return file.take();
}

Result<WorkingSet> WorkingSet::decode(std::span<const std::byte> bytes) {
  if (bytes.size() < kHeaderSize || std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    return damaged("not one");
  }
  WireReader header(bytes.subspan(kMagic.size()));
  if (header.u32() != kVersion) return damaged("a version that this program does not know");
  const uint32_t count = header.u32();
  WorkingSet set;
  set.memory_size = header.u64();
  set.restores = header.u32();
  const uint32_t table_crc = header.u32();
  if (header.u32() != crc32c(bytes.first(kHeaderCrcOffset))) return damaged("its header does not match its checksum");
  if (count > kMaxWorkingSetEntries || bytes.size() != kHeaderSize + count * kEntrySize) return damaged("wrong length");
  const std::span table = bytes.subspan(kHeaderSize);
  if (crc32c(table) != table_crc) return damaged("its entries do not match their checksum");
  if (!is_memory_size(set.memory_size)) return damaged("a memory of no whole blocks");
  WireReader reader(table);
  set.entries.reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    WorkingSetEntry entry;
    entry.range.offset = uint64_t{reader.u32()} * kBlockSize;
    entry.range.length = uint64_t{reader.u32()} * kBlockSize;
    entry.when_us = reader.u32();
    if (!is_valid(entry, set.memory_size)) return damaged("an entry outside of the memory");
    set.entries.push_back(entry);
  }
  return set;
}

WorkingSet intersect(const WorkingSet& first, const WorkingSet& second) {
  const std::vector<Range> others = prefetch_ranges(second.entries, UINT64_MAX);
  WorkingSet both{first.memory_size, std::max(first.restores, second.restores) + 1, {}};
  for (const WorkingSetEntry& entry : first.entries) {
    auto other = std::partition_point(others.begin(), others.end(),
                                      [&](const Range& range) { return range.end() <= entry.range.offset; });
    for (; other != others.end() && other->offset < entry.range.end(); ++other) {
      const uint64_t start = std::max(entry.range.offset, other->offset);
      const uint64_t end = std::min(entry.range.end(), other->end());
      if (both.entries.size() < kMaxWorkingSetEntries) both.entries.push_back({{start, end - start}, entry.when_us});
    }
  }
  return both;
}

std::vector<Range> prefetch_ranges(std::span<const WorkingSetEntry> entries, uint64_t max_bytes) {
  std::vector<Range> taken;
  uint64_t left = max_bytes - max_bytes % kBlockSize;
  for (const WorkingSetEntry& entry : entries) {
    if (left == 0) break;
    const uint64_t length = std::min(entry.range.length, left);
    left -= length;
    taken.push_back({entry.range.offset, length});
  }
  std::sort(taken.begin(), taken.end(), [](const Range& a, const Range& b) { return a.offset < b.offset; });
  std::vector<Range> merged;
  for (const Range& range : taken) {
    if (!merged.empty() && range.offset <= merged.back().end()) {
      merged.back().length = std::max(merged.back().end(), range.end()) - merged.back().offset;
    } else {
      merged.push_back(range);
    }
  }
  return merged;
}

Result<WorkingSet> load_working_set(const Store& store, SnapshotId id) {
  constexpr uint64_t kMaxBytes = kHeaderSize + kMaxWorkingSetEntries * kEntrySize;
  STASIS_ASSIGN(const auto bytes, read_file(store.fs(), store.snapshot_dir(id) / kWorkingSetFile, kMaxBytes));
  return WorkingSet::decode(bytes);
}

Status write_first_guess(const Store& store, SnapshotId id, const BlockMap& map, LayerId newest,
                         std::span<const WorkingSetEntry> touched) {
  std::vector<WorkingSetEntry> all;
  for (const Extent& extent : map.extents()) {
    if (!extent.is_zero() && extent.layer == newest) all.push_back({{extent.offset, extent.length}, 0});
  }
  all.insert(all.end(), touched.begin(), touched.end());
  WorkingSet guess{map.size(), 0, {}};
  for (const Range& range : prefetch_ranges(all, kMaxPrefetchBytes)) {
    if (guess.entries.size() < kMaxWorkingSetEntries) guess.entries.push_back({range, 0});
  }
  STASIS_ASSIGN(const auto content, guess.encode());
  STASIS_ASSIGN(const UniqueFd file, store.fs().create(store.snapshot_dir(id) / kWorkingSetFile));
  return store.fs().write_at(file.get(), 0, content);
}

Status keep_working_set(const Store& store, SnapshotId id, const WorkingSet& set) {
  STASIS_ASSIGN(const auto bytes, set.encode());
  STASIS_ASSIGN(const StoreLock lock, store.lock_shared());
  // A snapshot that has gone meanwhile must not come back as a directory with nothing else in it.
  if (!exists(store.fs(), store.snapshot_dir(id) / kManifestFile)) {
    return fail(Code::kNotFound, "there is no snapshot " + id.text());
  }
  return publish_file(store.fs(), store.snapshot_dir(id) / kWorkingSetFile, bytes);
}

}  // namespace stasis::snapshot
