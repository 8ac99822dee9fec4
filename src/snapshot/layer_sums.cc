#include "snapshot/layer_sums.h"

#include <algorithm>
#include <array>

#include "snapshot/block_map_builder.h"
#include "snapshot/crc32c.h"
#include "snapshot/wire.h"

namespace stasis::snapshot {
namespace {

constexpr std::array<char, 8> kMagic = {'S', 'T', 'A', 'S', 'I', 'S', 'L', 'S'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kXxh3 = 1;
constexpr size_t kHeaderSize = 72;
constexpr size_t kTableCrcAt = 64;
constexpr size_t kHeadCrcAt = 68;
constexpr size_t kEntrySize = sizeof(uint64_t) + sizeof(uint32_t);

tl::unexpected<Error> bad(const std::string& what) {
  return fail(Code::kDataLoss, "the layer's checksum file " + what);
}

}  // namespace

std::string LayerSums::fault() const {
  const uint64_t end = frame_count(size);
  for (size_t i = 0; i < frames.size(); ++i) {
    if (frames[i] >= end) return "names frame " + std::to_string(frames[i]) + " behind the layer's end";
    if (i > 0 && frames[i] <= frames[i - 1]) return "is not sorted";
  }
  const uint64_t least = frames.size() * kBlockSize;
  const uint64_t most = std::min(frames.size() * kFrameSize, size);
  if (data_bytes % kBlockSize == 0 && data_bytes >= least && data_bytes <= most) return "";
  return "tells of " + std::to_string(data_bytes) + " bytes in " + std::to_string(frames.size()) + " frames";
}

Range LayerSums::frame_range(uint32_t frame) const {
  const uint64_t offset = frame * kFrameSize;
  return {offset, std::min(kFrameSize, size - offset)};
}

std::optional<size_t> LayerSums::find(uint32_t frame) const {
  if (frame < frames.size() && frames[frame] == frame) return frame;
  const auto at = std::lower_bound(frames.begin(), frames.end(), frame);
  if (at == frames.end() || *at != frame) return std::nullopt;
  return static_cast<size_t>(at - frames.begin());
}

std::vector<std::byte> LayerSums::encode() const {
  WireWriter out(kHeaderSize + frames.size() * kEntrySize);
  out.append(kMagic.data(), kMagic.size());
  out.u32(kVersion);
  out.u32(static_cast<uint32_t>(kFrameSize));
  out.u64(size);
  out.u64(data_bytes);
  out.uuid(id.uuid);
  out.u32(kXxh3);
  out.u32(0);
  out.u64(frames.size());
  out.u32(0);
  out.u32(0);
  out.append(checksums.data(), checksums.size() * sizeof(uint64_t));
  out.append(frames.data(), frames.size() * sizeof(uint32_t));
  out.set_u32(kTableCrcAt, crc32c(out.bytes().subspan(kHeaderSize)));
  out.set_u32(kHeadCrcAt, crc32c(out.bytes().first(kHeadCrcAt)));
  return out.take();
}

Result<LayerSums> LayerSums::decode(std::span<const std::byte> bytes) {
  STASIS_ASSIGN(LayerSums sums, decode_frames(bytes));
  sums.checksums.resize(sums.frames.size());
  WireReader(bytes.subspan(kHeaderSize)).copy(sums.checksums.data(), sums.frames.size() * sizeof(uint64_t));
  return sums;
}

std::span<const uint64_t> LayerSums::checksums_in(std::span<const std::byte> bytes) const {
  return {reinterpret_cast<const uint64_t*>(bytes.data() + kHeaderSize), frames.size()};
}

Result<LayerSums> LayerSums::decode_frames(std::span<const std::byte> bytes) {
  if (bytes.size() < kHeaderSize) return bad("has " + std::to_string(bytes.size()) + " bytes: shorter than its header");
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) return bad("does not start with STASISLS");
  WireReader in(bytes.subspan(kMagic.size()));
  const uint32_t version = in.u32();
  if (version != kVersion) return bad("is of version " + std::to_string(version) + "; this program reads 1");
  const uint32_t frame_size = in.u32();
  LayerSums sums;
  sums.size = in.u64();
  sums.data_bytes = in.u64();
  sums.id.uuid = in.uuid();
  const uint32_t kind = in.u32();
  const uint32_t reserved = in.u32();
  const uint64_t count = in.u64();
  const uint32_t table_crc = in.u32();
  if (in.u32() != crc32c(bytes.first(kHeadCrcAt))) return bad("has a damaged header");
  if (frame_size != kFrameSize) return bad("has frames of " + std::to_string(frame_size) + " bytes");
  if (kind != kXxh3) return bad("uses checksums of kind " + std::to_string(kind) + "; this program knows 1");
  if (reserved != 0) return bad("uses a reserved field");
  if (!valid_size(sums.size)) return bad("is of a layer of " + std::to_string(sums.size) + " bytes");
  const auto table = bytes.subspan(kHeaderSize);
  if (count != table.size() / kEntrySize || table.size() % kEntrySize != 0) {
    return bad("has " + std::to_string(bytes.size()) + " bytes, which does not fit " + std::to_string(count) +
               " frames");
  }
  if (crc32c(table) != table_crc) return bad("has a damaged table");
  sums.frames.resize(count);
  WireReader(table.subspan(count * sizeof(uint64_t))).copy(sums.frames.data(), count * sizeof(uint32_t));
  if (const std::string fault = sums.fault(); !fault.empty()) return bad(fault);
  return sums;
}

void FrameHasher::add(uint64_t offset, std::span<const std::byte> data) {
  sums_.data_bytes += data.size();
  while (!data.empty()) {
    const auto frame = static_cast<uint32_t>(offset / kFrameSize);
    if (begun_ && frame != frame_) close_frame();
    const Range range = sums_.frame_range(frame);
    const auto piece = data.first(std::min<uint64_t>(data.size(), range.end() - offset));
    if (piece.size() == range.length) {
      sums_.frames.push_back(frame);
      sums_.checksums.push_back(checksum(piece));
    } else {
      if (!begun_) {
        begun_.emplace(range.length);
        frame_ = frame;
      }
      begun_->add_zeros(offset - range.offset - begun_->position());
      begun_->add(piece);
    }
    offset += piece.size();
    data = data.subspan(piece.size());
  }
}

void FrameHasher::close_frame() {
  begun_->add_zeros(sums_.frame_range(frame_).length - begun_->position());
  sums_.frames.push_back(frame_);
  sums_.checksums.push_back(begun_->digest());
  begun_.reset();
}

LayerSums FrameHasher::finish() {
  if (begun_) close_frame();
  return std::move(sums_);
}

Status write_sums(FileSystem& fs, const Path& temporary, const LayerSums& sums) {
  STASIS_ASSIGN(const UniqueFd fd, fs.create(temporary));
  STASIS_TRY_CONTEXT(fs.write_at(fd.get(), 0, sums.encode()), temporary.string());
  STASIS_TRY_CONTEXT(fs.set_mode(fd.get(), 0444), temporary.string());
  STASIS_TRY_CONTEXT(fs.sync(fd.get()), temporary.string());
  return {};
}

}  // namespace stasis::snapshot
