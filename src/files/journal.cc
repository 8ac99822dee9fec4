#include "files/journal.h"

#include <array>
#include <cstring>
#include <string>
#include <unordered_map>
#include <vector>

#include "files/big_endian.h"
#include "snapshot/crc32c.h"

namespace stasis::files {
namespace {

constexpr uint32_t kDescriptor = 1;
constexpr uint32_t kCommit = 2;
constexpr uint32_t kSuperblockV1 = 3;
constexpr uint32_t kSuperblockV2 = 4;
constexpr uint32_t kRevoke = 5;

constexpr uint32_t kCompatChecksum = 1;
constexpr uint32_t kIncompat64Bit = 2;
constexpr uint32_t kIncompatCsumV2 = 8;
constexpr uint32_t kIncompatCsumV3 = 16;
constexpr uint32_t kIncompatFastCommit = 32;
constexpr uint32_t kIncompatKnown = 1 | kIncompat64Bit | 4 | kIncompatCsumV2 | kIncompatCsumV3;  // 1: revoke, 4: async

constexpr uint32_t kTagEscaped = 1;
constexpr uint32_t kTagSameUuid = 2;
constexpr uint32_t kTagLast = 8;

constexpr size_t kHeader = 12;  // magic, type, sequence
constexpr size_t kTail = 4;     // the checksum at the end of descriptor and revoke blocks
constexpr size_t kUuid = 16;
constexpr size_t kSuperblock = 1024;
constexpr size_t kSuperblockChecksum = 0xFC;
constexpr size_t kCommitChecksum = 0x10;

// JBD2 keeps CRC-32C without the inversions at start and end.
uint32_t raw_crc32c(uint32_t state, std::span<const std::byte> bytes) { return ~snapshot::crc32c(bytes, ~state); }

// The same of a block whose four bytes at `hole` count as zeros.
uint32_t raw_crc32c_without(uint32_t state, std::span<const std::byte> bytes, size_t hole) {
  static constexpr std::array<std::byte, 4> kZeros{};
  state = raw_crc32c(state, bytes.first(hole));
  state = raw_crc32c(state, kZeros);
  return raw_crc32c(state, bytes.subspan(hole + 4));
}

// CRC-32 with the most significant bit first: the older checksum of a whole transaction.
uint32_t crc32_be(uint32_t state, std::span<const std::byte> bytes) {
  static constexpr auto kTable = [] {
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t value = i << 24;
      for (int bit = 0; bit < 8; ++bit) value = value << 1 ^ ((value >> 31) != 0 ? 0x04C11DB7U : 0U);
      table[i] = value;
    }
    return table;
  }();
  for (const std::byte byte : bytes) state = state << 8 ^ kTable[state >> 24 ^ static_cast<uint32_t>(byte)];
  return state;
}

// Transactions are numbered modulo 2^32.
bool is_later(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b) > 0; }

tl::unexpected<Error> damaged(std::string what) {
  return fail(Code::kDataLoss, "its journal is damaged: " + std::move(what));
}

struct Tag {
  uint64_t block = 0;
  uint32_t flags = 0;
  uint32_t checksum = 0;
};

enum class Pass { kScan, kRevocations, kReplay };

class Reader {
 public:
  Reader(const JournalSource& source, uint64_t file_system_blocks)
      : source_(source), file_system_blocks_(file_system_blocks), block_(source.block_size), data_(source.block_size) {}

  Result<Replay> run() {
    STASIS_ASSIGN(const bool anything, read_superblock());
    if (!anything) return Replay{};
    for (const Pass pass : {Pass::kScan, Pass::kRevocations, Pass::kReplay}) STASIS_TRY(walk(pass));
    return std::move(replay_);
  }

 private:
  // False if the journal is empty.
  Result<bool> read_superblock() {
    if (source_.block_size < kSuperblock || source_.blocks < 2) return damaged("it is too small");
    STASIS_TRY(source_.read(0, block_));
    const uint32_t type = be32(block_, 4);
    if (be32(block_, 0) != kJournalMagic || (type != kSuperblockV1 && type != kSuperblockV2)) {
      return damaged("it has no superblock");
    }
    if (type == kSuperblockV2) STASIS_TRY(read_features());
    if (be32(block_, 0x0C) != source_.block_size) return damaged("its blocks are not those of the file system");
    end_ = be32(block_, 0x10);
    first_ = be32(block_, 0x14);
    next_sequence_ = be32(block_, 0x18);
    start_ = be32(block_, 0x1C);
    if (end_ > source_.blocks || first_ == 0 || first_ >= end_) return damaged("its length is wrong");
    if (start_ == 0) return false;
    if (start_ < first_ || start_ >= end_) return damaged("it begins outside itself");
    if (end_ > kMaxJournalBlocks) return fail(Code::kResourceExhausted, "its journal has more than 1,048,576 blocks");
    if (has(kIncompatFastCommit)) return fail(Code::kUnimplemented, "its journal has fast commits");
    return true;
  }

