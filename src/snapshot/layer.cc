#include "snapshot/layer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "base/memory.h"
#include "snapshot/layer_files.h"
#include "snapshot/packed_layer.h"
#include "snapshot/seen_lately.h"

namespace stasis::snapshot {
namespace {

// 16 TiB of frames in the largest encoding; a larger file is no checksum file.
constexpr uint64_t kMaxSumsFile = 4096 + kMaxAddressSpace / kFrameSize * 12;

// A table as large is mapped: of a guest of 16 GiB its checksums would be 2 MiB of each process that serves one, and so
// all of them share those of the page cache. Smaller ones are less than what a mapping costs.
constexpr uint64_t kLargeSumsFile = 64 << 10;

// The last frame that a thread unpacked: who reads block by block unpacks each frame once.
struct FrameBuffer {
  std::vector<std::byte> bytes = std::vector<std::byte>(kFrameSize);
  uint64_t layer = 0;  // State::serial of a packed layer whose frame it holds; 0: of none
  size_t index = 0;
};

std::atomic<uint64_t> next_serial = 1;

// Whether a frame that comes from storage for the first time may be waited for.
enum class Patience { kWaits, kNow };

// As FileMapping::resident_pages() tells them of a frame, or of a part of one.
uint64_t all_pages(Range range) { return (uint64_t{1} << range.length / kBlockSize) - 1; }

}  // namespace

// Of a raw layer.
struct Layer::RawTable {
  LayerSums sums;
  FileMapping file = {};  // with the checksums, if `sums` has none
};

struct Layer::State {
  State(FileSystem& file_system, Path data_path, LayerForm layer_form, UniqueFd data, FileMapping mapped,
        PackedTable table, FileMapping mapped_sums = {})
      : fs(file_system),
        path(std::move(data_path)),
        form(layer_form),
        fd(std::move(data)),
        mapping(std::move(mapped)),
        sums_file(std::move(mapped_sums)),
        sums(std::move(table.sums)),
        checksums(sums_file.bytes().empty() ? sums.checksums : sums.checksums_in(sums_file.bytes())),
        offsets(std::move(table.offsets)),
        lengths(std::move(table.lengths)),
        verified((sums.frames.size() + 63) / 64),
        here(sums.frames.size()) {}

  bool is_verified(size_t index) const {
    return (verified[index / 64].load(std::memory_order_acquire) >> (index % 64) & 1) != 0;
  }
  void set_verified(size_t index) {
    const uint64_t bit = uint64_t{1} << (index % 64);
    if ((verified[index / 64].fetch_or(bit, std::memory_order_acq_rel) & bit) == 0) ++verified_count;
  }

  bool can_be_viewed(Range range, Patience patience);
  bool is_here(size_t index, Range part);

  bool packed() const { return form == LayerForm::kPacked; }

  Status read_bytes(uint64_t offset, std::span<std::byte> out, Patience patience) const;
  Status unpack(size_t index, std::span<std::byte> out, Patience patience) const;
  // `done`: bytes at the start of `out` that are read, also when it fails.
  Status read(uint64_t offset, std::span<std::byte> out, Patience patience, size_t& done);
  Status read_verified(uint64_t offset, std::span<std::byte> out) const;
  Status read_unverified(size_t index, uint64_t offset, std::span<std::byte> out, Patience patience);
  Status read_frame(size_t index, std::span<std::byte> out, Patience patience);
  bool verify_in_place(size_t index, Patience patience);
  std::optional<uint64_t> checksum_of_parts(Range frame, uint64_t resident) const;
  Result<size_t> index_of(uint64_t offset) const;

