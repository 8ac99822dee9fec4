#include <algorithm>
#include <cstring>

#include "snapshot/archive_records.h"
#include "snapshot/flatten.h"
#include "snapshot/wire.h"

namespace stasis::snapshot {
namespace {

class Export {
 public:
  Export(const Store& store, SnapshotId id, ExportOptions options, const ArchiveSink& sink)
      : store_(store), id_(id), options_(std::move(options)), sink_(sink), window_(kMaxPayload) {}

  Result<uint64_t> run() {
    STASIS_TRY(open());
    Manifest manifest = manifest_;  // where the blocks are is the store's business, and changes with a compaction
    manifest.memory_map.reset();
    manifest.disk_map.reset();
    STASIS_TRY(put({RecordKind::kManifest, 0, 0, manifest.encode()}));
    STASIS_TRY(put({RecordKind::kNote, 0, 0, std::as_bytes(std::span(options_.note))}));
    for (uint64_t at = 0; at < state_.size(); at += kArchiveWindow) {
      const auto piece = std::span(state_).subspan(at, std::min<size_t>(kArchiveWindow, state_.size() - at));
      STASIS_TRY(put({RecordKind::kState, 0, at, piece}));
    }
    STASIS_TRY(put_space(1, *memory_));
    STASIS_TRY(put_space(2, *disk_));
    STASIS_ASSIGN(const auto end, records_.encode_end());
    STASIS_TRY(hand_over(end));
    if (length_ >= options_.from) return length_;
    return fail(Code::kOutOfRange, "the archive has " + std::to_string(length_) + " bytes, and is to begin at " +
                                       std::to_string(options_.from));
  }

 private:
  // From then on open descriptors keep the layers, whatever is removed and collected.
  Status open() {
    if (options_.note.size() > kMaxArchiveNote)
      return fail(Code::kInvalidArgument, "the note of an archive is too long");
    STASIS_ASSIGN(const StoreLock lock, store_.lock_shared());
    STASIS_ASSIGN(manifest_, store_.load(id_));
    if (manifest_.kind == SnapshotKind::kImage) {
      return fail(Code::kFailedPrecondition, "an image is not exported", "build it where it is needed (make image)");
    }
    if (!manifest_.vm_state || !manifest_.memory_map || !manifest_.disk_map) {
      return fail(Code::kDataLoss, "snapshot " + id_.text() + " has no device state, memory or disk");
    }
    STASIS_ASSIGN(state_, store_.read_part(id_, *manifest_.vm_state));
    STASIS_ASSIGN(memory_, open(*manifest_.memory_map));
    STASIS_ASSIGN(disk_, open(*manifest_.disk_map));
    return {};
  }

  Result<std::shared_ptr<AddressSpace>> open(const Part& part) {
    STASIS_ASSIGN(BlockMap map, store_.read_map(id_, part));
    return AddressSpace::open(store_.fs(), store_.layers_dir(), std::move(map));
  }

  Status put_space(uint32_t space, const AddressSpace& content) {
    const BlockMap::Metadata& metadata = content.map().metadata();
    WireWriter out(kSpacePayload);
    out.u64(metadata.size);
    out.u64(metadata.generation);
    out.uuid(metadata.id);
    out.uuid(metadata.base_id);
    STASIS_TRY(put({RecordKind::kSpace, space, 0, out.bytes()}));
    Flattener flattener(content, options_.limit, kArchiveWindow);
    begin_window(0);
    const auto take = [&](uint64_t offset, std::span<const std::byte> data) -> Status {
      if (offset / kArchiveWindow != window_offset_ / kArchiveWindow) {
        STASIS_TRY(put_window(space));
        begin_window(offset / kArchiveWindow * kArchiveWindow);
      }
      add(offset, data);
      return {};
    };
    STASIS_TRY(flattener.run(0, take));
    return put_window(space);
  }

  void begin_window(uint64_t offset) {
    window_offset_ = offset;
    window_size_ = kWindowBitmap;
    std::fill_n(window_.begin(), kWindowBitmap, std::byte{0});
  }

  // A run within the window: the bits of its blocks, and their bytes.
  void add(uint64_t offset, std::span<const std::byte> data) {
    for (uint64_t at = 0; at < data.size(); at += kBlockSize) {
      const uint64_t block = (offset + at - window_offset_) / kBlockSize;
      window_[block / 8] |= std::byte(1U << (block % 8));
    }
    std::memcpy(window_.data() + window_size_, data.data(), data.size());
    window_size_ += data.size();
  }

  Status put_window(uint32_t space) {
    if (window_size_ == kWindowBitmap) return {};
    return put({RecordKind::kWindow, space, window_offset_, std::span(window_).first(window_size_)});
  }

  Status put(const Record& record) {
    STASIS_ASSIGN(const auto bytes, records_.encode(record));
    return hand_over(bytes);
  }

  Status hand_over(std::span<const std::byte> bytes) {
    const uint64_t begin = length_;
    length_ += bytes.size();
    if (length_ <= options_.from) return {};
    return sink_(bytes.subspan(options_.from > begin ? options_.from - begin : 0));
  }

  const Store& store_;
  const SnapshotId id_;
  ExportOptions options_;
  const ArchiveSink& sink_;
  Manifest manifest_;
  std::vector<std::byte> state_;
  std::shared_ptr<AddressSpace> memory_;
  std::shared_ptr<AddressSpace> disk_;
  RecordWriter records_;
  std::vector<std::byte> window_;
  uint64_t window_offset_ = 0;
  size_t window_size_ = 0;
  uint64_t length_ = 0;
};

}  // namespace

Result<uint64_t> export_snapshot(const Store& store, SnapshotId id, ExportOptions options, const ArchiveSink& sink) {
  auto length = Export(store, id, std::move(options), sink).run();
  if (!length) return fail(std::move(length).error().with_context("export snapshot " + id.text()));
  return length;
}

}  // namespace stasis::snapshot