  Status read_features() {
    compat_ = be32(block_, 0x24);
    incompat_ = be32(block_, 0x28);
    if ((incompat_ & ~(kIncompatKnown | kIncompatFastCommit)) != 0) {
      return fail(Code::kUnimplemented, "its journal has features that are not known");
    }
    if (has(kIncompatCsumV2) && has(kIncompatCsumV3)) return damaged("it has two kinds of checksums");
    if (!has_checksums()) return {};
    const auto superblock = std::span<const std::byte>(block_).first(kSuperblock);
    if (be32(block_, kSuperblockChecksum) != raw_crc32c_without(~0U, superblock, kSuperblockChecksum)) {
      return damaged("its superblock has a wrong checksum");
    }
    seed_ = raw_crc32c(~0U, superblock.subspan(0x30, kUuid));
    return {};
  }

  bool has(uint32_t feature) const { return (incompat_ & feature) != 0; }
  bool has_checksums() const { return has(kIncompatCsumV2) || has(kIncompatCsumV3); }

  size_t tag_size() const {
    if (has(kIncompatCsumV3)) return 16;
    return 8U + (has(kIncompatCsumV2) ? 2U : 0U) + (has(kIncompat64Bit) ? 4U : 0U);
  }

  Tag tag_at(size_t at) const {
    Tag tag;
    tag.block = be32(block_, at);
    if (has(kIncompatCsumV3)) {
      tag.flags = be32(block_, at + 4);
      if (has(kIncompat64Bit)) tag.block |= uint64_t{be32(block_, at + 8)} << 32;
      tag.checksum = be32(block_, at + 12);
    } else {
      tag.checksum = be16(block_, at + 4);
      tag.flags = be16(block_, at + 6);
      if (has(kIncompat64Bit)) tag.block |= uint64_t{be32(block_, at + 8)} << 32;
    }
    return tag;
  }

  // Those of the descriptor in block_; all that fit if no one says that it is the last.
  std::vector<Tag> tags() const {
    std::vector<Tag> tags;
    const size_t end = source_.block_size - (has_checksums() ? kTail : 0);
    for (size_t at = kHeader; at + tag_size() <= end;) {
      tags.push_back(tag_at(at));
      at += tag_size();
      if ((tags.back().flags & kTagSameUuid) == 0) at += kUuid;
      if ((tags.back().flags & kTagLast) != 0) break;
    }
    return tags;
  }

  bool tail_is_right() const {
    const size_t at = source_.block_size - kTail;
    return !has_checksums() || be32(block_, at) == raw_crc32c_without(seed_, block_, at);
  }

  uint64_t take_next(uint64_t& position) const {
    const uint64_t here = position++;
    if (position == end_) position = first_;
    return here;
  }

  Status walk(Pass pass) {
    uint64_t position = start_;
    uint32_t sequence = next_sequence_;
    transaction_crc_ = ~0U;
    // Whatever the blocks say, a walk around the whole journal has seen everything.
    for (uint64_t seen = 0; seen < end_ - first_; ++seen) {
      if (pass != Pass::kScan && sequence == end_sequence_) break;
      STASIS_TRY(source_.read(take_next(position), block_));
      if (be32(block_, 0) != kJournalMagic || be32(block_, 8) != sequence) break;
      const uint32_t type = be32(block_, 4);
      if (type == kDescriptor) {
        STASIS_ASSIGN(const uint64_t data_blocks, descriptor(pass, sequence, position));
        seen += data_blocks;
      } else if (type == kRevoke) {
        if (pass == Pass::kRevocations) STASIS_TRY(revoke(sequence));
      } else if (type != kCommit || (pass == Pass::kScan && !commit_is_whole())) {
        break;
      } else {
        ++sequence;
        transaction_crc_ = ~0U;
      }
    }
    if (pass == Pass::kScan) end_sequence_ = sequence;
    return {};
  }

