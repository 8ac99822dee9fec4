// The checksums of a large layer, which are used where they are: in their file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/testing/faulty_file_system.h"
#include "snapshot/layer_sums.h"
#include "snapshot/testing/hostile.h"

namespace stasis::snapshot {
namespace {

using stasis::testing::FaultyFileSystem;
using testing::Bytes;
using ::testing::HasSubstr;

// A layer with so many frames that its checksums stay in their file.
class LargeTableTest : public testing::StoreTest {
 protected:
  static constexpr uint64_t kFrames = 8192;
  static constexpr uint64_t kLarge = kFrames * kFrameSize;
  // All of it a hole: writing a block of each frame takes seconds.
  void SetUp() override {
    LayerSums sums{id_, kLarge, kFrames * kBlockSize, {}, std::vector(kFrames, checksum(Bytes(kFrameSize)))};
    for (uint32_t frame = 0; frame < kFrames; ++frame) sums.frames.push_back(frame);
    testing::write_whole_file(sums_path(), sums.encode());
    testing::write_whole_file(data_path(), {});
    std::filesystem::resize_file(data_path(), kLarge);
  }
  Path data_path() const { return layer_data_path(store_.layers_dir(), id_); }
  Path sums_path() const { return layer_sums_path(store_.layers_dir(), id_); }
  Result<std::shared_ptr<Layer>> open_layer() { return Layer::open(fs_, store_.layers_dir(), id_); }
  static Status read(Layer& layer, uint64_t frame) {
    Bytes block(kBlockSize);
    STASIS_TRY(layer.read(frame * kFrameSize, block));
    EXPECT_EQ(block, Bytes(kBlockSize));
    return {};
  }

  const LayerId id_ = LayerId::random();
};

TEST_F(LargeTableTest, IsReadWhereItIs) {
  const auto layer = open_layer().value();
  for (const uint64_t frame : {uint64_t{0}, kFrames / 2, kFrames - 1}) EXPECT_TRUE(read(*layer, frame));
  testing::damage_file(data_path(), 77 * kFrameSize);
  EXPECT_THAT(read(*layer, 77).error().message, HasSubstr("frame 77"));
}

// A frame that is in memory is never waited for.
TEST_F(LargeTableTest, IsKeptInMemory) {
  const auto locked_kib = [] {
    std::ifstream status("/proc/self/status");
    std::string word;
    while (status >> word && word != "VmLck:") continue;
    uint64_t kib = 0;
    status >> kib;
    return kib;
  };
  const uint64_t before = locked_kib();
  auto layer = open_layer().value();
  EXPECT_EQ(locked_kib() - before, (std::filesystem::file_size(sums_path()) + 4095) / 4096 * 4);
  layer.reset();
  EXPECT_EQ(locked_kib(), before);
}

TEST_F(LargeTableTest, IsReadIntoMemoryWhereItCannotBeMapped) {
  FaultyFileSystem faulty;
  faulty.fail_at(3, ENOMEM);  // after info, open
  const auto layer = Layer::open(faulty, store_.layers_dir(), id_).value();
  ASSERT_TRUE(faulty.fired());
  EXPECT_TRUE(read(*layer, kFrames - 1));
}

TEST_F(LargeTableTest, ThatIsDamagedIsTold) {
  testing::damage_file(sums_path(), 50'000);
  EXPECT_THAT(open_layer().error().message,
              HasSubstr(sums_path().string() + ": the layer's checksum file has a damaged table"));
}

TEST_F(LargeTableTest, ThatIsGoneWhileItIsOpenIsDataLossAndNotASignal) {
  const auto layer = open_layer().value();
  std::filesystem::permissions(sums_path(), std::filesystem::perms(0600));
  std::filesystem::resize_file(sums_path(), 0);
  const Status status = read(*layer, kFrames - 1);
  EXPECT_EQ(status.error().code, Code::kDataLoss);
  EXPECT_THAT(status.error().message, HasSubstr("cannot be read any more"));
}

}  // namespace
}  // namespace stasis::snapshot
