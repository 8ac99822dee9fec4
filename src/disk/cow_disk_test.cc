#include "disk/cow_disk.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <thread>

#include "base/testing/in_child.h"
#include "disk/testing_disk.h"

namespace stasis::disk {
namespace {

using snapshot::kBlockSize;
using snapshot::LayerId;

// Data with holes: about a third of the blocks are zeros.
Bytes patchy(std::mt19937_64& random, uint64_t blocks) {
  Bytes result = random_bytes(random, blocks * kBlockSize);
  for (uint64_t block = 0; block < blocks; ++block) {
    if (random() % 3 == 0) std::memset(result.data() + block * kBlockSize, 0, kBlockSize);
  }
  return result;
}

bool block_is_zero(const Bytes& content, uint64_t block) {
  const auto* data = content.data() + block * kBlockSize;
  return std::all_of(data, data + kBlockSize, [](std::byte byte) { return byte == std::byte{}; });
}

struct Counts {
  uint64_t stored = 0;
  uint64_t zeroed = 0;
};

Counts difference(const Bytes& before, const Bytes& after) {
  Counts counts;
  for (uint64_t block = 0; block < after.size() / kBlockSize; ++block) {
    if (std::memcmp(&before[block * kBlockSize], &after[block * kBlockSize], kBlockSize) == 0) continue;
    ++(block_is_zero(after, block) ? counts.zeroed : counts.stored);
  }
  return counts;
}

class CowDiskTest : public ::testing::Test {
 protected:
  std::unique_ptr<CowDisk> on(const Bytes& content) {
    return must(CowDisk::create(fs_, make_base(dirs_.layers, content), dirs_.work));
  }
  std::unique_ptr<CowDisk> on_zeros(uint64_t size) {
    return must(CowDisk::create(fs_, make_zero_base(dirs_.layers, size), dirs_.work));
  }
  std::vector<std::string> write_layers() { return must(fs_.list(dirs_.work)); }

  FileSystem& fs_ = real_file_system();
  testing::TempDir dir_;
  Directories dirs_{dir_.path()};
  std::mt19937_64 random_{42};
};

// Random writes, discards, copies of what is there, and reads at odd offsets, with seals in between.
class CowDiskProperty : public CowDiskTest, public ::testing::WithParamInterface<unsigned> {
 protected:
  void step(CowDisk& disk, Bytes& model) {
    const uint64_t offset = random_() % model.size();
    const bool large = random_() % 8 == 0;
    const uint64_t length = random_() % (std::min<uint64_t>(model.size() - offset, large ? 2'000'000 : 9000) + 1);
    const auto part = std::span(model).subspan(offset, length);
    switch (random_() % 6) {
      case 0:
      case 1: {
        const Bytes data = random_bytes(random_, length);
        std::copy(data.begin(), data.end(), part.begin());
        must(disk.write(offset, data));
        break;
      }
      case 2:
        std::fill(part.begin(), part.end(), std::byte{});
        must(disk.discard(offset, length));
        break;
      case 3:  // zeros written as data
        std::fill(part.begin(), part.end(), std::byte{});
        must(disk.write(offset, part));
        break;
      case 4:  // what is there already
        must(disk.write(offset, part));
        break;
      default: {
        Bytes read(length);
        must(disk.read(offset, read));
        ASSERT_TRUE(std::equal(read.begin(), read.end(), part.begin())) << offset << " + " << length;
      }
    }
  }

