// Layers: immutable files with blocks of an address space, each at its own offset, and a checksum for each frame of
// 64 KiB that holds data. A raw layer is a sparse file with its checksums in a file beside it (`<uuid>.sums`), a packed
// one a file of compressed frames (packed_layer.h; formats in docs/format.md); a layer has one of the two forms. It
// becomes visible under its name only when it is whole and synced, and has mode 0444 from then on. Reading verifies a
// frame against its checksum the first time any of it is read from storage; a mismatch is kDataLoss naming file and
// frame, and no byte is returned.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/file_system.h"
#include "snapshot/block_map.h"
#include "snapshot/frame_source.h"

namespace stasis::snapshot {

struct LayerInfo {
  LayerId id;
  uint64_t size = 0;        // bytes of the address space it was written for
  uint64_t data_bytes = 0;  // bytes of blocks it holds
};

enum class LayerForm { kRaw, kPacked };

Path layer_data_path(const Path& layers_dir, LayerId id);    // of a raw layer
Path layer_sums_path(const Path& layers_dir, LayerId id);    // of a raw layer
Path layer_packed_path(const Path& layers_dir, LayerId id);  // of a packed layer

struct LayerFile {
  Path path;  // with the data
  LayerForm form;
  FileInfo info;
};

// The file that holds a layer's data, whichever form it has; kNotFound if there is none.
Result<LayerFile> find_layer(FileSystem& fs, const Path& layers_dir, LayerId id);

// Writes one new raw layer. Blocks are written in ascending order, each at most once. Until finish() everything is
// under temporary names; the destructor of an unfinished writer removes them.
class LayerWriter {
 public:
  static Result<std::unique_ptr<LayerWriter>> create(FileSystem& fs, Path layers_dir, LayerId id, uint64_t size);
  ~LayerWriter();
  LayerWriter(const LayerWriter&) = delete;
  LayerWriter& operator=(const LayerWriter&) = delete;

  // offset and data.size() are multiples of kBlockSize, behind everything written before.
  Status write(uint64_t offset, std::span<const std::byte> data);
  // Syncs the data so far: a long write does it now and then, so that finish() has little left to do.
  Status sync();
  // Writes the checksums, syncs, publishes both files and the directory. Call once.
  Result<LayerInfo> finish();

