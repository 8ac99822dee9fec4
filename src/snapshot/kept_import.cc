#include "snapshot/kept_import.h"

#include <algorithm>
#include <cstring>

#include "base/file_lock.h"
#include "base/log.h"
#include "snapshot/crc32c.h"
#include "snapshot/wire.h"

namespace stasis::snapshot {
namespace {

constexpr std::string_view kMagic = "STASISKI";
constexpr uint32_t kVersion = 1;
constexpr size_t kKeptSize = 36;
constexpr size_t kCrcOffset = 32;
constexpr const char* kKeptFile = "kept";
constexpr const char* kArchiveFile = "archive";
// What a power cut or a killed agent costs.
constexpr uint64_t kSaveEvery = 32 << 20;

std::vector<std::byte> encode(const Kept& kept) {
  WireWriter out(kKeptSize);
  out.append(kMagic.data(), kMagic.size());
  out.u32(kVersion);
  out.u32(0);
  out.u64(kept.bytes);
  out.u64(kept.checksum);
  out.u32(crc32c(out.bytes()));
  return out.take();
}

// Nothing: it is none, or of another version; then what is beside it is begun again.
std::optional<Kept> decode(std::span<const std::byte> bytes) {
  if (bytes.size() != kKeptSize || std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) return {};
  WireReader in(bytes.subspan(kMagic.size()));
  const bool known = in.u32() == kVersion && in.u32() == 0;
  const Kept kept{in.u64(), in.u64()};
  if (!known || in.u32() != crc32c(bytes.first(kCrcOffset))) return {};
  return kept;
}

Path directory_of(const Store& store, const Uuid& stream) { return kept_imports_dir(store) / stream.text(); }

// kNotFound for nothing, and for what is no more than nothing; other errors leave it open.
Result<Kept> load(FileSystem& fs, const Path& directory) {
  const auto nothing = [&] {
    return fail(Code::kNotFound, "nothing is kept of import " + directory.filename().string());
  };
  const auto bytes = read_file(fs, directory / kKeptFile, kKeptSize);
  if (!bytes && bytes.error().code != Code::kNotFound && bytes.error().code != Code::kDataLoss) {
    return fail(bytes.error());
  }
  const std::optional<Kept> kept = bytes ? decode(*bytes) : std::nullopt;
  if (!kept || kept->bytes == 0) return nothing();
  const auto archive = fs.info(directory / kArchiveFile);
  if (!archive && archive.error().code != Code::kNotFound) return fail(archive.error());
  if (!archive || archive->size < kept->bytes) return nothing();
  return *kept;
}

Status remove_all(FileSystem& fs, const Path& directory) {
  // Without this file the rest is rubbish, whatever comes between.
  if (Status gone = fs.remove(directory / kKeptFile); !gone && gone.error().code != Code::kNotFound) return gone;
  return remove_tree(fs, directory);
}

// One stream's directory, locked.
class KeptImport {
 public:
  // Nothing if there are as many as there may be.
  static Result<std::optional<KeptImport>> open(const Store& store, const Uuid& stream);
  KeptImport(KeptImport&&) = default;
  KeptImport(const KeptImport&) = delete;
  KeptImport& operator=(const KeptImport&) = delete;
  KeptImport& operator=(KeptImport&&) = delete;
  ~KeptImport() {
    if (file_ && kept_.bytes == 0) forget();
  }

  const Kept& kept() const { return kept_; }
  Result<size_t> read(uint64_t offset, std::span<std::byte> out) const {
    return fs_->read_at(file_.get(), offset, out);
  }
  Status write(uint64_t offset, std::span<const std::byte> bytes) { return fs_->write_at(file_.get(), offset, bytes); }
  // From now on these count.
  Status save(const Kept& kept) {
    STASIS_TRY(fs_->sync(file_.get()));
    STASIS_TRY(publish_file(*fs_, directory_ / kKeptFile, encode(kept)));
    kept_ = kept;
    return {};
  }
  void forget();

 private:
  KeptImport(FileSystem& fs, Path directory, UniqueFd lock)
      : fs_(&fs), directory_(std::move(directory)), lock_(std::move(lock)) {}
  Status open_files();

