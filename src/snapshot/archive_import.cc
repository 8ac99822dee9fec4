#include <array>
#include <bit>

#include "base/host_probe.h"
#include "snapshot/archive_records.h"
#include "snapshot/files.h"
#include "snapshot/flat_map.h"
#include "snapshot/staging.h"
#include "snapshot/wire.h"

namespace stasis::snapshot {
namespace {

constexpr uint64_t kSyncEvery = 32 << 20;
constexpr const char* kStateFile = "state";

tl::unexpected<Error> wrong(const std::string& why) { return fail(Code::kDataLoss, "the archive is damaged: " + why); }

Result<std::string> note_of(const Record& record) {
  if (record.kind != RecordKind::kNote || record.payload.size() > kMaxArchiveNote) return wrong("it has no note");
  return std::string(reinterpret_cast<const char*>(record.payload.data()), record.payload.size());
}

class Import {
 public:
  Import(const Store& store, const ImportOptions& options, const ArchiveSource& source)
      : store_(store), fs_(store.fs()), options_(options), records_(source) {}

  Result<Manifest> run() {
    STASIS_TRY(check_absent(fs_, store_.snapshot_dir(options_.id), "snapshot " + options_.id.text()));
    STASIS_ASSIGN(const Staging staging, Staging::open(store_, "import-" + options_.id.text()));
    STASIS_TRY(read_head());
    STASIS_TRY(read_state(staging));
    for (size_t i = 0; i < spaces_.size(); ++i) STASIS_TRY(read_space(staging, static_cast<uint32_t>(i + 1)));
    if (record_.kind != RecordKind::kEnd) return wrong("there is more in it than a snapshot has");
    STASIS_TRY(options_.on_note(note_));
    return publish(staging);
  }

 private:
  struct Space {
    const char* map_file;
    std::optional<Part> Manifest::*part;
    GenerationStats Manifest::*stats;
    BlockMap map = {};
    std::optional<LayerInfo> layer = {};
  };

  Status next() {
    STASIS_ASSIGN(record_, records_.next());
    return {};
  }

  Status read_head() {
    STASIS_TRY(next());
    if (record_.kind != RecordKind::kManifest) return wrong("it does not begin with a manifest");
    STASIS_ASSIGN(manifest_, Manifest::decode(record_.payload));
    const bool complete = manifest_.kind == SnapshotKind::kSnapshot && manifest_.vm_state && !manifest_.memory_map &&
                          !manifest_.disk_map && !manifest_.vmlinux && !manifest_.initrd;
    if (!complete) return wrong("its manifest is not one of an exported snapshot");
    STASIS_TRY(next());
    STASIS_ASSIGN(note_, note_of(record_));
    return next();
  }

  Status read_state(const Staging& staging) {
    STASIS_ASSIGN(const UniqueFd fd, fs_.create(staging.directory() / kStateFile));
    Checksum sum;
    uint64_t size = 0;
    while (record_.kind == RecordKind::kState) {
      if (record_.offset != size || record_.payload.empty()) return wrong("pieces of the device state are missing");
      STASIS_TRY_CONTEXT(fs_.write_at(fd.get(), size, record_.payload), "write the device state");
      sum.update(record_.payload);
      size += record_.payload.size();
      STASIS_TRY(next());
    }
    if (size != manifest_.vm_state->size || sum.digest() != manifest_.vm_state->checksum) {
      return wrong("the device state is not what its manifest says");
    }
    return {};
  }

  Status read_space(const Staging& staging, uint32_t number) {
    Space& space = spaces_[number - 1];
    STASIS_ASSIGN(const BlockMap::Metadata metadata, read_metadata(number));
    const LayerId id = LayerId::random();
    STASIS_ASSIGN(const auto writer, LayerWriter::create(fs_, staging.directory(), id, metadata.size));
    FlatMap map(metadata, id);
    uint64_t position = 0;
    uint64_t unsynced = 0;
    STASIS_TRY(check_room());
    STASIS_TRY(next());
    while (record_.kind == RecordKind::kWindow) {
      if (record_.space != number || record_.offset < position || record_.offset % kArchiveWindow != 0 ||
          record_.offset >= metadata.size) {
        return wrong("a window is out of place");
      }
      position = record_.offset + kArchiveWindow;
      STASIS_TRY(read_window(*writer, metadata.size, map));
      unsynced += record_.payload.size();
      if (unsynced >= kSyncEvery) {
        STASIS_TRY(writer->sync());
        STASIS_TRY(check_room());
        unsynced = 0;
      }
      STASIS_TRY(next());
    }
    if (!map.empty()) {
      STASIS_ASSIGN(space.layer, writer->finish());
    }
    STASIS_ASSIGN(space.map, map.finish());
    return {};
  }

