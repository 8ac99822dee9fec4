// A packed layer that was damaged on disk, met by a fault: nothing of the frame reaches the guest.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <future>
#include <span>
#include <thread>

#include "base/pagemap.h"
#include "pager/testing/two_processes.h"
#include "snapshot/packed_layer.h"
#include "snapshot/testing/fixtures.h"

namespace stasis::pager {
namespace {

using snapshot::kBlockSize;
using snapshot::kFrameSize;
using testing::content_of;
using ::testing::HasSubstr;
using testing::kSize;
using ::testing::Optional;

constexpr uint64_t kPagesInFrame = kFrameSize / kBlockSize;
constexpr uint64_t kDataPages = 96;  // from the start
// Frames are stored as they are where zstd gains nothing, else compressed.
constexpr uint64_t kCompressed = 1;
constexpr uint64_t kStored = 2;

class PackedDamageTest : public testing::TwoProcesses, public ::testing::WithParamInterface<uint64_t> {
 protected:
  void SetUp() override {
    FileSystem& fs = real_file_system();
    layers_ = dir_.path() / "packed";
    ASSERT_TRUE(fs.make_directory(layers_));
    const auto id = snapshot::LayerId::random();
    auto writer = snapshot::PackedLayerWriter::create(fs, layers_, id, kSize);
    ASSERT_TRUE(writer);
    for (uint64_t page = 0; page < kDataPages; ++page) {
      ASSERT_TRUE((*writer)->write(page * kBlockSize, block_of(page)));
    }
    ASSERT_TRUE((*writer)->finish());
    layer_file_ = snapshot::layer_packed_path(layers_, id);
    const std::array changes{snapshot::Change{{0, kDataPages * kBlockSize}, false}};
    auto map = snapshot::BlockMap::zeros(kSize)->merge(id, changes);
    ASSERT_TRUE(map);
    space_ = snapshot::AddressSpace::open(fs, layers_, std::move(*map)).value();
  }
  std::vector<std::byte> block_of(uint64_t page) {
    std::vector<std::byte> block(kBlockSize, content_of(page));
    if (page / kPagesInFrame == kStored) block = snapshot::testing::random_bytes(random_, kBlockSize);
    block[17] = content_of(page);  // what the VMM reads of it
    return block;
  }
  // Where the bytes of a frame are in the file.
  Range place_of(uint64_t frame) const {
    const auto file = read_file(real_file_system(), layer_file_, 1 << 20).value();
    const auto header = snapshot::PackedHeader::decode(file, file.size()).value();
    const auto table = snapshot::PackedTable::decode(header, std::span(file).subspan(header.table_offset)).value();
    return {table.offsets[frame], table.lengths[frame]};
  }
  // Of the guest, as the kernel tells.
  bool is_there(uint64_t page) const {
    const auto pagemap = real_file_system().open_read("/proc/" + std::to_string(vmm_->pid()) + "/pagemap").value();
    return present_bytes(pagemap.get(), {vmm_->address() + page * kBlockSize, kBlockSize}).value() == kBlockSize;
  }

  snapshot::testing::Random random_{1};
};

INSTANTIATE_TEST_SUITE_P(Frame, PackedDamageTest, ::testing::Values(kCompressed, kStored),
                         [](const auto& frame) { return frame.param == kStored ? "stored" : "compressed"; });

TEST_P(PackedDamageTest, EndsTheSandboxWithTheReasonAndInstallsNoPageOfTheFrame) {
  const uint64_t first = GetParam() * kPagesInFrame;
  const Range place = place_of(GetParam());
  ASSERT_EQ(place.length == kFrameSize, GetParam() == kStored);
  snapshot::testing::damage_file(layer_file_, place.offset + place.length / 2);
  serve();
  EXPECT_THAT(vmm_->read_now(0), Optional(content_of(0)));
  EXPECT_TRUE(is_there(0));
  EXPECT_THAT(vmm_->read_now(kDataPages - 1), Optional(content_of(kDataPages - 1)));
  const auto reads = vmm_->read(first + 5);
  auto told = failure_.get_future();
  ASSERT_EQ(told.wait_for(Milliseconds(20'000)), std::future_status::ready);
  const Error error = told.get();
  EXPECT_EQ(error.code, Code::kDataLoss);
  EXPECT_THAT(error.message, HasSubstr(layer_file_.string() + ": frame " + std::to_string(GetParam())));
  EXPECT_THAT(error.message, HasSubstr("is damaged"));
  EXPECT_FALSE(vmm_->is_done(reads));
  for (uint64_t page = first; page < first + kPagesInFrame; ++page) EXPECT_FALSE(is_there(page)) << page;
}

// The frames beside it come, also those that come with a fault, and the damage ends only who waits for it.
TEST_P(PackedDamageTest, ThatOnlyNeighboursAndAPrefetchMeetEndsNothing) {
  const uint64_t first = GetParam() * kPagesInFrame;
  const Range place = place_of(GetParam());
  snapshot::testing::damage_file(layer_file_, place.offset + place.length / 2);
  PageServerOptions options;
  options.prefetch = {{(first - 1) * kBlockSize, (kPagesInFrame + 2) * kBlockSize}};
  serve({}, std::move(options));
  while (server_->activity().prefetch_left > 0) std::this_thread::yield();
  for (uint64_t page = 0; page < kDataPages; ++page) {
    if (page >= first && page < first + kPagesInFrame) continue;
    ASSERT_THAT(vmm_->read_now(page), Optional(content_of(page)));
  }
  for (uint64_t page = first; page < first + kPagesInFrame; ++page) EXPECT_FALSE(is_there(page)) << page;
  EXPECT_FALSE(failed());
}

}  // namespace
}  // namespace stasis::pager
