// Journals made by hand, block by block, for what debugfs does not make.
#pragma once

#include <cstring>
#include <vector>

#include "files/big_endian.h"
#include "files/journal.h"
#include "snapshot/crc32c.h"

namespace stasis::files::testing {

inline constexpr size_t kJournalBlock = 1024;
using Block = std::vector<std::byte>;

inline Block filled(uint8_t value) { return Block(kJournalBlock, std::byte{value}); }

// A journal with 64-bit block numbers and checksums of version 3, `blocks` long, whose first transaction is `sequence`
// at `start`.
class JournalBuilder {
 public:
  explicit JournalBuilder(uint64_t blocks = 32, uint32_t sequence = 1, uint32_t start = 1)
      : blocks_(blocks, Block(kJournalBlock)), position_(start) {
    Block& super = blocks_[0];
    header(super, 4, 0);
    put_be32(super, 0x0C, kJournalBlock);
    put_be32(super, 0x10, static_cast<uint32_t>(blocks));
    put_be32(super, 0x14, 1);
    put_be32(super, 0x18, sequence);
    put_be32(super, 0x1C, start);
    put_be32(super, 0x28, 1 | 2 | 16);
    super[0x50] = std::byte{4};
    super[0x30] = std::byte{0x42};  // of its UUID
    seal_superblock();
    seed_ = crc(~0U, std::span(super).subspan(0x30, 16));
  }

  struct Write {
    uint64_t block = 0;
    Block content;
    uint32_t flags = 0;
  };
  JournalBuilder& descriptor(uint32_t sequence, const std::vector<Write>& writes) {
    Block block(kJournalBlock);
    header(block, 1, sequence);
    size_t at = 12;
    for (const Write& write : writes) {
      std::array<std::byte, 4> number{};
      put_be32(number, 0, sequence);
      const bool last = &write == &writes.back();
      put_be32(block, at, static_cast<uint32_t>(write.block));
      put_be32(block, at + 4, write.flags | 2 | (last ? 8 : 0));
      put_be32(block, at + 8, static_cast<uint32_t>(write.block >> 32));
      put_be32(block, at + 12, crc(crc(seed_, number), write.content));
      at += 16;
    }
    seal(block, kJournalBlock - 4);
    add(block);
    for (const Write& write : writes) add(write.content);
    return *this;
  }
  JournalBuilder& revoke(uint32_t sequence, const std::vector<uint64_t>& revoked) {
    Block block(kJournalBlock);
    header(block, 5, sequence);
    put_be32(block, 12, static_cast<uint32_t>(16 + 8 * revoked.size()));
    for (size_t i = 0; i < revoked.size(); ++i) {
      put_be32(block, 16 + 8 * i, static_cast<uint32_t>(revoked[i] >> 32));
      put_be32(block, 20 + 8 * i, static_cast<uint32_t>(revoked[i]));
    }
    seal(block, kJournalBlock - 4);
    return add(block);
  }
  JournalBuilder& commit(uint32_t sequence) {
    Block block(kJournalBlock);
    header(block, 2, sequence);
    seal(block, 0x10);
    return add(block);
  }
  JournalBuilder& add(const Block& block) {
    blocks_[position_] = block;
    position_ = position_ + 1 == blocks_.size() ? 1 : position_ + 1;
    return *this;
  }

  Block& block(uint64_t number) { return blocks_[number]; }
  void set_superblock(size_t at, uint32_t value) {
    put_be32(blocks_[0], at, value);
    seal_superblock();
  }
  void seal_superblock() {
    Block first(blocks_[0].begin(), blocks_[0].end());
    put_be32(first, 0xFC, 0);
    put_be32(blocks_[0], 0xFC, crc(~0U, first));
  }
  // One whose checksum is at `at`.
  void seal(Block& block, size_t at) const {
    put_be32(block, at, 0);
    put_be32(block, at, crc(seed_, block));
  }

  Result<Replay> read(uint64_t file_system_blocks = 1000) const {
    const JournalSource source{kJournalBlock, blocks_.size(),
                               [this](uint64_t number, std::span<std::byte> out) -> Status {
                                 std::memcpy(out.data(), blocks_[number].data(), out.size());
                                 return {};
                               }};
    return read_journal(source, file_system_blocks);
  }

 private:
  static uint32_t crc(uint32_t state, std::span<const std::byte> bytes) { return ~snapshot::crc32c(bytes, ~state); }
  static void header(Block& block, uint32_t type, uint32_t sequence) {
    put_be32(block, 0, kJournalMagic);
    put_be32(block, 4, type);
    put_be32(block, 8, sequence);
  }
  std::vector<Block> blocks_;
  uint64_t position_;
  uint32_t seed_ = 0;
};

}  // namespace stasis::files::testing
