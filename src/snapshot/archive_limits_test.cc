// What an archive may cost the host that imports it, however little of it comes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "snapshot/flat_map.h"
#include "snapshot/testing/archived.h"

namespace stasis::snapshot {
namespace {

using testing::Bytes;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A thousandth of it comes, and all of it would be written.
Bytes archive_of_one_byte_again_and_again(uint64_t memory_mib) {
  testing::FaultyStore store;
  testing::Memory memory(memory_mib << 20);
  memory.write(0, Bytes(memory.content.size(), std::byte{7}));
  testing::Disk disk(store, kBlockSize);
  return testing::make_archive(store, memory, disk);
}

TEST(ArchiveLimitsTest, AnImportLeavesTheDeviceTheRoomThatItIsToldTo) {
  const testing::FaultyStore store;
  const Bytes archive = archive_of_one_byte_again_and_again(40);
  ASSERT_LT(archive.size(), 1U << 20);
  ImportOptions options{SnapshotId::random()};
  size_t read = 0;
  const ArchiveSource source = [&](std::span<std::byte> out) -> Result<size_t> {
    // While it goes on: there was room for its first half.
    if (read > archive.size() / 2) options.free_afterwards = ~uint64_t{0};
    const size_t n = std::min(out.size(), archive.size() - read);
    std::copy_n(archive.begin() + static_cast<ptrdiff_t>(read), n, out.begin());
    read += n;
    return n;
  };
  const auto refused = import_snapshot(store.healthy, options, source);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kResourceExhausted);
  EXPECT_THAT(refused.error().message, HasSubstr("free"));
  EXPECT_LT(read, archive.size());
  EXPECT_THAT(store.files(), IsEmpty());
  EXPECT_TRUE(testing::import_archive(store.healthy, SnapshotId::random(), archive));
}

TEST(ArchiveLimitsTest, EveryOtherBlockIsTwoExtents) {
  BlockMap::Metadata metadata;
  metadata.size = (kMaxExtents + 4) * kBlockSize;
  metadata.id = Uuid::random();
  FlatMap map(metadata, LayerId::random());
  for (uint64_t block = 1; block < kMaxExtents; block += 2) ASSERT_TRUE(map.append(testing::blocks(block, 1)));
  EXPECT_TRUE(map.append(testing::blocks(kMaxExtents, 1))) << "continues the last one";
  const Status refused = map.append(testing::blocks(kMaxExtents + 2, 1));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kResourceExhausted);
}

TEST(ArchiveLimitsTest, AsManyExtentsAsABlockMapHolds) {
  BlockMap::Metadata metadata;
  metadata.size = kMaxExtents * kBlockSize;
  metadata.id = Uuid::random();
  FlatMap map(metadata, LayerId::random());
  for (uint64_t block = 1; block < kMaxExtents; block += 2) ASSERT_TRUE(map.append(testing::blocks(block, 1)));
  const auto finished = map.finish();
  ASSERT_TRUE(finished) << finished.error().message;
  EXPECT_EQ(finished->extent_count(), kMaxExtents);
  EXPECT_TRUE(finished->find(0).is_zero());
  EXPECT_EQ(finished->find(kBlockSize).layer_offset, kBlockSize);
}

}  // namespace
}  // namespace stasis::snapshot