 private:
  struct State;
  explicit LayerWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Makes a raw layer of an existing sparse file (a disk's write layer) without copying: computes the checksums of `data`
// (sorted ranges, multiples of kBlockSize; everything else in the file must be a hole or is ignored), syncs, renames
// `file` into layers_dir. `file` must be on the same file system. On failure `file` is where and what it was, but for
// what makes it `spoilt`: its sync has failed (Linux takes its pages for clean then, and no later sync writes them), or
// it could not be moved back. Then no layer can be made of it any more, only of a copy.
Result<LayerInfo> adopt_layer(FileSystem& fs, const Path& file, const Path& layers_dir, LayerId id, uint64_t size,
                              std::span<const Range> data, bool* spoilt = nullptr);

// An open layer. Thread-safe; shared by every reader in the process.
class Layer {
 public:
  static Result<std::shared_ptr<Layer>> open(FileSystem& fs, const Path& layers_dir, LayerId id);
  ~Layer();

  LayerId id() const;
  uint64_t size() const;
  // True if the file behind fd() has every block at its own offset; false: it is packed, and only read() gives bytes.
  bool can_be_mapped() const;
  // Reads out.size() bytes at `offset` (both multiples of kBlockSize, within size()). A frame that holds no data at all
  // is kDataLoss too: no block map points into one. `out` is zeroed on failure.
  Status read(uint64_t offset, std::span<std::byte> out);
  // The same without waiting for storage: bytes that are read, from the start; all of them, or those before the first
  // frame that is not in memory (or is damaged: read() tells). What was there within ten seconds counts as there.
  size_t read_now(uint64_t offset, std::span<std::byte> out);
  // Whether frame number `frame` (offset / kFrameSize) has been verified by this object.
  bool is_verified(uint32_t frame) const;
  LayerInfo info() const;
  // The frames that hold data, by number (offset / kFrameSize), ascending.
  std::span<const uint32_t> frames() const;
  // Reads frame frames()[index] from storage, also one that was verified before, and checks it: its length in bytes.
  // `buffer` has room for kFrameSize. kDataLoss names file and frame.
  Result<uint64_t> verify_frame(size_t index, std::span<std::byte> buffer);
  // The same for frame number `frame`, into nothing: it can be read without waiting then, or is told why not.
  Status load(uint32_t frame);
  // The bytes of [offset, offset + length) where they are, if every frame of them has been verified and the file could
  // be mapped (a packed one cannot); otherwise nothing: read() them. They are good only if view() of the same range
  // still gives them after they were read (base/file_mapping.h).
  std::span<const std::byte> view(uint64_t offset, uint64_t length) const;
  // The same to be read by a system call and by nobody else, which says EFAULT where the bytes cannot be had: read()
  // tells why. Such bytes need not be asked for again. Nothing also of what has left memory since, so that the
  // call waits for no device; what was there within ten seconds counts as there.
  std::span<const std::byte> view_for_kernel(uint64_t offset, uint64_t length) const;
  // Reads and verifies every frame. kDataLoss names the first damaged one.
  Status verify_all();
  // True once every frame has been verified by this object.
  bool verified_whole() const;
  int fd() const;  // of the data file, read-only

 private:
  struct State;
  explicit Layer(std::unique_ptr<State> state);
  struct RawTable;
  static Result<RawTable> read_table(FileSystem& fs, const Path& sums_path);
  static Result<std::shared_ptr<Layer>> open_raw(FileSystem& fs, const Path& layers_dir, LayerId id, RawTable table);
  static Result<std::shared_ptr<Layer>> open_packed(FileSystem& fs, const Path& layers_dir, LayerId id, UniqueFd fd);
  std::unique_ptr<State> state_;
};

// The content of an address space at one generation: a block map with its layers open. Immutable, thread-safe.
class AddressSpace final : public FrameSource {
 public:
  // Opens every layer that the map names, but for those that `before`, whose successor this is, has open: they become
  // both's, with what is known of their frames. kDataLoss if one is missing.
  static Result<std::shared_ptr<AddressSpace>> open(FileSystem& fs, const Path& layers_dir, BlockMap map,
                                                    const AddressSpace* before = nullptr);

  const BlockMap& map() const { return map_; }
  uint64_t size() const { return map_.size(); }
  // offset and out.size() are multiples of kBlockSize within size(). Zeros where the map says so. `out` is zeroed on
  // failure.
  Status read(uint64_t offset, std::span<std::byte> out) const;
  // Layer::read_now(): bytes that are read, from the start. offset and out.size() must lie within size().
  uint64_t read_now(uint64_t offset, std::span<std::byte> out) const;
  struct FramePlace {
    FrameRef frame;
    Range range;            // of the address space: what comes from this frame, as far as the extent goes
    bool verified = false;  // then it need not be loaded
  };
  // Where the block at `offset` comes from; nullopt: zeros.
  std::optional<FramePlace> frame_at(uint64_t offset) const;
  // Reads all of a frame from storage and verifies it, also one that was before: a part of it may be lost since.
  // kDataLoss if it is damaged.
  Status load(FrameRef frame) const override;
  std::string describe(FrameRef frame) const override;
  // Layer::view() of a range within one extent that is not of zeros.
  std::span<const std::byte> view(uint64_t offset, uint64_t length) const;
  // Layer::view_for_kernel(); nothing also for a range that is not within one extent, or of zeros.
  std::span<const std::byte> view_for_kernel(uint64_t offset, uint64_t length) const;
  // The open layer behind an extent of map(); nullptr for zeros.
  Layer* layer(LayerId id) const;

 private:
  AddressSpace(BlockMap map, std::vector<std::shared_ptr<Layer>> layers);
  std::shared_ptr<Layer> share(LayerId id) const;
  BlockMap map_;
  std::vector<std::shared_ptr<Layer>> layers_;  // in the order of map_.layers()
};

}  // namespace stasis::snapshot
