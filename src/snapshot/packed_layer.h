// Packed layers (`<uuid>.packed`): what a raw layer holds, in frames of 64 KiB that are compressed one by one with
// zstd, in one file with their table (format in docs/format.md). For snapshots that are kept rather than started: a
// fraction of the space, a decompression for each frame that is read. Checksums are those of the uncompressed frames,
// so that verification means the same as in a raw layer. Readers open it with Layer, which tells no difference, but for
// Layer::can_be_mapped(). This header: its table, one frame, and the writer.
#pragma once

#include "snapshot/layer_sums.h"

struct ZSTD_CCtx_s;

namespace stasis::snapshot {

inline constexpr size_t kPackedHeader = 80;  // bytes

// The fixed part at the start of the file.
struct PackedHeader {
  LayerId id;
  uint64_t size = 0;
  uint64_t data_bytes = 0;
  uint64_t frames = 0;
  uint64_t table_offset = 0;
  uint32_t table_crc = 0;

  uint64_t table_bytes() const;
  // `file_size`: of the whole file, which must be what the header says. kDataLoss otherwise; allocates nothing.
  static Result<PackedHeader> decode(std::span<const std::byte> bytes, uint64_t file_size);
};

struct PackedTable {
  LayerSums sums;                 // of the frames without their compression
  std::vector<uint64_t> offsets;  // of sums.frames: where in the file
  std::vector<uint32_t> lengths;  // there: 0 for zeros, the frame's own length if it is stored as it is

  // Where the frames end and the table begins.
  uint64_t end() const { return offsets.empty() ? kPackedHeader : offsets.back() + lengths.back(); }
  std::vector<std::byte> encode_header() const;  // of a file with this table
  std::vector<std::byte> encode() const;
  // kDataLoss for anything that is not whole and consistent. Memory: that of `bytes`.
  static Result<PackedTable> decode(const PackedHeader& header, std::span<const std::byte> bytes);
};

// Unpacks one frame; out.size() is the frame's length. Writes nothing beyond it, whatever `packed` says, and allocates
// nothing but a context of some 150 KiB for each thread, once. kDataLoss if it is not such a frame.
Status unpack_frame(std::span<const std::byte> packed, std::span<std::byte> out);

// As LayerWriter, with the same rules: temporary name until finish().
class PackedLayerWriter {
 public:
  static Result<std::unique_ptr<PackedLayerWriter>> create(FileSystem& fs, Path layers_dir, LayerId id, uint64_t size);
  ~PackedLayerWriter();
  PackedLayerWriter(const PackedLayerWriter&) = delete;
  PackedLayerWriter& operator=(const PackedLayerWriter&) = delete;

  Status write(uint64_t offset, std::span<const std::byte> data);
  Status sync();
  Result<LayerInfo> finish();

 private:
  PackedLayerWriter(FileSystem& fs, Path layers_dir, LayerId id, uint64_t size);
  Status put_frame();

  FileSystem& fs_;
  const Path layers_dir_;
  const Path path_;
  UniqueFd fd_;
  PackedTable table_;
  ZSTD_CCtx_s* zstd_;
  std::vector<std::byte> frame_;  // the one that is open, zeros where nothing was written
  std::vector<std::byte> packed_;
  uint32_t frame_number_ = 0;
  bool open_ = false;
  uint64_t position_ = 0;  // in the layer: everything before it is written or left out
  bool finished_ = false;
};

}  // namespace stasis::snapshot
