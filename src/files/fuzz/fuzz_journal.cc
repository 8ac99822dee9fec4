// Bytes are a journal of blocks of 1 KiB, as they are and without the checksums that its superblock asks for. What it
// says lies in it and in the file system.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "files/big_endian.h"
#include "files/journal.h"

namespace stasis::files {
namespace {

constexpr uint32_t kBlock = 1024;
constexpr uint64_t kFileSystemBlocks = 100'000;
constexpr size_t kFeatures = 0x28;
constexpr uint32_t kChecksums = 8 | 16;

void check(std::span<const std::byte> bytes) {
  const uint64_t blocks = bytes.size() / kBlock;
  const JournalSource source{kBlock, blocks, [&](uint64_t block, std::span<std::byte> out) -> Status {
                               if (block >= blocks || out.size() != kBlock) std::abort();
                               std::memcpy(out.data(), bytes.data() + block * kBlock, kBlock);
                               return {};
                             }};
  const auto replay = read_journal(source, kFileSystemBlocks);
  if (!replay) return;
  for (const auto& [block, replayed] : *replay) {
    if (block >= kFileSystemBlocks || replayed.journal_block == 0 || replayed.journal_block >= blocks) std::abort();
  }
}

}  // namespace
}  // namespace stasis::files

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stasis::files;
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  std::vector<std::byte> journal(bytes, bytes + size);
  check(journal);
  if (size < kBlock) return 0;
  put_be32(journal, kFeatures, be32(journal, kFeatures) & ~kChecksums);
  check(journal);
  return 0;
}
