#include <algorithm>

#include "base/clock.h"
#include "snapshot/block_map_builder.h"
#include "snapshot/checksum.h"
#include "snapshot/ranges.h"
#include "snapshot/store.h"

namespace stasis::snapshot {
namespace {

constexpr uint64_t kChunk = 1 << 20;
constexpr uint64_t kMaxBootFile = 1 << 30;
constexpr char kVmlinuxFile[] = "vmlinux";
constexpr char kInitrdFile[] = "initrd";
constexpr char kDiskMapFile[] = "disk.map";

// The parts of a file that hold data, widened to whole blocks.
Result<std::vector<Range>> data_blocks(FileSystem& fs, int fd, uint64_t size) {
  STASIS_ASSIGN(const auto ranges, fs.data_ranges(fd));
  std::vector<Range> blocks;
  for (const Range& range : ranges) {
    const uint64_t begin = range.offset / kBlockSize * kBlockSize;
    const uint64_t end = std::min(size, (range.end() + kBlockSize - 1) / kBlockSize * kBlockSize);
    if (!blocks.empty() && begin <= blocks.back().end()) {
      blocks.back().length = end - blocks.back().offset;
    } else if (begin < end) {
      blocks.push_back({begin, end - begin});
    }
  }
  return blocks;
}

// Writes the blocks of `data` that are not zeros, in runs.
Status write_runs(LayerWriter& writer, uint64_t offset, std::span<const std::byte> data, std::vector<Change>& changes) {
  const auto block_is_zero = [&](uint64_t at) { return is_zero(data.subspan(at, kBlockSize)); };
  for (uint64_t at = 0; at < data.size();) {
    uint64_t end = at;
    while (end < data.size() && !block_is_zero(end)) end += kBlockSize;
    if (end > at) {
      STASIS_TRY(writer.write(offset + at, data.subspan(at, end - at)));
      append_change(changes, {offset + at, end - at}, false);
    }
    at = end + kBlockSize;
  }
  return {};
}

struct ImportedDisk {
  BlockMap map;
  std::optional<LayerInfo> layer;
};

Result<ImportedDisk> import_disk(const Store& store, const Path& file) {
  FileSystem& fs = store.fs();
  STASIS_ASSIGN(const FileInfo info, fs.info(file));
  if (!valid_size(info.size)) {
    return fail(Code::kInvalidArgument, file.string() + " has " + std::to_string(info.size) +
                                            " bytes: a disk has a positive multiple of 4096, at most 16 TiB");
  }
  STASIS_ASSIGN(const UniqueFd fd, fs.open_read(file));
  STASIS_ASSIGN(const auto ranges, data_blocks(fs, fd.get(), info.size));
  const LayerId id = LayerId::random();
  STASIS_ASSIGN(const auto writer, LayerWriter::create(fs, store.layers_dir(), id, info.size));
  std::vector<Change> changes;
  std::vector<std::byte> buffer(kChunk);
  for (const Range& range : ranges) {
    for (uint64_t offset = range.offset; offset < range.end();) {
      const auto chunk = std::span(buffer).first(std::min(kChunk, range.end() - offset));
      STASIS_ASSIGN(const size_t n, fs.read_at(fd.get(), offset, chunk));
      if (n != chunk.size()) return fail(Code::kAborted, file.string() + " became shorter while it was read");
      STASIS_TRY(write_runs(*writer, offset, chunk, changes));
      offset += chunk.size();
    }
  }
  STASIS_ASSIGN(const BlockMap zeros, BlockMap::zeros(info.size));
  STASIS_ASSIGN(BlockMap map, zeros.merge(id, changes));
  ImportedDisk disk{std::move(map), std::nullopt};
  if (!changes.empty()) {
    STASIS_ASSIGN(disk.layer, writer->finish());
  }
  return disk;
}

Result<Part> import_part(const Store& store, SnapshotId id, const Path& source, const std::string& name) {
  FileSystem& fs = store.fs();
  STASIS_ASSIGN(const auto bytes, read_file(fs, source, kMaxBootFile));
  if (bytes.empty()) return fail(Code::kInvalidArgument, source.string() + " is empty");
  STASIS_ASSIGN(const UniqueFd fd, fs.create(store.snapshot_dir(id) / name));
  STASIS_TRY_CONTEXT(fs.write_at(fd.get(), 0, bytes), "copy " + source.string());
  STASIS_TRY_CONTEXT(fs.set_mode(fd.get(), 0444), "copy " + source.string());
  const Part part{name, bytes.size(), checksum(bytes)};
  STASIS_TRY(store.sync_part(id, part));
  return part;
}

Result<Manifest> describe_image(const Store& store, SnapshotId id, const ImageFiles& files, const ImportedDisk& disk) {
  Manifest manifest;
  manifest.id = id;
  manifest.kind = SnapshotKind::kImage;
  manifest.created_unix_ms = unix_time_ms();
  manifest.kernel = files.kernel;
  STASIS_ASSIGN(manifest.vmlinux, import_part(store, id, files.vmlinux, kVmlinuxFile));
  STASIS_ASSIGN(manifest.initrd, import_part(store, id, files.initrd, kInitrdFile));
  STASIS_ASSIGN(manifest.disk_map, store.write_map(id, kDiskMapFile, disk.map));
  manifest.disk.stored_bytes = disk.layer ? disk.layer->data_bytes : 0;
  manifest.disk.compared_bytes = disk.map.size();
  return manifest;
}

}  // namespace

Result<Manifest> import_image(const Store& store, const ImageFiles& files) {
  STASIS_ASSIGN(const StoreLock lock, store.lock_shared());
  STASIS_ASSIGN(const ImportedDisk disk, import_disk(store, files.root_disk));
  const SnapshotId id = SnapshotId::random();
  auto publish = [&]() -> Result<Manifest> {
    STASIS_TRY(store.begin(id));
    STASIS_ASSIGN(Manifest manifest, describe_image(store, id, files, disk));
    STASIS_TRY(store.publish(manifest));
    return manifest;
  };
  Result<Manifest> manifest = publish();
  if (manifest) return manifest;
  store.abandon(id);
  if (disk.layer) {
    (void)store.fs().remove(layer_data_path(store.layers_dir(), disk.layer->id));
    (void)store.fs().remove(layer_sums_path(store.layers_dir(), disk.layer->id));
  }
  return fail(std::move(manifest).error().with_context("import the image"));
}

}  // namespace stasis::snapshot