  FileSystem& fs;
  const Path path;
  const LayerForm form;
  const UniqueFd fd;
  // For frames that are verified, and those that are in memory. What comes from storage for the first time is
  // read: an error of the device is then told with its reason, and a hole of a file in memory stays one.
  const FileMapping mapping;
  const FileMapping sums_file;  // of nothing: `sums` holds the checksums
  const LayerSums sums;
  const std::span<const uint64_t> checksums;  // of sums.frames
  const std::vector<uint64_t> offsets;        // of a packed layer's frames, in its file
  const std::vector<uint32_t> lengths;        // there
  const uint64_t serial = next_serial.fetch_add(1, std::memory_order_relaxed);
  std::vector<std::atomic<uint64_t>> verified;  // one bit for each frame of `sums`
  std::atomic<size_t> verified_count = 0;
  SeenLately here;  // verified frames that were whole in memory
};

Layer::Layer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Layer::~Layer() = default;

LayerId Layer::id() const { return state_->sums.id; }
uint64_t Layer::size() const { return state_->sums.size; }
bool Layer::can_be_mapped() const { return !state_->packed(); }
int Layer::fd() const { return state_->fd.get(); }
bool Layer::verified_whole() const { return state_->verified_count == state_->sums.frames.size(); }

Result<std::shared_ptr<Layer>> Layer::open(FileSystem& fs, const Path& layers_dir, LayerId id) {
  auto table = read_table(fs, layer_sums_path(layers_dir, id));
  if (table) return open_raw(fs, layers_dir, id, std::move(*table));
  if (table.error().code != Code::kNotFound) return fail(lost_layer(std::move(table).error(), id));
  auto fd = fs.open_read(layer_packed_path(layers_dir, id));
  if (fd) return open_packed(fs, layers_dir, id, std::move(*fd));
  return fail(lost_layer(fd.error().code == Code::kNotFound ? table.error() : fd.error(), id));
}

// Read, where it cannot be mapped, and kept in memory as what is read would be (read_now() must not wait for it); an
// error of the device is then told with its reason.
Result<Layer::RawTable> Layer::read_table(FileSystem& fs, const Path& sums_path) {
  const auto decoded = [&](Result<LayerSums> sums) -> Result<LayerSums> {
    if (sums) return sums;
    return fail(std::move(sums).error().with_context(sums_path.string()));
  };
  STASIS_ASSIGN(const FileInfo info, fs.info(sums_path));
  if (info.size >= kLargeSumsFile && info.size <= kMaxSumsFile) {
    STASIS_ASSIGN(const UniqueFd fd, fs.open_read(sums_path));
    if (auto file = fs.map(fd.get(), info.size); file && keep_resident(file->bytes())) {
      auto sums = decoded(LayerSums::decode_frames(file->bytes()));
      if (!sums && file->intact()) return fail(std::move(sums).error());
      if (sums && file->intact()) return RawTable{std::move(*sums), std::move(*file)};
    }
  }
  STASIS_ASSIGN(const auto bytes, read_file(fs, sums_path, kMaxSumsFile));
  STASIS_ASSIGN(LayerSums sums, decoded(LayerSums::decode(bytes)));
  return RawTable{std::move(sums)};
}

Result<std::shared_ptr<Layer>> Layer::open_raw(FileSystem& fs, const Path& layers_dir, LayerId id, RawTable table) {
  const LayerSums& sums = table.sums;
  const Path data_path = layer_data_path(layers_dir, id);
  if (sums.id != id) {
    return fail(Code::kDataLoss, layer_sums_path(layers_dir, id).string() + " belongs to layer " + sums.id.text());
  }
  auto info = fs.info(data_path);
  if (!info) return fail(lost_layer(std::move(info).error(), id));
  if (info->size != sums.size) {
    return fail(Code::kDataLoss, data_path.string() + " has " + std::to_string(info->size) + " bytes instead of " +
                                     std::to_string(sums.size));
  }
  auto fd = fs.open_read(data_path);
  if (!fd) return fail(lost_layer(std::move(fd).error(), id));
  auto mapping = fs.map(fd->get(), sums.size);
  auto state = std::make_unique<State>(fs, data_path, LayerForm::kRaw, std::move(*fd),
                                       mapping ? std::move(*mapping) : FileMapping(),
                                       PackedTable{std::move(table.sums), {}, {}}, std::move(table.file));
  return std::shared_ptr<Layer>(new Layer(std::move(state)));
}

// The length of the file bounds what is allocated for its table.
Result<std::shared_ptr<Layer>> Layer::open_packed(FileSystem& fs, const Path& layers_dir, LayerId id, UniqueFd fd) {
  const Path path = layer_packed_path(layers_dir, id);
  auto info = fs.info(path);
  if (!info) return fail(lost_layer(std::move(info).error(), id));
  const auto read_table = [&]() -> Result<PackedTable> {
    std::array<std::byte, kPackedHeader> head;
    STASIS_ASSIGN(const size_t head_bytes, fs.read_at(fd.get(), 0, head));
    STASIS_ASSIGN(const PackedHeader header, PackedHeader::decode(std::span(head).first(head_bytes), info->size));
    if (header.id != id) return fail(Code::kDataLoss, "it belongs to layer " + header.id.text());
    std::vector<std::byte> bytes(header.table_bytes());
    STASIS_ASSIGN(const size_t n, fs.read_at(fd.get(), header.table_offset, bytes));
    return PackedTable::decode(header, std::span(bytes).first(n));
  };
  auto table = read_table();
  if (!table) return fail(std::move(table).error().with_context(path.string()));
  auto state = std::make_unique<State>(fs, path, LayerForm::kPacked, std::move(fd), FileMapping(), std::move(*table));
  return std::shared_ptr<Layer>(new Layer(std::move(state)));
}

Status Layer::read(uint64_t offset, std::span<std::byte> out) {
  if (offset % kBlockSize != 0 || out.size() % kBlockSize != 0) {
    return fail(Code::kInvalidArgument, "a read of " + std::to_string(out.size()) + " bytes at " +
                                            std::to_string(offset) + " of a layer is not of whole blocks");
  }
  if (offset > size() || out.size() > size() - offset) {
    return fail(Code::kOutOfRange, std::to_string(out.size()) + " bytes at " + std::to_string(offset) + " of " +
                                       state_->path.string() + ", which has " + std::to_string(size()));
  }
  size_t done = 0;
  Status status = state_->read(offset, out, Patience::kWaits, done);
  if (!status) std::memset(out.data(), 0, out.size());  // nobody may take a damaged byte for a good one
  return status;
}

size_t Layer::read_now(uint64_t offset, std::span<std::byte> out) {
  size_t done = 0;
  (void)state_->read(offset, out, Patience::kNow, done);
  return done;
}

bool Layer::is_verified(uint32_t frame) const {
  const auto index = state_->sums.find(frame);
  return index && state_->is_verified(*index);
}

LayerInfo Layer::info() const { return state_->sums.info(); }

std::span<const uint32_t> Layer::frames() const { return state_->sums.frames; }

Result<uint64_t> Layer::verify_frame(size_t index, std::span<std::byte> buffer) {
  const uint64_t length = state_->sums.frame_range(state_->sums.frames[index]).length;
  STASIS_TRY(state_->read_frame(index, buffer.first(length), Patience::kWaits));
  return length;
}

Status Layer::load(uint32_t frame) {
  thread_local std::vector<std::byte> buffer(kFrameSize);
  STASIS_ASSIGN(const size_t index, state_->index_of(uint64_t{frame} * kFrameSize));
  STASIS_TRY(verify_frame(index, buffer));
  return {};
}

std::span<const std::byte> Layer::view(uint64_t offset, uint64_t length) const {
  return state_->can_be_viewed({offset, length}, Patience::kWaits) ? state_->mapping.bytes().subspan(offset, length)
                                                                   : std::span<const std::byte>();
}

std::span<const std::byte> Layer::view_for_kernel(uint64_t offset, uint64_t length) const {
  return state_->can_be_viewed({offset, length}, Patience::kNow) ? state_->mapping.for_kernel().subspan(offset, length)
                                                                 : std::span<const std::byte>();
}

Status Layer::verify_all() {
  std::vector<std::byte> buffer(kFrameSize);
  for (size_t i = 0; i < frames().size(); ++i) STASIS_TRY(verify_frame(i, buffer));
  return {};
}

// Whether `part` of a verified frame is still in memory, as nearly all of it is: asked every ten seconds, since that
// takes 4 us of a fault's 9.
bool Layer::State::is_here(size_t index, Range part) {
  if (here.has(index)) return true;
  if (!mapping.intact()) return false;
  const Range frame = sums.frame_range(sums.frames[index]);
  const uint64_t resident = fs.resident_pages(mapping, frame);
  if (resident == all_pages(frame)) here.set(index);
  const uint64_t wanted = all_pages(part) << (part.offset - frame.offset) / kBlockSize;
  return (resident & wanted) == wanted;
}

// Every frame of it has been verified, and the file is mapped.
bool Layer::State::can_be_viewed(Range range, Patience patience) {
  for (uint64_t at = range.offset; at < range.end();) {
    const uint64_t end = std::min(range.end(), at - at % kFrameSize + kFrameSize);
    const auto index = sums.find(static_cast<uint32_t>(at / kFrameSize));
    if (!index || !is_verified(*index)) return false;
    if (patience == Patience::kNow && !is_here(*index, {at, end - at})) return false;
    at = end;
  }
  return mapping.intact();
}

// Verified frames that follow each other are copied at once. Frames of a packed layer are unpacked, and checked, each
// time: a checksum is a twentieth of that.
Status Layer::State::read(uint64_t offset, std::span<std::byte> out, Patience patience, size_t& done) {
  size_t ready = 0;  // bytes behind `done` that need no check
  while (done + ready < out.size()) {
    const uint64_t at = offset + done + ready;
    STASIS_ASSIGN(const size_t index, index_of(at));
    const uint64_t length = std::min<uint64_t>(out.size() - done - ready, kFrameSize - at % kFrameSize);
    const bool verified_before = is_verified(index);
    const bool waits = patience == Patience::kWaits || (verified_before && is_here(index, {at, length}));
    const bool as_it_is = verified_before && !packed();
    if (as_it_is && waits) {
      ready += length;
      continue;
    }
    STASIS_TRY(read_verified(offset + done, out.subspan(done, ready)));
    done += std::exchange(ready, 0);
    const auto part = out.subspan(done, length);
    const Patience until = waits ? Patience::kWaits : Patience::kNow;
    STASIS_TRY(as_it_is ? read_bytes(at, part, until) : read_unverified(index, at, part, until));
    done += length;
  }
  STASIS_TRY(read_verified(offset + done, out.subspan(done)));
  done = out.size();
  return {};
}

Status Layer::State::read_verified(uint64_t offset, std::span<std::byte> out) const {
  if (out.empty()) return {};
  if (mapping.intact()) {
    std::memcpy(out.data(), mapping.bytes().data() + offset, out.size());
    if (mapping.intact()) return {};
  }
  return read_bytes(offset, out, Patience::kWaits);
}

Result<size_t> Layer::State::index_of(uint64_t offset) const {
  const auto frame = static_cast<uint32_t>(offset / kFrameSize);
  if (const auto index = sums.find(frame)) return *index;
  return fail(Code::kDataLoss,
              path.string() + " has no data in frame " + std::to_string(frame) + ", which was asked for");
}

Status Layer::State::read_bytes(uint64_t offset, std::span<std::byte> out, Patience patience) const {
  auto n = patience == Patience::kNow ? fs.read_now(fd.get(), offset, out) : fs.read_at(fd.get(), offset, out);
  if (!n) return fail(std::move(n).error().with_context(path.string() + " at " + std::to_string(offset)));
  if (*n == out.size()) return {};
  return fail(Code::kDataLoss, path.string() + " ends at " + std::to_string(offset + *n) + ", inside the layer");
}

Status Layer::State::read_unverified(size_t index, uint64_t offset, std::span<std::byte> out, Patience patience) {
  const Range range = sums.frame_range(sums.frames[index]);
  if (verify_in_place(index, patience)) return read_verified(offset, out);
  if (out.size() == range.length) return read_frame(index, out, patience);
  thread_local FrameBuffer buffer;  // kept: an allocation for each frame of a capture adds up
  const auto frame = std::span(buffer.bytes).first(range.length);
  if (buffer.layer != serial || buffer.index != index) {
    buffer.layer = 0;
    STASIS_TRY(read_frame(index, frame, patience));
    if (packed()) buffer.layer = serial, buffer.index = index;
  }
  std::memcpy(out.data(), frame.data() + (offset - range.offset), out.size());
  return {};
}

// Verifies a frame where the file is mapped, if all that it holds is in memory; the rest are holes, which nobody may
// touch there (tmpfs would fill them). False: it is not, or something is wrong, which reading the frame will tell.
// Reading blocks in random order took half as long again while each frame was copied out first (store.read_ratio 1.37,
// 0.95). The first read in a frame: 12 us before, 9.4 now; 12 and 9.8 where runs of 40 blocks and holes alternate, 10
// and 11 where single blocks do.
bool Layer::State::verify_in_place(size_t index, Patience patience) {
  if (packed() || !mapping.intact()) return false;
  const Range frame = sums.frame_range(sums.frames[index]);
  const uint64_t resident = fs.resident_pages(mapping, frame);
  if (resident == 0) return false;
  const bool whole = resident == all_pages(frame);
  if (!whole && patience == Patience::kNow) return false;  // where holes are may be on the device
  const auto bytes = mapping.bytes().subspan(frame.offset, frame.length);
  const auto found = whole ? checksum(bytes) : checksum_of_parts(frame, resident);
  if (found != checksums[index] || !mapping.intact()) return false;
  set_verified(index);
  if (whole) here.set(index);
  return true;
}

// Of a frame with holes where `resident` has no bit; nullopt if one of them is not a hole.
std::optional<uint64_t> Layer::State::checksum_of_parts(Range frame, uint64_t resident) const {
  FrameChecksum sum(frame.length);
  while (sum.position() < frame.length) {
    const uint64_t rest = resident >> sum.position() / kBlockSize;
    const bool holds = (rest & 1) != 0;
    const uint64_t blocks = static_cast<uint64_t>(holds ? std::countr_one(rest) : std::countr_zero(rest));
    const Range part{frame.offset + sum.position(), std::min(blocks * kBlockSize, frame.length - sum.position())};
    if (holds) {
      sum.add(mapping.bytes().subspan(part.offset, part.length));
    } else {
      if (!fs.is_hole(fd.get(), part)) return std::nullopt;
      sum.add_zeros(part.length);
    }
  }
  return sum.digest();
}

Status Layer::State::unpack(size_t index, std::span<std::byte> out, Patience patience) const {
  thread_local std::vector<std::byte> buffer(kFrameSize);
  const auto bytes = std::span(buffer).first(lengths[index]);
  STASIS_TRY(read_bytes(offsets[index], bytes, patience));
  Status unpacked = unpack_frame(bytes, out);
  if (unpacked) return {};
  return fail(std::move(unpacked).error().with_context(path.string() + ": frame " + std::to_string(sums.frames[index]) +
                                                       " is damaged"));
}

Status Layer::State::read_frame(size_t index, std::span<std::byte> out, Patience patience) {
  const uint32_t frame = sums.frames[index];
  STASIS_TRY(packed() ? unpack(index, out, patience) : read_bytes(sums.frame_range(frame).offset, out, patience));
  const uint64_t found = checksum(out);
  const uint64_t expected = checksums[index];
  if (found != expected) {
    if (!sums_file.bytes().empty() && !sums_file.intact()) {
      return fail(Code::kDataLoss, "the checksums of " + path.string() + " cannot be read any more");
    }
    return fail(Code::kDataLoss, path.string() + ": frame " + std::to_string(frame) + " (64 KiB at " +
                                     std::to_string(frame * kFrameSize) + ") is damaged: its checksum is " +
                                     checksum_text(found) + " instead of " + checksum_text(expected));
  }
  set_verified(index);
  here.set(index);
  return {};
}

}  // namespace stasis::snapshot
