// A disk whose file system fails, at each call in turn.
#include <gtest/gtest.h>

#include <cerrno>

#include "base/testing/faulty_file_system.h"
#include "base/testing/volatile_file_system.h"
#include "disk/cow_disk.h"
#include "disk/testing_disk.h"

namespace stasis::disk {
namespace {

using Mode = testing::FaultyFileSystem::Mode;
using snapshot::kBlockSize;
using snapshot::LayerId;

constexpr uint64_t kMaxCalls = 1000;  // more than any operation here makes

class FailureTest : public ::testing::Test {
 protected:
  std::unique_ptr<CowDisk> make() { return must(CowDisk::create(fs_, base_, dirs_.work)); }
  std::vector<std::string> layer_files() { return must(fs_.list(dirs_.layers)); }

  // Every kind of change: new data, the parent's data again, zeros as data, discarded, a part of a block.
  void change(CowDisk& disk) {
    write(disk, 3 * kBlockSize, random_bytes(random_, 40 * kBlockSize));
    write(disk, 60 * kBlockSize, Bytes(model_.begin() + 60 * kBlockSize, model_.begin() + 70 * kBlockSize));
    write(disk, 80 * kBlockSize, Bytes(5 * kBlockSize));
    write(disk, 100 * kBlockSize + 17, random_bytes(random_, 100));
    must(disk.discard(120 * kBlockSize, 8 * kBlockSize));
    std::fill_n(model_.begin() + 120 * kBlockSize, 8 * kBlockSize, std::byte{});
  }
  void write(CowDisk& disk, uint64_t offset, const Bytes& data) {
    must(disk.write(offset, data));
    std::copy(data.begin(), data.end(), model_.begin() + static_cast<long>(offset));
  }