  Status check_room() const {
    STASIS_ASSIGN(const uint64_t free, free_disk_space(store_.root()));
    if (free >= options_.free_afterwards) return {};
    return fail(Code::kResourceExhausted,
                "the store has " + std::to_string(free >> 20) + " MiB left, and an import leaves it " +
                    std::to_string(options_.free_afterwards >> 20) + " MiB free",
                "make room, and import it again");
  }

  Result<BlockMap::Metadata> read_metadata(uint32_t number) {
    if (record_.kind != RecordKind::kSpace || record_.space != number || record_.payload.size() != kSpacePayload) {
      return wrong(std::string("it has no ") + (number == 1 ? "memory" : "disk"));
    }
    WireReader in(record_.payload);
    BlockMap::Metadata metadata;
    metadata.size = in.u64();
    metadata.generation = in.u64();
    metadata.id = in.uuid();
    metadata.base_id = in.uuid();
    STASIS_TRY(BlockMap::zeros(metadata.size));  // a size that an address space may have
    if (metadata.id.is_nil()) return wrong("an address space has no id");
    if (number == 1 && metadata.size != uint64_t{manifest_.machine.memory_mib} << 20) {
      return wrong("its memory has another size than its machine");
    }
    return metadata;
  }

  Status read_window(LayerWriter& writer, uint64_t size, FlatMap& map) {
    if (record_.payload.size() < kWindowBitmap) return wrong("a window is too short");
    const auto bitmap = record_.payload.first(kWindowBitmap);
    auto rest = record_.payload.subspan(kWindowBitmap);
    uint64_t blocks = 0;
    for (const std::byte byte : bitmap) blocks += static_cast<uint64_t>(std::popcount(std::to_integer<uint8_t>(byte)));
    if (rest.size() != blocks * kBlockSize) return wrong("a window has not the blocks that it says");
    const auto is_live = [&](uint64_t block) {
      return block < kWindowBlocks && (bitmap[block / 8] >> (block % 8) & std::byte{1}) != std::byte{0};
    };
    for (uint64_t block = 0; block < kWindowBlocks;) {
      if (!is_live(block)) {
        ++block;
        continue;
      }
      uint64_t count = 1;
      while (is_live(block + count)) ++count;
      const Range run{record_.offset + block * kBlockSize, count * kBlockSize};
      if (run.end() > size) return wrong("a block lies behind the end of its address space");
      STASIS_TRY(writer.write(run.offset, rest.first(run.length)));
      STASIS_TRY(map.append(run));
      rest = rest.subspan(run.length);
      block += count;
    }
    return {};
  }

  Result<Manifest> publish(const Staging& staging) {
    STASIS_ASSIGN(const StoreLock lock, store_.lock_shared());
    Status begun = store_.begin(options_.id).map([](const Path&) {});
    if (!begun) return fail(std::move(begun).error());
    Status published = fill_in(staging);
    if (published) return manifest_;
    store_.abandon(options_.id);
    // Unless the device fails so that the manifest stands: then it has its layers.
    const auto stands = store_.load(options_.id);
    const bool gone = !stands && stands.error().code == Code::kNotFound;
    for (const Space& space : spaces_) {
      if (gone && space.layer) drop_layer(fs_, store_.layers_dir(), space.layer->id);
    }
    return fail(std::move(published).error());
  }

  Status fill_in(const Staging& staging) {
    manifest_.id = options_.id;
    STASIS_TRY(fs_.rename(staging.directory() / kStateFile, store_.snapshot_dir(options_.id) / kStateFile));
    manifest_.vm_state->file = kStateFile;
    STASIS_TRY(store_.sync_part(options_.id, *manifest_.vm_state));
    for (const Space& space : spaces_) {
      if (space.layer) STASIS_TRY(staging.take_over(space.layer->id));
      STASIS_ASSIGN(manifest_.*space.part, store_.write_map(options_.id, space.map_file, space.map));
      (manifest_.*space.stats).stored_bytes = space.layer ? space.layer->data_bytes : 0;
    }
    return store_.publish(manifest_);
  }

  const Store& store_;
  FileSystem& fs_;
  const ImportOptions& options_;
  RecordReader records_;
  Record record_;
  Manifest manifest_;
  std::string note_;
  std::array<Space, 2> spaces_{
      {{"memory.map", &Manifest::memory_map, &Manifest::memory}, {"disk.map", &Manifest::disk_map, &Manifest::disk}}};
};

}  // namespace

Result<std::string> read_archive_note(const ArchiveSource& source) {
  RecordReader records(source);
  STASIS_TRY(records.next());  // the manifest
  STASIS_ASSIGN(const Record record, records.next());
  return note_of(record);
}

Result<Manifest> import_snapshot(const Store& store, const ImportOptions& options, const ArchiveSource& source) {
  auto manifest = Import(store, options, source).run();
  if (!manifest) return fail(std::move(manifest).error().with_context("import a snapshot"));
  return manifest;
}

}  // namespace stasis::snapshot