  void seal_and_check(CowDisk& disk, const Bytes& before, const Bytes& model) {
    const uint64_t generation = disk.map().metadata().generation;
    const Counts expected = difference(before, model);
    const LayerId id = LayerId::random();
    const SealResult sealed = must(disk.seal(dirs_.layers, id));
    EXPECT_EQ(sealed.blocks_stored, expected.stored);
    EXPECT_EQ(sealed.blocks_zeroed, expected.zeroed);
    EXPECT_EQ(sealed.layer.has_value(), expected.stored > 0);
    if (sealed.layer) {
      EXPECT_EQ(sealed.layer->data_bytes, expected.stored * kBlockSize);
      EXPECT_EQ(sealed.layer->id, id);
    }
    EXPECT_EQ(sealed.map.metadata().generation, generation + 1);
    EXPECT_EQ(disk.map().metadata().id, sealed.map.metadata().id);
    EXPECT_EQ(disk.stats().blocks_written + disk.stats().blocks_zeroed, 0u);
    EXPECT_TRUE(content_of(dirs_.layers, sealed.map) == model);
    EXPECT_TRUE(content_of(disk) == model);
    EXPECT_EQ(write_layers().size(), 1u);
  }
};

TEST_P(CowDiskProperty, BehavesAsAnArrayOfBytes) {
  random_.seed(GetParam());
  Bytes model = patchy(random_, 700);  // more than two regions, and not whole ones
  auto disk = on(model);
  Bytes sealed = model;
  for (int i = 0; i < 600; ++i) {
    ASSERT_NO_FATAL_FAILURE(step(*disk, model));
    if (random_() % 100 != 0) continue;
    ASSERT_TRUE(content_of(*disk) == model);
    ASSERT_NO_FATAL_FAILURE(seal_and_check(*disk, sealed, model));
    sealed = model;
  }
  seal_and_check(*disk, sealed, model);
  disk.reset();
  EXPECT_TRUE(write_layers().empty());
}

TEST_P(CowDiskProperty, AFreezeIsOneMomentWhateverIsWrittenUntilTheSeal) {
  random_.seed(GetParam());
  Bytes model = patchy(random_, 700);
  auto disk = on(model);
  const auto steps = [&](int count) {
    for (int i = 0; i < count; ++i) ASSERT_NO_FATAL_FAILURE(step(*disk, model));
  };
  for (int round = 0; round < 6; ++round) {
    steps(30);
    if (round % 2 == 1) must(disk->prepare_freeze());
    must(disk->freeze());
    Bytes frozen = model;
    steps(30);
    if (round % 3 == 2) {  // the first one was never sealed
      must(disk->freeze());
      frozen = model;
      steps(30);
    }
    const SealResult sealed = must(disk->seal_frozen(dirs_.layers, LayerId::random(), keep_nothing));
    ASSERT_TRUE(content_of(dirs_.layers, sealed.map) == frozen) << round;
    ASSERT_TRUE(content_of(*disk) == model) << round;
    EXPECT_EQ(write_layers().size(), 1u);
  }
  must(disk->freeze());
  must(disk->prepare_freeze());
  disk.reset();
  EXPECT_TRUE(write_layers().empty());
}

TEST_F(CowDiskTest, WithoutAFreezeThereIsNothingToSeal) {
  auto disk = on_zeros(4 * kBlockSize);
  const auto sealed = disk->seal_frozen(dirs_.layers, LayerId::random(), keep_nothing);
  ASSERT_FALSE(sealed);
  EXPECT_EQ(sealed.error().code, Code::kFailedPrecondition);
}

INSTANTIATE_TEST_SUITE_P(Seeds, CowDiskProperty, ::testing::Range(1u, 9u));

TEST_F(CowDiskTest, RefusesWhatIsBeyondTheEnd) {
  auto disk = on_zeros(10 * kBlockSize);
  Bytes data(2);
  EXPECT_EQ(disk->read(10 * kBlockSize - 1, data).error().code, Code::kOutOfRange);
  EXPECT_EQ(disk->write(10 * kBlockSize - 1, data).error().code, Code::kOutOfRange);
  EXPECT_EQ(disk->discard(1, ~uint64_t{0}).error().code, Code::kOutOfRange);
  EXPECT_EQ(disk->read(~uint64_t{0}, data).error().code, Code::kOutOfRange);
  EXPECT_TRUE(disk->read(10 * kBlockSize, {}));
}

TEST_F(CowDiskTest, RefusesADirectoryWithAWriteLayer) {
  auto disk = on_zeros(kBlockSize);
  auto second = CowDisk::create(fs_, make_zero_base(dirs_.layers, kBlockSize), dirs_.work);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::kFailedPrecondition);
}

TEST_F(CowDiskTest, DiscardedBlocksComeBackAsZerosAfterASeal) {
  Bytes model = random_bytes(random_, 8 * kBlockSize);
  auto disk = on(model);
  must(disk->discard(kBlockSize, 2 * kBlockSize));
  std::fill_n(model.begin() + kBlockSize, 2 * kBlockSize, std::byte{});
  const SealResult sealed = must(disk->seal(dirs_.layers, LayerId::random()));
  EXPECT_FALSE(sealed.layer);
  EXPECT_EQ(sealed.blocks_zeroed, 2u);
  EXPECT_TRUE(content_of(dirs_.layers, sealed.map) == model);
}

TEST_F(CowDiskTest, DiscardGivesSpaceBack) {
  auto disk = on_zeros(uint64_t{8} << 20);
  must(disk->write(0, random_bytes(random_, size_t{4} << 20)));
  const Path file = dirs_.work / write_layers().at(0);
  EXPECT_GE(must(fs_.info(file)).stored_bytes, uint64_t{4} << 20);
  must(disk->discard(0, uint64_t{8} << 20));
  EXPECT_LT(must(fs_.info(file)).stored_bytes, uint64_t{64} << 10);
  EXPECT_EQ(disk->stats().blocks_written, 0u);
}

TEST_F(CowDiskTest, DiscardingWhatIsZeroStoresNothing) {
  auto disk = on_zeros(uint64_t{8} << 20);
  must(disk->discard(100, (uint64_t{8} << 20) - 200));
  EXPECT_EQ(disk->stats().blocks_written, 0u);
  const SealResult sealed = must(disk->seal(dirs_.layers, LayerId::random()));
  EXPECT_EQ(sealed.blocks_zeroed, 0u);
  EXPECT_EQ(sealed.map.extent_count(), 1u);
}

TEST_F(CowDiskTest, LayersInUseStayAsTheyWereSealed) {
  const Bytes first = random_bytes(random_, 64 * kBlockSize);
  auto disk = on_zeros(first.size());
  must(disk->write(0, first));
  const SealResult sealed = must(disk->seal(dirs_.layers, LayerId::random()));
  must(disk->write(0, random_bytes(random_, first.size())));
  must(disk->discard(0, first.size() / 2));
  EXPECT_TRUE(content_of(dirs_.layers, sealed.map) == first);
}

// Threads own every n-th sector each, so that all of them change parts of the same blocks: a read-modify-write that is
// not exclusive loses a neighbour's sector. Meanwhile the disk is frozen and sealed again and again.
TEST_F(CowDiskTest, ManyThreadsChangePartsOfTheSameBlocks) {
  constexpr uint64_t kSector = 512;
  constexpr uint64_t kSectors = 640 * kBlockSize / kSector;
  constexpr unsigned kThreads = 4;
  Bytes model = patchy(random_, 640);
  auto disk = on(model);
  auto work = [&](unsigned thread) {
    std::mt19937_64 random(thread);
    for (int i = 0; i < 6000; ++i) {
      const uint64_t offset = (random() % (kSectors / kThreads) * kThreads + thread) * kSector;
      const auto mine = std::span(model).subspan(offset, kSector);
      if (random() % 3 == 0) {
        std::fill(mine.begin(), mine.end(), std::byte{});
        must(disk->discard(offset, kSector));
      } else {
        const Bytes data = random_bytes(random, kSector);
        std::copy(data.begin(), data.end(), mine.begin());
        must(disk->write(offset, data));
      }
      Bytes read(kSector);
      must(disk->read(offset, read));
      if (!std::equal(read.begin(), read.end(), mine.begin())) throw std::runtime_error("lost a write");
    }
  };
  std::vector<std::thread> threads;
  for (unsigned thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] { EXPECT_NO_THROW(work(thread)); });
  }
  for (int i = 0; i < 10; ++i) {
    must(disk->freeze());
    must(disk->seal_frozen(dirs_.layers, LayerId::random(), keep_nothing));
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(content_of(*disk) == model);
}