  // How many blocks it describes, which `position` is behind afterwards.
  Result<uint64_t> descriptor(Pass pass, uint32_t sequence, uint64_t& position) {
    // Of a transaction that is not whole the scan may see anything; later passes see whole ones only.
    if (pass != Pass::kScan && !tail_is_right()) return damaged("a descriptor has a wrong checksum");
    const std::vector<Tag> all = tags();
    if (pass == Pass::kScan && (compat_ & kCompatChecksum) != 0) transaction_crc_ = crc32_be(transaction_crc_, block_);
    for (const Tag& tag : all) {
      const uint64_t from = take_next(position);
      if (pass == Pass::kScan && (compat_ & kCompatChecksum) != 0) {
        STASIS_TRY(source_.read(from, data_));
        transaction_crc_ = crc32_be(transaction_crc_, data_);
      } else if (pass == Pass::kReplay) {
        STASIS_TRY(replay(tag, sequence, from));
      }
    }
    return all.size();
  }

  Status replay(const Tag& tag, uint32_t sequence, uint64_t from) {
    const auto revoked = revoked_.find(tag.block);
    if (revoked != revoked_.end() && !is_later(sequence, revoked->second)) return {};
    if (tag.block >= file_system_blocks_) return damaged("it holds a block behind the end of the file system");
    if (has_checksums()) {
      STASIS_TRY(source_.read(from, data_));
      if (!data_is_right(tag, sequence)) return damaged("a block in it has a wrong checksum");
    }
    replay_.insert_or_assign(tag.block, ReplayedBlock{from, (tag.flags & kTagEscaped) != 0});
    if (replay_.size() > kMaxReplayedBlocks) {
      return fail(Code::kResourceExhausted, "its journal holds more than 1,048,576 blocks");
    }
    return {};
  }

  bool data_is_right(const Tag& tag, uint32_t sequence) const {
    std::array<std::byte, 4> number{};
    put_be32(number, 0, sequence);
    const uint32_t crc = raw_crc32c(raw_crc32c(seed_, number), data_);
    return has(kIncompatCsumV3) ? tag.checksum == crc : tag.checksum == (crc & 0xffff);
  }

  Status revoke(uint32_t sequence) {
    if (!tail_is_right()) return damaged("a revoke block has a wrong checksum");
    const size_t end = be32(block_, kHeader);
    if (end > source_.block_size - (has_checksums() ? kTail : 0)) return damaged("a revoke block is too long");
    const size_t width = has(kIncompat64Bit) ? 8 : 4;
    for (size_t at = kHeader + 4; at + width <= end; at += width) {
      const uint64_t block = width == 8 ? be64(block_, at) : be32(block_, at);
      revoked_[block] = sequence;  // the sequences ascend
    }
    if (revoked_.size() <= kMaxRevokedBlocks) return {};
    return fail(Code::kResourceExhausted, "its journal revokes more than 1,048,576 blocks");
  }

  bool commit_is_whole() const {
    if (has_checksums()) return be32(block_, kCommitChecksum) == raw_crc32c_without(seed_, block_, kCommitChecksum);
    if ((compat_ & kCompatChecksum) == 0) return true;
    const auto kind = static_cast<uint8_t>(block_[kHeader]);
    const auto size = static_cast<uint8_t>(block_[kHeader + 1]);
    const uint32_t found = be32(block_, kCommitChecksum);
    return (kind == 1 && size == 4 && found == transaction_crc_) || (kind == 0 && size == 0 && found == 0);
  }

  const JournalSource& source_;
  const uint64_t file_system_blocks_;
  std::vector<std::byte> block_;  // a block of the journal itself
  std::vector<std::byte> data_;   // one of those that it carries
  uint32_t compat_ = 0;
  uint32_t incompat_ = 0;
  uint32_t seed_ = 0;   // of checksums
  uint64_t first_ = 0;  // blocks [first_, end_) are used round and round
  uint64_t end_ = 0;
  uint64_t start_ = 0;
  uint32_t next_sequence_ = 0;  // of the first transaction
  uint32_t end_sequence_ = 0;   // of the first one that is not there, or not whole
  uint32_t transaction_crc_ = 0;
  std::unordered_map<uint64_t, uint32_t> revoked_;  // until which transaction
  Replay replay_;
};

}  // namespace

Result<Replay> read_journal(const JournalSource& source, uint64_t file_system_blocks) {
  return Reader(source, file_system_blocks).run();
}

}  // namespace stasis::files