  testing::FaultyFileSystem fs_;
  testing::TempDir dir_;
  Directories dirs_{dir_.path()};
  std::mt19937_64 random_{17};
  Bytes model_ = random_bytes(random_, 300 * kBlockSize);
  std::shared_ptr<const snapshot::AddressSpace> base_ = make_base(dirs_.layers, model_);
};

TEST_F(FailureTest, AFailedSealLeavesTheDiskAsItWas) {
  const auto disk = make();
  change(*disk);
  const auto layers = layer_files();
  const Uuid map = disk->map().metadata().id;
  uint64_t call = 1;
  for (; call < kMaxCalls; ++call) {
    fs_.fail_at(call, EIO);
    const auto sealed = disk->seal(dirs_.layers, LayerId::random());
    fs_.heal();
    if (sealed) break;
    ASSERT_EQ(layer_files(), layers) << "call " << call;
    ASSERT_EQ(must(fs_.list(dirs_.work)).size(), 1u) << "call " << call;
    ASSERT_EQ(disk->map().metadata().id, map);
    ASSERT_TRUE(content_of(*disk) == model_) << "call " << call;
    write(*disk, 200 * kBlockSize + 5, random_bytes(random_, 10));  // and it goes on
  }
  EXPECT_GT(call, 8u);
  ASSERT_LT(call, kMaxCalls);
  EXPECT_TRUE(content_of(*disk) == model_);
  EXPECT_TRUE(content_of(dirs_.layers, disk->map()) == model_);
}

// Whatever fails, what is written after a freeze is not lost, and what was frozen is sealed with it later.
TEST_F(FailureTest, AFailedSealOfWhatIsFrozenLosesNothing) {
  const auto disk = make();
  change(*disk);
  const auto layers = layer_files();
  uint64_t call = 1;
  for (; call < kMaxCalls; ++call) {
    must(disk->freeze());
    const Bytes frozen = model_;
    change(*disk);
    fs_.fail_at(call, EIO);
    const auto sealed = disk->seal_frozen(dirs_.layers, LayerId::random(), keep_nothing);
    fs_.heal();
    ASSERT_TRUE(content_of(*disk) == model_) << "call " << call;
    if (sealed) {
      EXPECT_TRUE(content_of(dirs_.layers, sealed->map) == frozen);
      break;
    }
    ASSERT_EQ(layer_files(), layers) << "call " << call;
    write(*disk, 200 * kBlockSize + 5, random_bytes(random_, 10));
  }
  EXPECT_GT(call, 8u);
  ASSERT_LT(call, kMaxCalls);
  must(disk->seal(dirs_.layers, LayerId::random()));
  EXPECT_TRUE(content_of(dirs_.layers, disk->map()) == model_);
}

// Otherwise the disk would stand on a layer that the next collection takes.
TEST_F(FailureTest, AMapThatCannotBeKeptLeavesTheDiskAsItWas) {
  const auto disk = make();
  const auto layers = layer_files();
  const Uuid map = disk->map().metadata().id;
  const auto full = [](const snapshot::BlockMap&) -> Status {
    return fail(Code::kResourceExhausted, "the disk is full");
  };
  const auto expect_failed_seal = [&] {
    const auto sealed = disk->seal_frozen(dirs_.layers, LayerId::random(), full);
    ASSERT_FALSE(sealed);
    EXPECT_EQ(sealed.error().code, Code::kResourceExhausted);
    EXPECT_EQ(layer_files(), layers);
    EXPECT_EQ(disk->map().metadata().id, map);
    EXPECT_EQ(must(fs_.list(dirs_.work)).size(), 1u);
    EXPECT_TRUE(content_of(*disk) == model_);
  };
  must(disk->discard(0, kBlockSize));
  std::fill_n(model_.begin(), kBlockSize, std::byte{});
  must(disk->freeze());
  expect_failed_seal();  // without a layer
  change(*disk);
  must(disk->freeze());
  change(*disk);
  expect_failed_seal();
  must(disk->freeze());
  const auto sealed = must(disk->seal_frozen(dirs_.layers, LayerId::random(), keep_nothing));
  EXPECT_TRUE(content_of(dirs_.layers, sealed.map) == model_);
}

// Linux takes the pages of a failed write-back for clean: a second sync of the same file says nothing of them.
TEST_F(FailureTest, WhatAFailedSyncHasLostIsInTheNextLayer) {
  testing::VolatileFileSystem device(dir_.path());
  const auto disk = must(CowDisk::create(device, base_, dirs_.work));
  change(*disk);
  must(disk->freeze());
  write(*disk, 200 * kBlockSize, random_bytes(random_, 3 * kBlockSize));
  device.fail_next_sync();
  EXPECT_FALSE(disk->seal_frozen(dirs_.layers, LayerId::random(), keep_nothing));
  EXPECT_TRUE(content_of(*disk) == model_);
  EXPECT_EQ(must(fs_.list(dirs_.work)).size(), 1u);
  write(*disk, 210 * kBlockSize, random_bytes(random_, 3 * kBlockSize));
  const auto sealed = must(disk->seal(dirs_.layers, LayerId::random()));
  EXPECT_TRUE(content_of(*disk) == model_);
  device.lose_power(random_);
  EXPECT_TRUE(content_of(dirs_.layers, sealed.map) == model_);
}

TEST_F(FailureTest, WhatAFailedWriteBackHasLostIsInTheNextLayer) {
  testing::VolatileFileSystem device(dir_.path());
  const auto disk = must(CowDisk::create(device, base_, dirs_.work));
  change(*disk);
  device.fail_next_sync();
  EXPECT_FALSE(disk->write_back());
  const auto sealed = must(disk->seal(dirs_.layers, LayerId::random()));
  device.lose_power(random_);
  EXPECT_TRUE(content_of(dirs_.layers, sealed.map) == model_);
}

TEST_F(FailureTest, AFailedSealWithoutALayerLeavesTheDiskAsItWas) {
  const auto disk = make();
  must(disk->discard(0, 10 * kBlockSize));
  std::fill_n(model_.begin(), 10 * kBlockSize, std::byte{});
  uint64_t call = 1;
  for (; call < kMaxCalls; ++call) {
    fs_.fail_at(call, EIO);
    const auto sealed = disk->seal(dirs_.layers, LayerId::random());
    fs_.heal();
    ASSERT_TRUE(content_of(*disk) == model_) << "call " << call;
    if (sealed) break;
  }
  EXPECT_GT(call, 1u);
  ASSERT_LT(call, kMaxCalls);
  EXPECT_TRUE(content_of(dirs_.layers, disk->map()) == model_);
}

// After the file system has failed for good (not even the layer's file can be moved back), the guest's data is still
// there, and once it is well again the disk can be sealed.
TEST_F(FailureTest, AFileSystemThatStaysBrokenDuringASealLosesNothing) {
  for (uint64_t call = 1; call < kMaxCalls; ++call) {
    Bytes before = model_;
    auto disk = make();
    change(*disk);
    must(disk->freeze());
    change(*disk);
    fs_.fail_at(call, EIO, Mode::kFromThenOn);
    const auto sealed = disk->seal_frozen(dirs_.layers, LayerId::random(), keep_nothing);
    fs_.heal();
    ASSERT_TRUE(content_of(*disk) == model_) << "call " << call;
    const auto next = must(disk->seal(dirs_.layers, LayerId::random()));
    ASSERT_TRUE(content_of(dirs_.layers, next.map) == model_) << "call " << call;
    disk.reset();
    model_ = std::move(before);
    if (sealed) return;
    // What could not be removed at that time; a sandbox's directory goes as a whole.
    for (const std::string& name : must(fs_.list(dirs_.work))) must(fs_.remove(dirs_.work / name));
  }
  FAIL() << "never sealed";
}

// A write that fails may have changed a part of its own range, and nothing else: each block is what it was or what was
// written, except that a block that was in the write layer may be cut between the two.
TEST_F(FailureTest, AFailedWriteTouchesNothingElse) {
  auto disk = make();
  change(*disk);
  for (uint64_t call = 1; call < kMaxCalls; ++call) {
    const uint64_t offset = 98 * kBlockSize + 100;
    const Bytes data = random_bytes(random_, 10 * kBlockSize);
    fs_.fail_at(call, ENOSPC);
    const Status status = disk->write(offset, data);
    fs_.heal();
    const Bytes now = content_of(*disk);
    for (uint64_t i = 0; i < now.size(); ++i) {
      const bool inside = i >= offset && i < offset + data.size();
      ASSERT_TRUE(now[i] == model_[i] || (inside && now[i] == data[i - offset])) << "call " << call << ", byte " << i;
    }
    if (status) return;
    EXPECT_EQ(status.error().code, Code::kResourceExhausted);
    model_ = now;
    // Undone, so that the next failure meets blocks of the base again.
    must(disk->seal(dirs_.layers, LayerId::random()));
  }
  FAIL() << "never written";
}

TEST_F(FailureTest, AFailedDiscardReadsAsBeforeOrAsZeros) {
  auto disk = make();
  change(*disk);
  for (uint64_t call = 1; call < kMaxCalls; ++call) {
    const uint64_t offset = 4 * kBlockSize - 100;
    const uint64_t length = 10 * kBlockSize;
    fs_.fail_at(call, EIO);
    const Status status = disk->discard(offset, length);
    fs_.heal();
    const Bytes now = content_of(*disk);
    for (uint64_t i = 0; i < now.size(); ++i) {
      const bool inside = i >= offset && i < offset + length;
      ASSERT_TRUE(now[i] == model_[i] || (inside && now[i] == std::byte{})) << "call " << call << ", byte " << i;
    }
    if (status) return;
    write(*disk, 3 * kBlockSize, random_bytes(random_, 40 * kBlockSize));
    model_ = content_of(*disk);
  }
  FAIL() << "never discarded";
}

TEST_F(FailureTest, AFailedCreateLeavesNothing) {
  uint64_t call = 1;
  for (; call < kMaxCalls; ++call) {
    fs_.fail_at(call, EIO);
    const auto disk = CowDisk::create(fs_, base_, dirs_.work);
    fs_.heal();
    if (disk) break;
    ASSERT_TRUE(must(fs_.list(dirs_.work)).empty());
  }
  EXPECT_EQ(call, 4u);  // looking into the directory, making the file, setting its size
}

}  // namespace
}  // namespace stasis::disk
