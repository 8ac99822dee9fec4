#include "snapshot/archive_records.h"

#include <zstd.h>

#include <array>
#include <cstring>

#include "snapshot/crc32c.h"
#include "snapshot/wire.h"
#include "snapshot/zstd_frame.h"

namespace stasis::snapshot {
namespace {

// What archives cost against what they save: level 3 is zstd's own balance.
constexpr int kLevel = 3;
constexpr uint32_t kSkippable = 0x184D2A5A;  // a zstd frame that decoders pass over
constexpr std::array<char, 8> kMagic = {'S', 'T', 'A', 'S', 'I', 'S', 'A', 'R'};
constexpr uint32_t kVersion = 1;
constexpr size_t kHeaderSize = 64;
constexpr size_t kHeadCrcAt = 60;
constexpr size_t kPrefix = 8;  // of the skippable frame

struct Header {
  uint32_t kind = 0;
  uint64_t number = 0;
  uint64_t offset = 0;
  uint32_t space = 0;
  uint32_t length = 0;  // of the payload
  uint32_t packed = 0;  // bytes of the zstd frame
  uint64_t checksum = 0;
};

std::vector<std::byte> encode_header(const Header& header) {
  WireWriter out(kPrefix + kHeaderSize);
  out.u32(kSkippable);
  out.u32(kHeaderSize);
  WireWriter body(kHeaderSize);
  body.append(kMagic.data(), kMagic.size());
  body.u32(kVersion);
  body.u32(header.kind);
  body.u64(header.number);
  body.u64(header.offset);
  body.u32(header.space);
  body.u32(header.length);
  body.u32(header.packed);
  body.u32(0);
  body.u64(header.checksum);
  body.u32(0);
  body.u32(crc32c(body.bytes()));
  out.append(body.bytes().data(), body.bytes().size());
  return out.take();
}

tl::unexpected<Error> no_archive(const std::string& why) {
  return fail(Code::kInvalidArgument, "this is no archive of a snapshot: " + why,
              "give it what `stasis snapshot export` wrote");
}

tl::unexpected<Error> damaged(uint64_t position, const std::string& why) {
  return fail(Code::kDataLoss, "the archive is damaged: the record at byte " + std::to_string(position) + " " + why,
              "export the snapshot again, or copy the file again");
}

}  // namespace

RecordWriter::RecordWriter() : zstd_(ZSTD_createCCtx()) {}
RecordWriter::~RecordWriter() { ZSTD_freeCCtx(zstd_); }

Result<std::span<const std::byte>> RecordWriter::encode(const Record& record) {
  out_.resize(kPrefix + kHeaderSize + ZSTD_compressBound(record.payload.size()));
  const auto room = std::span(out_).subspan(kPrefix + kHeaderSize);
  const size_t packed =
      ZSTD_compressCCtx(zstd_, room.data(), room.size(), record.payload.data(), record.payload.size(), kLevel);
  if (ZSTD_isError(packed) != 0) return fail(Code::kInternal, std::string("zstd: ") + ZSTD_getErrorName(packed));
  Header header;
  header.kind = static_cast<uint32_t>(record.kind);
  header.number = count_++;
  header.offset = record.offset;
  header.space = record.space;
  header.length = static_cast<uint32_t>(record.payload.size());
  header.packed = static_cast<uint32_t>(packed);
  header.checksum = checksum(record.payload);
  const auto bytes = encode_header(header);
  headers_.update(bytes);
  std::memcpy(out_.data(), bytes.data(), bytes.size());
  return std::span<const std::byte>(out_).first(bytes.size() + packed);
}

Result<std::span<const std::byte>> RecordWriter::encode_end() {
  WireWriter payload(kEndPayload);
  payload.u64(count_);
  payload.u64(headers_.digest());
  return encode({RecordKind::kEnd, 0, 0, payload.bytes()});
}

RecordReader::RecordReader(const ArchiveSource& source) : source_(source), zstd_(ZSTD_createDCtx()) {}
RecordReader::~RecordReader() { ZSTD_freeDCtx(zstd_); }

Status RecordReader::read_exactly(std::span<std::byte> out) {
  while (!out.empty()) {
    STASIS_ASSIGN(const size_t n, source_(out));
    if (n == 0 && position_ == 0) return no_archive("it is empty");
    if (n == 0) return damaged(position_, "is cut off: the file ends there");
    position_ += n;
    out = out.subspan(n);
  }
  return {};
}

Result<Record> RecordReader::next() {
  const uint64_t begin = position_;
  std::array<std::byte, kPrefix + kHeaderSize> head;
  STASIS_TRY(read_exactly(head));
  WireReader in(head);
  const uint32_t frame_magic = in.u32();
  const uint32_t frame_size = in.u32();
  const bool ours = frame_magic == kSkippable && frame_size == kHeaderSize &&
                    std::memcmp(head.data() + kPrefix, kMagic.data(), kMagic.size()) == 0;
  if (!ours) return count_ == 0 ? no_archive("it does not begin like one") : damaged(begin, "does not begin like one");
  in = WireReader(std::span<const std::byte>(head).subspan(kPrefix + kMagic.size()));
  const uint32_t version = in.u32();
  if (version != kVersion) {
    return fail(
        Code::kInvalidArgument,
        "the archive is of version " + std::to_string(version) + "; this program reads " + std::to_string(kVersion),
        "use the version of Stasis that wrote it, or a later one");
  }
  Header header;
  header.kind = in.u32();
  header.number = in.u64();
  header.offset = in.u64();
  header.space = in.u32();
  header.length = in.u32();
  header.packed = in.u32();
  const uint32_t reserved = in.u32();
  header.checksum = in.u64();
  const uint32_t reserved_too = in.u32();
  if (in.u32() != crc32c(std::span<const std::byte>(head).subspan(kPrefix, kHeadCrcAt))) {
    return damaged(begin, "has a damaged header");
  }
  if (reserved != 0 || reserved_too != 0) return damaged(begin, "uses a reserved field");
  if (header.number != count_) {
    return damaged(begin, "has the number " + std::to_string(header.number) + " instead of " + std::to_string(count_));
  }
  if (header.kind < 1 || header.kind > static_cast<uint32_t>(RecordKind::kEnd)) {
    return damaged(begin, "is of an unknown kind");
  }
  if (header.length > kMaxPayload || header.packed > ZSTD_compressBound(kMaxPayload)) {
    return damaged(begin, "is longer than a record can be");
  }
  packed_.resize(header.packed);
  payload_.resize(header.length);
  STASIS_TRY(read_exactly(packed_));
  if (!is_one_zstd_frame(packed_)) return damaged(begin, "has a payload that zstd did not write");
  const size_t unpacked = ZSTD_decompressDCtx(zstd_, payload_.data(), payload_.size(), packed_.data(), packed_.size());
  if (ZSTD_isError(unpacked) != 0 || unpacked != header.length || checksum(payload_) != header.checksum) {
    return damaged(begin, "has a damaged payload");
  }
  const Record record{static_cast<RecordKind>(header.kind), header.space, header.offset, payload_};
  if (record.kind == RecordKind::kEnd) STASIS_TRY(check_end(record));
  headers_.update(head);
  ++count_;
  return record;
}

Status RecordReader::check_end(const Record& record) {
  if (record.payload.size() != kEndPayload) return damaged(position_, "is an end that is not one");
  WireReader in(record.payload);
  if (in.u64() != count_ || in.u64() != headers_.digest()) {
    return damaged(position_, "says that others belong before it: records were changed or put together");
  }
  std::byte more;
  STASIS_ASSIGN(const size_t n, source_({&more, 1}));
  if (n != 0) return damaged(position_, "is the last one, and there are bytes behind it");
  return {};
}

}  // namespace stasis::snapshot