  FileSystem* fs_;
  Path directory_;
  UniqueFd lock_;
  UniqueFd file_;
  Kept kept_;
};

// The lock of the stream's directory, which is made if it is missing.
Result<std::optional<UniqueFd>> lock_stream(const Store& store, const Uuid& stream) {
  // Between the making of a directory and its lock neither a collection nor another import must come.
  STASIS_ASSIGN(const StoreLock shared, store.lock_shared());
  FileSystem& fs = store.fs();
  const Path all = kept_imports_dir(store);
  STASIS_TRY(fs.make_directory(all));
  STASIS_ASSIGN(const UniqueFd one_at_a_time, lock_directory(all, LockKind::kExclusive));
  STASIS_ASSIGN(const auto names, fs.list(all));
  const bool there = std::find(names.begin(), names.end(), stream.text()) != names.end();
  if (!there && names.size() >= kMaxKeptImports) return std::nullopt;
  STASIS_TRY(fs.make_directory(directory_of(store, stream)));
  auto lock = lock_directory(directory_of(store, stream), LockKind::kTryExclusive);
  if (!lock && lock.error().code == Code::kAborted) {
    return fail(Code::kAborted, "another import of this archive is under way", "wait for it, or try again in a moment");
  }
  if (!lock) return fail(std::move(lock).error());
  if (!there) {
    STASIS_TRY(fs.sync_directory(all));
    STASIS_TRY(fs.sync_directory(store.root()));
  }
  return std::move(*lock);
}

Result<std::optional<KeptImport>> KeptImport::open(const Store& store, const Uuid& stream) {
  STASIS_ASSIGN(std::optional<UniqueFd> lock, lock_stream(store, stream));
  if (!lock) return std::nullopt;
  KeptImport import(store.fs(), directory_of(store, stream), std::move(*lock));
  STASIS_TRY(import.open_files());
  return import;
}

Status KeptImport::open_files() {
  const Path archive = directory_ / kArchiveFile;
  const auto kept = load(*fs_, directory_);
  if (kept) {
    kept_ = *kept;
    STASIS_ASSIGN(file_, fs_->open_write(archive));
    return fs_->truncate(file_.get(), kept_.bytes);  // what came behind that and was never synced
  }
  if (kept.error().code != Code::kNotFound) return fail(kept.error());
  for (const char* left : {kKeptFile, kArchiveFile}) {
    if (Status gone = fs_->remove(directory_ / left); !gone && gone.error().code != Code::kNotFound) return gone;
  }
  STASIS_ASSIGN(file_, fs_->create(archive));
  return {};
}

void KeptImport::forget() {
  const auto one_at_a_time = lock_directory(directory_.parent_path(), LockKind::kExclusive);
  if (Status gone = remove_all(*fs_, directory_); !gone) spdlog::warn("import: {}", gone.error().message);
  file_.reset();
  lock_.reset();
}

// The archive as the import reads it: first what is kept, if it goes on behind that, then what comes.
class KeptSource {
 public:
  KeptSource(KeptImport& kept, const Kept& from, const ArchiveSource& source)
      : kept_(kept), from_(from), source_(source), saved_(kept.kept().bytes) {}

  Result<size_t> read(std::span<std::byte> out) {
    if (position_ < from_.bytes) return read_kept(out);
    STASIS_ASSIGN(const size_t n, source_(out));
    ended_ = ended_ || n == 0;
    if (n > 0) keep(out.first(n));
    return n;
  }

  void finish(Result<Manifest>& manifest) {
    const Code code = manifest ? Code::kUnknown : manifest.error().code;
    // Whatever comes behind it, it is no archive. One that ends too early may yet come whole.
    const bool hopeless = (code == Code::kDataLoss || code == Code::kInvalidArgument) && !ended_;
    if (hopeless && position_ <= from_.bytes && from_.bytes > 0) {
      manifest = fail(Error(manifest.error())
                          .with_context("what was kept of the archive")
                          .with_remedy("it has been removed: import the archive from its beginning"));
    }
    if (hopeless) stop_keeping();
    if (keeping_ && position_ > kept_.kept().bytes) save();
  }

 private:
  Result<size_t> read_kept(std::span<std::byte> out) {
    const auto length = static_cast<size_t>(std::min<uint64_t>(out.size(), from_.bytes - position_));
    STASIS_ASSIGN(const size_t n, kept_.read(position_, out.first(length)));
    advance(out.first(n));
    if (n == 0 || (position_ == from_.bytes && sum_.digest() != from_.checksum)) {
      return fail(Code::kDataLoss, "it is not what it was");
    }
    return n;
  }