// A layer that is open already is not opened again: the limit is meant for one of each.
TEST_F(CowDiskTest, AChainOfGenerationsNeedsOneDescriptorForEachLayer) {
  EXPECT_EQ(testing::in_child([this]() -> std::string {
              const rlimit limit{64, 64};
              if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) return "the limit cannot be lowered";
              Bytes model = random_bytes(random_, 64 * kBlockSize);
              const auto disk = on(model);
              for (uint64_t i = 0; i < 48; ++i) {
                const Bytes data = random_bytes(random_, kBlockSize);
                std::copy(data.begin(), data.end(), model.begin() + static_cast<long>(i * kBlockSize));
                must(disk->write(i * kBlockSize, data));
                must(disk->seal(dirs_.layers, LayerId::random()));
              }
              return content_of(*disk) == model ? "" : "it reads as something else";
            }),
            "");
}

// Who stops because of that keeps what is there whole: a map is not published that names what is not.
TEST_F(CowDiskTest, ALayerThatIsGoneFromTheStoreIsNotBuiltUpon) {
  const LayerId lost = LayerId::random();
  const auto disk = on_zeros(64 * kBlockSize);
  must(disk->write(0, Bytes(kBlockSize, std::byte{1})));
  must(disk->seal(dirs_.layers, lost));
  must(fs_.remove(snapshot::layer_data_path(dirs_.layers, lost)));
  must(disk->write(kBlockSize, Bytes(kBlockSize, std::byte{2})));
  const auto sealed = disk->seal(dirs_.layers, LayerId::random());
  ASSERT_FALSE(sealed);
  EXPECT_EQ(sealed.error().code, Code::kDataLoss);
}

}  // namespace
}  // namespace stasis::disk
