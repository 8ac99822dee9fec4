// The encoding of a block map; docs/format.md specifies it.
#include <algorithm>
#include <array>

#include "snapshot/block_map_builder.h"
#include "snapshot/crc32c.h"
#include "snapshot/wire.h"

namespace stasis::snapshot {
namespace {

constexpr std::array<char, 8> kMagic = {'S', 'T', 'A', 'S', 'I', 'S', 'B', 'M'};
constexpr uint32_t kVersion = 1;
constexpr size_t kHeaderSize = 88;
constexpr size_t kHeadCrcAt = 84;
constexpr size_t kLayerSize = 16;
constexpr size_t kExtentSize = 16;

tl::unexpected<Error> bad(const std::string& what) { return fail(Code::kDataLoss, "the block map " + what); }

struct Header {
  BlockMap::Metadata metadata;
  uint32_t layers = 0;
  uint32_t extents = 0;
  uint32_t extents_crc = 0;
  uint32_t head_crc = 0;
  size_t head_size() const { return kHeaderSize + layers * kLayerSize; }
};

Status check_sizes(const Header& header, size_t file_size) {
  if (!valid_size(header.metadata.size)) {
    return bad("is of an address space of " + std::to_string(header.metadata.size) + " bytes");
  }
  if (header.layers > kMaxLayers) return bad("has " + std::to_string(header.layers) + " layers: too many");
  if (header.extents == 0 || header.extents > kMaxExtents) {
    return bad("has " + std::to_string(header.extents) + " extents");
  }
  const size_t expected = header.head_size() + size_t{header.extents} * kExtentSize;
  if (expected != file_size) {
    return bad("has " + std::to_string(file_size) + " bytes, its tables need " + std::to_string(expected));
  }
  return {};
}

// Everything about the header and the layer table; nothing is allocated.
Result<Header> decode_head(std::span<const std::byte> bytes) {
  if (bytes.size() < kHeaderSize) return bad("has " + std::to_string(bytes.size()) + " bytes: shorter than its header");
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) return bad("does not start with STASISBM");
  WireReader in(bytes.subspan(kMagic.size()));
  const uint32_t version = in.u32();
  if (version != kVersion) return bad("is of version " + std::to_string(version) + "; this program reads 1");
  const uint32_t block_size = in.u32();
  const uint64_t reserved = in.u64();
  Header header;
  header.metadata.size = in.u64();
  header.metadata.generation = in.u64();
  header.metadata.id = in.uuid();
  header.metadata.base_id = in.uuid();
  header.layers = in.u32();
  header.extents = in.u32();
  header.extents_crc = in.u32();
  header.head_crc = in.u32();
  STASIS_TRY(check_sizes(header, bytes.size()));
  const auto layer_table = bytes.subspan(kHeaderSize, header.layers * kLayerSize);
  if (crc32c(layer_table, crc32c(bytes.first(kHeadCrcAt))) != header.head_crc) return bad("has a damaged header");
  if (block_size != kBlockSize) return bad("has blocks of " + std::to_string(block_size) + " bytes");
  if (reserved != 0) return bad("uses a reserved field");
  return header;
}

Status check_layers(std::span<const LayerId> layers) {
  std::vector<LayerId> sorted(layers.begin(), layers.end());
  std::sort(sorted.begin(), sorted.end());
  if (!sorted.empty() && sorted.front().is_nil()) return bad("names the nil layer");
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) return bad("names a layer twice");
  return {};
}

}  // namespace

Result<std::vector<std::byte>> BlockMap::encode() const {
  static_assert(sizeof(Entry) == kExtentSize && sizeof(LayerId) == kLayerSize);
  if (!valid_size(size()) || entries_.empty() || entries_.size() > kMaxExtents || layers_.size() > kMaxLayers) {
    return fail(Code::kInvalidArgument, "this block map is beyond the limits of its format");
  }
  const auto table = std::as_bytes(std::span(entries_));
  WireWriter out(kHeaderSize + layers_.size() * kLayerSize + table.size());
  out.append(kMagic.data(), kMagic.size());
  out.u32(kVersion);
  out.u32(static_cast<uint32_t>(kBlockSize));
  out.u64(0);
  out.u64(metadata_.size);
  out.u64(metadata_.generation);
  out.uuid(metadata_.id);
  out.uuid(metadata_.base_id);
  out.u32(static_cast<uint32_t>(layers_.size()));
  out.u32(static_cast<uint32_t>(entries_.size()));
  out.u32(crc32c(table));
  out.u32(0);
  out.append(layers_.data(), layers_.size() * kLayerSize);
  out.set_u32(kHeadCrcAt, crc32c(out.bytes().subspan(kHeaderSize), crc32c(out.bytes().first(kHeadCrcAt))));
  out.append(table.data(), table.size());
  return out.take();
}

