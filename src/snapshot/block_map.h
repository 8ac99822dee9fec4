// The block map: what one address space (a guest's memory, or one of its disks) consists of at one generation. A sorted
// list of extents covers [0, size) wholly and without overlap; each extent names a layer and an offset in it, or the
// nil layer, which means zeros. The map is flattened: a look-up is one search, whatever the number of generations
// behind it, and an index of buckets (bucket_index.h) makes that two reads of memory. In memory an extent costs 12
// bytes, and the index 1 to 2. Immutable once made, so any number of threads may read it. The encoding is specified in
// docs/format.md (little-endian, magic, version, CRC); decode() and read() trust nothing in the bytes, and encode()
// enforces the limits that they enforce.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/result.h"
#include "base/table_allocator.h"
#include "base/uuid.h"
#include "snapshot/bucket_index.h"

namespace stasis::snapshot {

inline constexpr uint64_t kBlockSize = 4096;       // bytes
inline constexpr uint64_t kFrameSize = 64 * 1024;  // bytes: what one checksum covers
inline constexpr uint64_t kMaxAddressSpace = uint64_t{16} << 40;
inline constexpr uint64_t kMaxExtents = uint64_t{16} << 20;
inline constexpr uint64_t kMaxLayers = 65'535;

// Which layer: a UUID of its own type. The nil layer stands for zeros and has no file.
struct LayerId {
  Uuid uuid;
  static LayerId random() { return {Uuid::random()}; }
  bool is_nil() const { return uuid.is_nil(); }
  std::string text() const { return uuid.text(); }
  friend auto operator<=>(const LayerId&, const LayerId&) = default;
};

struct Extent {
  uint64_t offset = 0;        // bytes in the address space, a multiple of kBlockSize
  uint64_t length = 0;        // bytes, a multiple of kBlockSize, never 0
  LayerId layer;              // nil: zeros
  uint64_t layer_offset = 0;  // bytes in the layer where `offset` is found; 0 for the nil layer
  uint64_t end() const { return offset + length; }
  bool is_zero() const { return layer.is_nil(); }
  friend bool operator==(const Extent&, const Extent&) = default;
};

// What one capture changed in an address space: these bytes are now in the new (raw) layer at their own offset, or are
// zeros.
struct Change {
  Range range;  // multiples of kBlockSize
  bool zero = false;
  friend bool operator==(const Change&, const Change&) = default;
};

class BlockMap {
 public:
  struct Metadata {
    uint64_t size = 0;        // bytes of the address space, a multiple of kBlockSize
    uint64_t generation = 0;  // 0 for the first merge onto zeros(), +1 by each later one
    Uuid id;                  // of this map
    Uuid base_id;             // of the map it was merged from; nil for generation 0
    friend bool operator==(const Metadata&, const Metadata&) = default;
  };

  // All zeros, before anything was stored (nil id). kInvalidArgument unless size is a positive multiple of kBlockSize
  // within kMaxAddressSpace.
  static Result<BlockMap> zeros(uint64_t size);
  // From extents in any runs: sorts nothing, checks everything (order, coverage, alignment, limits), merges neighbours
  // that continue each other in the address space AND in the layer.
  static Result<BlockMap> from_extents(const Metadata& metadata, std::span<const Extent> extents);
  static Result<BlockMap> decode(std::span<const std::byte> bytes);
  // Fills `out` with the next bytes of a file.
  using Source = std::function<Status(std::span<std::byte> out)>;
  // decode() of a file of `file_size` bytes that is never in memory as a whole: each byte is asked for once, in order,
  // until the first error.
  static Result<BlockMap> read(uint64_t file_size, const Source& source);
  // What the head of such a file says of the map, without its extents: the head has a checksum of its own.
  static Result<Metadata> read_metadata(uint64_t file_size, const Source& source);
  Result<std::vector<std::byte>> encode() const;

  // The next generation (of zeros(): generation 0): `changes` (sorted, disjoint) laid over this map; data changes point
  // into `layer` at their own offset.
  Result<BlockMap> merge(LayerId layer, std::span<const Change> changes) const;
  // The same content and generation with zeros appended up to new_size (a disk that grows), under an id of its own.
  // kInvalidArgument if it would shrink.
  Result<BlockMap> grow(uint64_t new_size) const;

  const Metadata& metadata() const { return metadata_; }
  uint64_t size() const { return metadata_.size; }
  // The extent that holds `offset`; offset must be < size(). No allocation.
  Extent find(uint64_t offset) const { return extent_at(index_of(offset)); }
  // Every extent in order.
  std::vector<Extent> extents() const;
  size_t extent_count() const;
  // Layers in use, without the nil layer, each once.
  std::span<const LayerId> layers() const;

 private:
  friend class AddressSpace;  // reads by index
  struct Entry {              // 12 bytes an extent; its length is the distance to the next entry's start
    uint32_t first_block;     // limit: 16 TiB / 4 KiB = 2^32 blocks, so block numbers fit, also those in a layer
    uint32_t layer;           // index into layers_ + 1; 0 = zeros
    uint32_t layer_block;     // where it starts in the layer
  };
  struct Builder;  // block_map_builder.h

  // Index of the entry that holds `offset`.
  size_t index_of(uint64_t offset) const {
    return index_.find(entries_.data(), &Entry::first_block, offset / kBlockSize);
  }
  uint64_t end_of(size_t index) const {  // bytes
    return index + 1 < entries_.size() ? entries_[index + 1].first_block * kBlockSize : metadata_.size;
  }
  // Where `offset`, which an entry holds that is not of zeros, is in its layer.
  static uint64_t offset_in_layer(const Entry& entry, uint64_t offset) {
    return entry.layer_block * kBlockSize + (offset - entry.first_block * kBlockSize);
  }
  Extent extent_at(size_t index) const {
    const Entry& entry = entries_[index];
    const uint64_t offset = entry.first_block * kBlockSize;
    return {offset, end_of(index) - offset, entry.layer == 0 ? LayerId{} : layers_[entry.layer - 1],
            entry.layer_block * kBlockSize};
  }
  using Entries = std::vector<Entry, TableAllocator<Entry>>;
  // Drops layers that no entry names, and makes the index; kResourceExhausted if there are too many extents or layers.
  Status seal();
  // `used`: for each layer + 1, whether an entry names it.
  void drop_unused(std::span<const uint8_t> used);
  // Takes the table of extents of an encoded map, checks it and makes the index: kDataLoss unless the entries are as
  // every constructor leaves them and their CRC is `crc`.
  Status load_entries(size_t count, uint32_t crc, const Source& source);
  struct Part;  // of that table (block_map_codec.cc)
  // Takes the extents of a part; what is wrong with them, or the empty string.
  std::string take(const Part& part, std::span<uint8_t> used);
  std::string first_fault(const Part& part) const;

  Metadata metadata_;
  std::vector<LayerId> layers_;
  Entries entries_;
  BucketIndex index_;
};

}  // namespace stasis::snapshot
