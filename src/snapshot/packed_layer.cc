// The table of a packed layer, and one frame.
#include "snapshot/packed_layer.h"

#include <zstd.h>

#include <array>

#include "snapshot/block_map_builder.h"
#include "snapshot/crc32c.h"
#include "snapshot/wire.h"
#include "snapshot/zstd_frame.h"

namespace stasis::snapshot {
namespace {

constexpr std::array<char, 8> kMagic = {'S', 'T', 'A', 'S', 'I', 'S', 'L', 'P'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kXxh3 = 1;
constexpr uint32_t kZstd = 1;
constexpr size_t kHeadCrcAt = 76;
constexpr size_t kEntrySize = 2 * sizeof(uint64_t) + 2 * sizeof(uint32_t);

tl::unexpected<Error> bad(const std::string& what) { return fail(Code::kDataLoss, "the packed layer " + what); }

// Lives as long as its thread.
class Unpacker {
 public:
  Unpacker() : zstd_(ZSTD_createDCtx()) {}
  ~Unpacker() { ZSTD_freeDCtx(zstd_); }
  Unpacker(const Unpacker&) = delete;
  Unpacker& operator=(const Unpacker&) = delete;
  bool ready() const { return zstd_ != nullptr; }
  size_t run(std::span<const std::byte> packed, std::span<std::byte> out) {
    return ZSTD_decompressDCtx(zstd_, out.data(), out.size(), packed.data(), packed.size());
  }

 private:
  ZSTD_DCtx* zstd_;
};

// The places of the frames: one after the other, each no longer than what it holds.
Status check_places(const PackedTable& table, uint64_t table_offset) {
  uint64_t expected = kPackedHeader;
  for (size_t i = 0; i < table.offsets.size(); ++i) {
    const uint32_t frame = table.sums.frames[i];
    if (table.offsets[i] != expected) return bad("has frame " + std::to_string(frame) + " out of place");
    if (table.lengths[i] > table.sums.frame_range(frame).length) {
      return bad("has a frame " + std::to_string(frame) + " that is longer than what it holds");
    }
    expected += table.lengths[i];
  }
  if (expected != table_offset) return bad("has bytes that belong to no frame");
  return {};
}

}  // namespace

uint64_t PackedHeader::table_bytes() const { return frames * kEntrySize; }

Result<PackedHeader> PackedHeader::decode(std::span<const std::byte> bytes, uint64_t file_size) {
  if (bytes.size() < kPackedHeader) return bad("has " + std::to_string(file_size) + " bytes: shorter than its header");
  bytes = bytes.first(kPackedHeader);
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) return bad("does not start with STASISLP");
  WireReader in(bytes.subspan(kMagic.size()));
  const uint32_t version = in.u32();
  if (version != kVersion) return bad("is of version " + std::to_string(version) + "; this program reads 1");
  const uint32_t frame_size = in.u32();
  PackedHeader header;
  header.size = in.u64();
  header.data_bytes = in.u64();
  header.id.uuid = in.uuid();
  const uint32_t checksums = in.u32();
  const uint32_t compression = in.u32();
  header.frames = in.u64();
  header.table_offset = in.u64();
  header.table_crc = in.u32();
  if (in.u32() != crc32c(bytes.first(kHeadCrcAt))) return bad("has a damaged header");
  if (frame_size != kFrameSize) return bad("has frames of " + std::to_string(frame_size) + " bytes");
  if (checksums != kXxh3) return bad("uses checksums of kind " + std::to_string(checksums) + "; this program knows 1");
  if (compression != kZstd) {
    return bad("is compressed by method " + std::to_string(compression) + "; this program knows 1");
  }
  if (!valid_size(header.size)) return bad("is of an address space of " + std::to_string(header.size) + " bytes");
  if (header.table_offset < kPackedHeader || header.table_offset > file_size ||
      (file_size - header.table_offset) % kEntrySize != 0 ||
      (file_size - header.table_offset) / kEntrySize != header.frames) {
    return bad("has " + std::to_string(file_size) + " bytes, which does not fit " + std::to_string(header.frames) +
               " frames");
  }
  return header;
}

std::vector<std::byte> PackedTable::encode() const {
  WireWriter out(offsets.size() * kEntrySize);
  out.append(sums.checksums.data(), sums.checksums.size() * sizeof(uint64_t));
  out.append(offsets.data(), offsets.size() * sizeof(uint64_t));
  out.append(sums.frames.data(), sums.frames.size() * sizeof(uint32_t));
  out.append(lengths.data(), lengths.size() * sizeof(uint32_t));
  return out.take();
}

std::vector<std::byte> PackedTable::encode_header() const {
  WireWriter out(kPackedHeader);
  out.append(kMagic.data(), kMagic.size());
  out.u32(kVersion);
  out.u32(static_cast<uint32_t>(kFrameSize));
  out.u64(sums.size);
  out.u64(sums.data_bytes);
  out.uuid(sums.id.uuid);
  out.u32(kXxh3);
  out.u32(kZstd);
  out.u64(offsets.size());
  out.u64(end());
  out.u32(crc32c(encode()));
  out.u32(crc32c(out.bytes()));
  return out.take();
}

Result<PackedTable> PackedTable::decode(const PackedHeader& header, std::span<const std::byte> bytes) {
  if (bytes.size() != header.table_bytes()) return bad("is cut off in its table");
  if (crc32c(bytes) != header.table_crc) return bad("has a damaged table");
  PackedTable table;
  table.sums = {header.id, header.size, header.data_bytes, {}, {}};
  table.sums.checksums.resize(header.frames);
  table.offsets.resize(header.frames);
  table.sums.frames.resize(header.frames);
  table.lengths.resize(header.frames);
  WireReader in(bytes);
  in.copy(table.sums.checksums.data(), header.frames * sizeof(uint64_t));
  in.copy(table.offsets.data(), header.frames * sizeof(uint64_t));
  in.copy(table.sums.frames.data(), header.frames * sizeof(uint32_t));
  in.copy(table.lengths.data(), header.frames * sizeof(uint32_t));
  if (const std::string fault = table.sums.fault(); !fault.empty()) return bad(fault);
  STASIS_TRY(check_places(table, header.table_offset));
  return table;
}

Status unpack_frame(std::span<const std::byte> packed, std::span<std::byte> out) {
  if (packed.empty()) {
    std::memset(out.data(), 0, out.size());
    return {};
  }
  if (packed.size() == out.size()) {
    std::memcpy(out.data(), packed.data(), out.size());
    return {};
  }
  if (!is_one_zstd_frame(packed)) return bad("has a frame that zstd did not write");
  thread_local Unpacker unpacker;
  if (!unpacker.ready()) return fail(Code::kResourceExhausted, "no memory for reading a packed layer");
  const size_t n = unpacker.run(packed, out);
  if (ZSTD_isError(n) != 0) return bad(std::string("has a frame that zstd cannot read: ") + ZSTD_getErrorName(n));
  if (n != out.size()) return bad("has a frame of " + std::to_string(n) + " bytes");
  return {};
}

}  // namespace stasis::snapshot