  void keep(std::span<const std::byte> bytes) {
    if (Status kept = keeping_ ? put(bytes) : Status(); !kept) {
      spdlog::warn("import: what has come is not kept any more: {}", kept.error().message);
      stop_keeping();
    }
    advance(bytes);
    if (keeping_ && position_ >= saved_ + kSaveEvery) save();
  }

  Status put(std::span<const std::byte> bytes) {
    STASIS_ASSIGN(const bool there, is_kept(bytes));
    if (there) return {};
    // From here on it is another one, or more of it.
    if (position_ < kept_.kept().bytes) {
      STASIS_TRY(kept_.save({position_, sum_.digest()}));
      saved_ = position_;
    }
    return kept_.write(position_, bytes);
  }

  Result<bool> is_kept(std::span<const std::byte> bytes) {
    if (position_ + bytes.size() > kept_.kept().bytes) return false;
    same_.resize(bytes.size());
    STASIS_ASSIGN(const size_t n, kept_.read(position_, same_));
    return n == bytes.size() && std::equal(bytes.begin(), bytes.end(), same_.begin());
  }

  void advance(std::span<const std::byte> bytes) {
    sum_.update(bytes);
    position_ += bytes.size();
  }

  void save() {
    saved_ = position_;
    if (Status saved = kept_.save({position_, sum_.digest()}); !saved) {
      spdlog::warn("import: what has come is not kept any more: {}", saved.error().message);
      stop_keeping();
    }
  }

  void stop_keeping() {
    if (keeping_) kept_.forget();
    keeping_ = false;
  }

  KeptImport& kept_;
  const Kept from_;
  const ArchiveSource& source_;
  Checksum sum_;
  uint64_t position_ = 0;
  uint64_t saved_;
  std::vector<std::byte> same_;
  bool keeping_ = true;
  bool ended_ = false;
};

}  // namespace

Path kept_imports_dir(const Store& store) { return store.root() / "imports"; }

Path kept_archive_path(const Store& store, const Uuid& stream) { return directory_of(store, stream) / kArchiveFile; }

Result<Kept> find_kept_import(const Store& store, const Uuid& stream) {
  return load(store.fs(), directory_of(store, stream));
}

bool no_place_for_import(const Store& store) {
  const auto names = store.fs().list(kept_imports_dir(store));
  return names && names->size() >= kMaxKeptImports;
}

Status forget_kept_import(const Store& store, const Uuid& stream) {
  const auto one_at_a_time = lock_directory(kept_imports_dir(store), LockKind::kExclusive);
  if (!one_at_a_time && one_at_a_time.error().code == Code::kNotFound) return {};
  if (!one_at_a_time) return fail(one_at_a_time.error());
  const auto lock = lock_directory(directory_of(store, stream), LockKind::kTryExclusive);
  if (!lock && lock.error().code == Code::kNotFound) return {};
  if (!lock) return fail(lock.error());
  return remove_all(store.fs(), directory_of(store, stream));
}

Result<Manifest> import_kept_snapshot(const Store& store, const ImportOptions& options, const ImportStream& stream,
                                      const ArchiveSource& source) {
  auto kept = KeptImport::open(store, stream.id);
  if (!kept && (stream.from.bytes > 0 || kept.error().code == Code::kAborted)) {
    return fail(std::move(kept).error().with_context("import a snapshot"));
  }
  if (!kept) spdlog::warn("import: what comes is not kept: {}", kept.error().message);
  const bool kept_at_all = kept && *kept;
  if (stream.from.bytes > 0 && (!kept_at_all || (*kept)->kept() != stream.from)) {
    return fail(Code::kFailedPrecondition, "what is kept of this import is not what the rest of it is sent for",
                "send the archive from its beginning, or ask again how much of it is kept");
  }
  if (!kept_at_all) return import_snapshot(store, options, source);
  KeptSource kept_source(**kept, stream.from, source);
  auto manifest = import_snapshot(store, options, [&](std::span<std::byte> out) { return kept_source.read(out); });
  kept_source.finish(manifest);
  return manifest;
}

}  // namespace stasis::snapshot
