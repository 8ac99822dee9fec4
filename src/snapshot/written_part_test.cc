// A device that keeps something else than it was given: what is published must be what was read from outside.
#include <gtest/gtest.h>

#include "snapshot/testing/archived.h"

namespace stasis::snapshot {
namespace {

using testing::Bytes;

// Flips a bit of every write of just these bytes.
class FlippingFileSystem : public ::stasis::testing::ForwardingFileSystem {
 public:
  explicit FlippingFileSystem(Bytes victim) : ForwardingFileSystem(real_file_system()), victim_(std::move(victim)) {}

  Status write_at(int fd, uint64_t offset, std::span<const std::byte> data) override {
    if (!std::equal(data.begin(), data.end(), victim_.begin(), victim_.end())) {
      return ForwardingFileSystem::write_at(fd, offset, data);
    }
    ++flips_;
    Bytes flipped = victim_;
    flipped[17] ^= std::byte{1};
    return ForwardingFileSystem::write_at(fd, offset, flipped);
  }
  int flips() const { return flips_; }

 private:
  std::optional<Error> before(const char* /*what*/) override { return std::nullopt; }
  Bytes victim_;
  int flips_ = 0;
};

template <typename Import>
void expect_refused(const Bytes& victim, Import import) {
  FlippingFileSystem* device = nullptr;
  const testing::FaultyStore store([&](const Path&) {
    auto made = std::make_unique<FlippingFileSystem>(victim);
    device = made.get();
    return made;
  });
  const Result<Manifest> imported = import(store);
  EXPECT_EQ(device->flips(), 1);
  ASSERT_FALSE(imported);
  EXPECT_EQ(imported.error().code, Code::kDataLoss);
  EXPECT_TRUE(store.files().empty());
}

TEST(WrittenPartTest, TheDeviceStateOfAnArchiveIsComparedWithWhatTheArchiveSays) {
  const Bytes state = testing::block_of(0x5a);  // snapshot_all()'s
  expect_refused(state, [](const testing::FaultyStore& store) {
    return testing::import_archive(store.healthy, SnapshotId::random(), testing::archived_guest().archive);
  });
}

TEST(WrittenPartTest, KernelAndInitrdOfAnImageAreComparedWithTheFilesThatWereGiven) {
  for (const char* victim : {"vmlinux", "initrd"}) {
    SCOPED_TRACE(victim);
    const ::stasis::testing::TempDir dir;
    const ImageFiles files{dir.path() / "vmlinux", dir.path() / "initrd", dir.path() / "disk", "6.1"};
    testing::write_whole_file(files.vmlinux, testing::block_of(3));
    testing::write_whole_file(files.initrd, testing::block_of(4));
    testing::write_whole_file(files.root_disk, testing::block_of(5));
    expect_refused(testing::read_whole_file(dir.path() / victim),
                   [&](const testing::FaultyStore& store) { return import_image(store.healthy, files); });
  }
}

}  // namespace
}  // namespace stasis::snapshot