Result<BlockMap> BlockMap::decode(std::span<const std::byte> bytes) {
  STASIS_ASSIGN(const Header header, decode_head(bytes));
  BlockMap map;
  map.metadata_ = header.metadata;
  map.layers_.resize(header.layers);
  WireReader in(bytes.subspan(kHeaderSize));
  in.copy(map.layers_.data(), header.layers * kLayerSize);
  STASIS_TRY(check_layers(map.layers_));
  STASIS_TRY(map.load_entries(bytes.subspan(header.head_size()), header.extents_crc));
  return map;
}

// In pieces that stay in the cache while they are summed, copied, checked and indexed.
Status BlockMap::load_entries(std::span<const std::byte> table, uint32_t crc) {
  constexpr size_t kPiece = 1024;
  const size_t count = table.size() / kExtentSize;
  entries_.resize(count);
  index_.start(count, size() / kBlockSize);
  std::vector<uint8_t> used(layers_.size() + 1);
  uint32_t found_crc = 0;
  size_t checked = 0;
  bool wrong = false;
  for (size_t copied = 0; copied < count;) {
    const auto piece = table.subspan(copied * kExtentSize, std::min(kPiece, count - copied) * kExtentSize);
    found_crc = crc32c(piece, found_crc);
    std::memcpy(entries_.data() + copied, piece.data(), piece.size());
    copied += piece.size() / kExtentSize;
    // The last one copied is checked with the next piece, which says where it ends.
    const size_t complete = copied < count ? copied - 1 : count;
    wrong = wrong || any_wrong(checked, complete, used);
    for (; checked < complete && !wrong; ++checked) index_.add(entries_[checked].first_block, checked);
  }
  if (found_crc != crc) return bad("has a damaged table of extents");
  if (wrong) return what_is_wrong();
  if (std::find(used.begin() + 1, used.end(), 0) != used.end()) return bad("names a layer that no extent uses");
  index_.finish();
  return {};
}

// Without a branch for each rule: half of the time that decode() takes.
bool BlockMap::any_wrong(size_t begin, size_t end, std::span<uint8_t> used) const {
  const uint64_t layers = layers_.size();
  const uint64_t blocks = size() / kBlockSize;
  bool wrong = entries_.front().first_block != 0;
  for (size_t i = begin; i < end; ++i) {
    const Entry& entry = entries_[i];
    const uint64_t stop = end_of(i) / kBlockSize;
    const uint64_t length = stop - entry.first_block;
    wrong |= (stop <= entry.first_block) | (stop > blocks) | (entry.layer > layers) |
             ((entry.layer == 0) & (entry.layer_offset != 0)) | (entry.layer_offset % kBlockSize != 0) |
             (entry.layer_offset / kBlockSize + length > kMaxAddressSpace / kBlockSize);
    wrong |= i > 0 && Builder::continues(entries_[i - 1], entry);
    used[std::min<uint64_t>(entry.layer, layers)] = 1;
  }
  return wrong;
}

Status BlockMap::what_is_wrong() const {
  const auto wrong = [](size_t index, const char* what) {
    return bad("is wrong: extent " + std::to_string(index) + what);
  };
  if (entries_.front().first_block != 0) return wrong(0, " does not start at 0");
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    const uint64_t end = end_of(i) / kBlockSize;
    if (end <= entry.first_block) return wrong(i, " has no length");
    if (entry.layer > layers_.size()) return wrong(i, " names a layer that the map does not have");
    if (entry.layer == 0 && entry.layer_offset != 0) return wrong(i, " is of zeros and has an offset in a layer");
    if (entry.layer_offset % kBlockSize != 0) return wrong(i, " has a misaligned offset in its layer");
    if (entry.layer_offset > kMaxAddressSpace - (end - entry.first_block) * kBlockSize) {
      return wrong(i, " ends behind the limit of a layer");
    }
    if (i > 0 && Builder::continues(entries_[i - 1], entry)) return wrong(i, " continues the one before");
  }
  return bad("is wrong");
}

}  // namespace stasis::snapshot
