// The guest's memory, mapped by this process in QEMU's place.
#include "vmm/qemu/guest_ram.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <future>

#include "base/memory.h"
#include "base/poll.h"
#include "base/testing/sync_points.h"
#include "base/userfaultfd.h"
#include "vmm/contract/result_matchers.h"

namespace stasis::vmm {
namespace {

using contract::value;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kPage = 4096;
constexpr Range pages(uint64_t first, uint64_t count) { return {first * kPage, count * kPage}; }

#define SKIP_UNLESS_THE_KERNEL_TELLS() \
  if (!probe_userfaultfd().write_protect_async) GTEST_SKIP() << "this kernel does not tell written pages (Linux 6.9)"

// For as long as it lives this kernel is one of before Linux 6.7.
class WithoutScan {
 public:
  ~WithoutScan() { EXPECT_GT(refused_, 0) << "nobody asked for a scan"; }

 private:
  int refused_ = 0;
  stasis::testing::AtPoint point_{"pagemap.scan", stasis::testing::AtPoint::on<int>([this](int& answer) {
                                    answer = ENOTTY;
                                    ++refused_;
                                  })};
};

// A booted guest's memory, in its file.
class BootedGuestRamTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto ram = GuestRam::create(64 * kPage);
    ASSERT_OK(ram);
    ram_.emplace(std::move(*ram));
    auto mapping = Mapping::shared(ram_->fd(), ram_->size());
    ASSERT_OK(mapping);
    mapping_ = std::move(*mapping);
  }
  void write(uint64_t page) { mapping_.bytes()[page * kPage + 5] = std::byte{9}; }
  // As a save() does it.
  std::vector<Range> changed() {
    const ChangedPages pages = value(ram_->changed(::getpid()));
    ram_->forget_told();
    EXPECT_EQ(pages.all, pages.fresh);
    return pages.all;
  }

  std::optional<GuestRam> ram_;
  Mapping mapping_;
};

// Not that a thing was not found, which is what a caller says of sandboxes and snapshots.
TEST_F(BootedGuestRamTest, AVmmThatHasNotMappedItsMemoryIsAnInternalError) {
  mapping_ = Mapping();
  EXPECT_FAILS(ram_->changed(::getpid()), Code::kInternal);
}

TEST_F(BootedGuestRamTest, WithoutTrackingItTellsWhatTheFileHolds) {
  EXPECT_FALSE(value(ram_->changed(::getpid())).tracked);
  EXPECT_THAT(changed(), IsEmpty());
  write(3);
  write(20);
  for (int call = 0; call < 2; ++call) EXPECT_THAT(changed(), ElementsAre(pages(3, 1), pages(20, 1)));
}

TEST_F(BootedGuestRamTest, WhereTheKernelHasNoScanItTellsWhatTheFileHolds) {
  write(3);
  write(20);
  const WithoutScan old;
  for (int call = 0; call < 2; ++call) {
    EXPECT_FALSE(value(ram_->changed(::getpid())).tracked);
    EXPECT_THAT(changed(), ElementsAre(pages(3, 1), pages(20, 1)));
  }
  write(40);
  EXPECT_THAT(changed(), ElementsAre(pages(3, 1), pages(20, 1), pages(40, 1)));
}

TEST_F(BootedGuestRamTest, ItIsTrackedFromItsFirstLookAhead) {
  SKIP_UNLESS_THE_KERNEL_TELLS();
  ram_->is_booted(value(UserFaultFd::create(true)));
  write(3);
  write(20);
  EXPECT_FALSE(value(ram_->changed(::getpid())).tracked);
  ASSERT_OK(ram_->start_tracking(::getpid()));
  EXPECT_THAT(changed(), ElementsAre(pages(3, 1), pages(20, 1))) << "what was written before comes once";
  EXPECT_THAT(changed(), IsEmpty());
  EXPECT_EQ(mapping_.bytes()[30 * kPage], std::byte{0});
  write(20);
  write(40);
  EXPECT_THAT(changed(), ElementsAre(pages(20, 1), pages(40, 1))) << "page 30 was only read";
  ram_->stop_tracking();
  write(3);
  EXPECT_THAT(changed(), ElementsAre(pages(3, 1))) << "and it goes on being tracked";
  ram_->forget_tracking();
  // A page that was read is the file's, too.
  EXPECT_THAT(changed(), ElementsAre(pages(3, 1), pages(20, 1), pages(30, 1), pages(40, 1)));
  EXPECT_THAT(changed(), IsEmpty());
}

// A scan that was refused once has re-armed nothing.
TEST_F(BootedGuestRamTest, AfterAScanThatWasRefusedItTellsWhatTheFileHolds) {
  SKIP_UNLESS_THE_KERNEL_TELLS();
  ram_->is_booted(value(UserFaultFd::create(true)));
  write(3);
  ASSERT_OK(ram_->start_tracking(::getpid()));
  EXPECT_THAT(changed(), ElementsAre(pages(3, 1)));
  write(20);
  {
    const WithoutScan once;
    EXPECT_THAT(changed(), ElementsAre(pages(3, 1), pages(20, 1)));
  }
  write(21);
  EXPECT_THAT(changed(), ElementsAre(pages(3, 1), pages(20, 2))) << "which the next scan cannot know better";
}

// Anonymous memory that is served, all of it, and of which pages 4 to 11 have come.
class ServedGuestRamTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SKIP_UNLESS_THE_KERNEL_TELLS();
    memory_ = value(Mapping::anonymous(64 * kPage));
    ASSERT_EQ(::madvise(memory_.bytes().data(), 64 * kPage, MADV_NOHUGEPAGE), 0);
    served_by_ = value(UserFaultFd::create(true));
    ASSERT_OK(served_by_.register_missing({memory_.address(), 64 * kPage}, true));
    const std::vector<std::byte> content(8 * kPage, std::byte{7});
    ASSERT_EQ(served_by_.copy(memory_.address() + 4 * kPage, content, true).bytes, content.size());
    auto ram = GuestRam::create(64 * kPage);
    ASSERT_OK(ram);
    ram_.emplace(std::move(*ram));
    ram_->is_mapped_at(memory_.address(), value(UserFaultFd::create(true)), {}, {pages(0, 64)});
  }
  void write(uint64_t page) { memory_.bytes()[page * kPage + 5] = std::byte{9}; }
  // As a page server brings zeros.
  void bring_zeros(uint64_t first, uint64_t count) {
    const Range range{memory_.address() + first * kPage, count * kPage};
    ASSERT_EQ(served_by_.zero(range).bytes, range.length);
  }
  // Whoever gives memory back waits until a page server has read of it.
  void give_back(uint64_t first, uint64_t count) {
    auto giving = std::async(std::launch::async, [&] {
      return ::madvise(memory_.bytes().data() + first * kPage, count * kPage, MADV_DONTNEED);
    });
    ASSERT_TRUE(value(wait_readable(served_by_.fd(), Deadline::after(Milliseconds(10'000)))));
    std::array<FaultEvent, 1> event;
    EXPECT_EQ(value(served_by_.read_events(event)), 1U);
    EXPECT_EQ(giving.get(), 0);
  }
  ChangedPages look() { return value(ram_->changed(::getpid())); }
  // As a save() does it.
  std::vector<Range> changed() {
    const ChangedPages pages = look();
    ram_->forget_told();
    EXPECT_EQ(pages.all, pages.fresh);
    return pages.all;
  }

  Mapping memory_;
  UserFaultFd served_by_;
  std::optional<GuestRam> ram_;
};

TEST_F(ServedGuestRamTest, TellsExactlyWhatWasWritten) {
  EXPECT_THAT(changed(), IsEmpty()) << "what was loaded is no change, and what was never loaded is none";
  write(5);
  write(6);
  write(9);
  EXPECT_THAT(changed(), ElementsAre(pages(5, 2), pages(9, 1)));
}

TEST_F(ServedGuestRamTest, ZerosThatWereOnlyReadAreNoChangeAndCostNothing) {
  bring_zeros(20, 10);
  for (uint64_t page = 20; page < 30; ++page) EXPECT_EQ(memory_.bytes()[page * kPage], std::byte{0});
  EXPECT_EQ(value(ram_->use(::getpid())).own_bytes, 8 * kPage);
  EXPECT_THAT(changed(), IsEmpty());
  write(22);
  EXPECT_EQ(value(ram_->use(::getpid())).own_bytes, 9 * kPage);
  EXPECT_THAT(changed(), ElementsAre(pages(22, 1)));
  EXPECT_THAT(changed(), IsEmpty());
  write(23);
  EXPECT_THAT(changed(), ElementsAre(pages(23, 1))) << "protected by the scans before";
}

TEST_F(ServedGuestRamTest, EachCallTellsWhatCameSinceTheLast) {
  write(5);
  EXPECT_THAT(changed(), ElementsAre(pages(5, 1)));
  EXPECT_THAT(changed(), IsEmpty());
  write(5);
  write(11);
  EXPECT_THAT(changed(), ElementsAre(pages(5, 1), pages(11, 1)));
}

TEST_F(ServedGuestRamTest, AfterForgettingItTellsEverythingOnce) {
  write(5);
  EXPECT_THAT(changed(), ElementsAre(pages(5, 1)));
  ram_->forget_tracking();
  EXPECT_THAT(changed(), ElementsAre(pages(4, 8)));
  write(8);
  EXPECT_THAT(changed(), ElementsAre(pages(8, 1)));
}

TEST_F(ServedGuestRamTest, WhatCouldNotBeScannedIsNotForgotten) {
  write(5);
  EXPECT_FALSE(ram_->changed(0).has_value()) << "there is no such process";
  EXPECT_THAT(changed(), ElementsAre(pages(4, 8)));
}

TEST_F(ServedGuestRamTest, AfterAScanThatWasRefusedItTellsEverything) {
  EXPECT_THAT(changed(), IsEmpty());
  write(5);
  {
    const WithoutScan once;
    EXPECT_THAT(changed(), ElementsAre(pages(4, 8)));
  }
  write(6);
  EXPECT_THAT(changed(), ElementsAre(pages(4, 8))) << "which the next scan cannot know better";
}

TEST_F(ServedGuestRamTest, WhoLooksAheadIsToldWhatIsFreshAndInTheEndOfEverything) {
  ASSERT_OK(ram_->start_tracking(::getpid()));
  write(5);
  write(9);
  EXPECT_THAT(look().fresh, ElementsAre(pages(5, 1), pages(9, 1)));
  write(9);
  write(10);
  const ChangedPages second = look();
  EXPECT_TRUE(second.tracked);
  EXPECT_THAT(second.fresh, ElementsAre(pages(9, 2)));
  EXPECT_THAT(second.all, ElementsAre(pages(5, 1), pages(9, 2)));
  EXPECT_THAT(look().fresh, IsEmpty());
  // What was told and then given back is QEMU's no more; what was written after that is.
  give_back(9, 2);
  bring_zeros(9, 2);
  write(10);
  const std::vector given_back{pages(9, 2), pages(30, 2)};
  const ChangedPages last = value(ram_->changed(::getpid(), given_back));
  EXPECT_THAT(last.all, ElementsAre(pages(5, 1), pages(10, 1)));
  ram_->forget_told();
  EXPECT_THAT(changed(), IsEmpty());
}

TEST_F(ServedGuestRamTest, AfterALookAheadThatLedToNothingEverythingComesAgain) {
  write(5);
  EXPECT_THAT(look().all, ElementsAre(pages(5, 1)));
  ram_->forget_tracking();
  EXPECT_THAT(changed(), ElementsAre(pages(4, 8)));
}

// Memory that is private mappings, as after a mapped restore: pages 0 to 31 of a layer, zeros behind them.
class MappedGuestRamTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto layer = create_memory_file("layer", 32 * kPage);
    ASSERT_OK(layer);
    ASSERT_OK(real_file_system().write_at(layer->get(), 0, std::vector<std::byte>(32 * kPage, std::byte{1})));
    auto memory = Mapping::anonymous(64 * kPage);
    ASSERT_OK(memory);
    memory_ = std::move(*memory);
    ASSERT_EQ(::madvise(memory_.bytes().data(), 64 * kPage, MADV_NOHUGEPAGE), 0);
    const int flags = MAP_PRIVATE | MAP_FIXED;
    ASSERT_NE(::mmap(memory_.bytes().data(), 32 * kPage, PROT_READ | PROT_WRITE, flags, layer->get(), 0), MAP_FAILED);
    auto ram = GuestRam::create(64 * kPage);
    ASSERT_OK(ram);
    ram_.emplace(std::move(*ram));
    ram_->is_mapped_at(memory_.address(), {}, {pages(0, 32)});
  }
  void write(uint64_t page, int byte) { memory_.bytes()[page * kPage + 5] = std::byte(byte); }
  ChangedPages look() { return value(ram_->changed(::getpid())); }
  std::vector<Range> changed() {
    const ChangedPages pages = look();
    EXPECT_FALSE(pages.tracked);
    return pages.all;
  }

  Mapping memory_;
  std::optional<GuestRam> ram_;
};

TEST_F(MappedGuestRamTest, WhatWasWrittenSinceTheRestoreIsTold) {
  for (uint64_t page = 0; page < 32; ++page) EXPECT_EQ(memory_.bytes()[page * kPage], std::byte{1});
  EXPECT_THAT(changed(), IsEmpty()) << "reading changes nothing";
  write(5, 9);
  write(40, 9);
  EXPECT_THAT(changed(), ElementsAre(pages(5, 1), pages(40, 1)));
  write(6, 1);
  EXPECT_THAT(changed(), ElementsAre(pages(5, 2), pages(40, 1))) << "each call tells all of it";
}

TEST_F(MappedGuestRamTest, WhereTheKernelHasNoScanWhatWasWrittenIsToldToo) {
  for (uint64_t page = 0; page < 16; ++page) EXPECT_EQ(memory_.bytes()[page * kPage], std::byte{1});
  const WithoutScan old;
  EXPECT_THAT(changed(), IsEmpty()) << "reading changes nothing";
  write(5, 9);
  write(40, 9);
  for (int call = 0; call < 2; ++call) EXPECT_THAT(changed(), ElementsAre(pages(5, 1), pages(40, 1)));
  write(20, 1);
  EXPECT_THAT(changed(), ElementsAre(pages(5, 1), pages(20, 1), pages(40, 1)));
  const GuestMemoryUse use = value(ram_->use(::getpid()));
  EXPECT_EQ(use.resident_bytes, 18 * kPage);
  EXPECT_EQ(use.own_bytes, 3 * kPage);
}

TEST_F(MappedGuestRamTest, WhileItIsTrackedItTellsWhatIsFresh) {
  SKIP_UNLESS_THE_KERNEL_TELLS();
  auto tracker = UserFaultFd::create(true);
  ASSERT_OK(tracker);
  ram_->is_mapped_at(memory_.address(), std::move(*tracker), {pages(0, 32)});
  write(5, 9);
  write(40, 9);
  EXPECT_EQ(memory_.bytes()[7 * kPage], std::byte{1});  // of the file, present
  ASSERT_OK(ram_->start_tracking(::getpid()));
  const ChangedPages first = look();
  EXPECT_TRUE(first.tracked);
  EXPECT_THAT(first.fresh, ElementsAre(pages(5, 1), pages(40, 1)));
  write(5, 8);
  write(7, 9);   // present and the file's until now
  write(20, 9);  // the file's, never touched
  write(50, 9);  // zeros, never touched
  const ChangedPages second = look();
  EXPECT_THAT(second.fresh, ElementsAre(pages(5, 1), pages(7, 1), pages(20, 1), pages(50, 1)));
  EXPECT_THAT(second.all, ElementsAre(pages(5, 1), pages(7, 1), pages(20, 1), pages(40, 1), pages(50, 1)));
  EXPECT_EQ(memory_.bytes()[21 * kPage], std::byte{1}) << "reading is no change";
  EXPECT_THAT(look().fresh, IsEmpty());
  write(21, 9);  // the file's, read and protected since
  EXPECT_THAT(look().fresh, ElementsAre(pages(21, 1)));
  ram_->forget_told();
  ram_->stop_tracking();
  write(60, 9);
  EXPECT_THAT(changed(), ElementsAre(pages(5, 1), pages(7, 1), pages(20, 2), pages(60, 1)))
      << "of the file all that was written since the restore, of what is no file's what is new";
  EXPECT_THAT(changed(), ElementsAre(pages(5, 1), pages(7, 1), pages(20, 2), pages(60, 1))) << "until it is taken over";
  // And once more, of the file from the beginning.
  ASSERT_OK(ram_->start_tracking(::getpid()));
  EXPECT_THAT(look().fresh, ElementsAre(pages(5, 1), pages(7, 1), pages(20, 2)));
  write(20, 7);
  write(40, 7);
  EXPECT_THAT(look().fresh, ElementsAre(pages(20, 1), pages(40, 1)));
  ram_->forget_tracking();
  EXPECT_THAT(look().all, ElementsAre(pages(5, 1), pages(7, 1), pages(20, 2), pages(40, 1), pages(50, 1), pages(60, 1)))
      << "what was told is lost: everything";
}

// Of such a memory pages 48 to 63 are served, of which 48 to 55 have come.
class PartlyMappedGuestRamTest : public MappedGuestRamTest {
 protected:
  void SetUp() override {
    MappedGuestRamTest::SetUp();
    SKIP_UNLESS_THE_KERNEL_TELLS();
    served_by_ = value(UserFaultFd::create(true));
    ASSERT_OK(served_by_.register_missing({memory_.address() + 48 * kPage, 16 * kPage}, true));
    const std::vector<std::byte> content(8 * kPage, std::byte{7});
    ASSERT_EQ(served_by_.copy(memory_.address() + 48 * kPage, content, true).bytes, content.size());
    ram_->is_mapped_at(memory_.address(), value(UserFaultFd::create(true)), {pages(0, 32)}, {pages(48, 16)});
  }
  UserFaultFd served_by_;
};

TEST_F(PartlyMappedGuestRamTest, WhatWasServedIsNoChangeAndWhatWasWrittenIs) {
  EXPECT_THAT(changed(), IsEmpty());
  write(5, 9);
  write(40, 9);
  write(50, 9);
  EXPECT_THAT(changed(), ElementsAre(pages(5, 1), pages(40, 1), pages(50, 1)));
  EXPECT_THAT(changed(), ElementsAre(pages(5, 1), pages(40, 1), pages(50, 1))) << "until it is taken over";
  ram_->forget_told();
  write(51, 9);
  EXPECT_THAT(changed(), ElementsAre(pages(5, 1), pages(40, 1), pages(51, 1)))
      << "of what is mapped all that was written since the restore, of what is served what is new";
}

TEST_F(PartlyMappedGuestRamTest, WhileItIsTrackedItTellsWhatIsFreshOfBoth) {
  write(5, 9);
  write(50, 9);
  ASSERT_OK(ram_->start_tracking(::getpid()));
  const ChangedPages first = look();
  EXPECT_TRUE(first.tracked);
  EXPECT_THAT(first.fresh, ElementsAre(pages(5, 1), pages(50, 1)));
  write(6, 9);
  write(50, 8);
  const std::vector<std::byte> content(2 * kPage, std::byte{7});
  ASSERT_EQ(served_by_.copy(memory_.address() + 60 * kPage, content, true).bytes, content.size());
  write(61, 9);
  const ChangedPages second = look();
  EXPECT_THAT(second.fresh, ElementsAre(pages(6, 1), pages(50, 1), pages(61, 1)));
  EXPECT_THAT(second.all, ElementsAre(pages(5, 2), pages(50, 1), pages(61, 1)));
  ram_->forget_told();
  ram_->stop_tracking();
  write(40, 9);
  write(52, 9);
  EXPECT_THAT(changed(), ElementsAre(pages(5, 2), pages(40, 1), pages(52, 1)));
}

TEST_F(PartlyMappedGuestRamTest, AfterForgettingItTellsEverythingOnce) {
  write(5, 9);
  write(50, 9);
  EXPECT_THAT(changed(), ElementsAre(pages(5, 1), pages(50, 1)));
  ram_->forget_tracking();
  EXPECT_THAT(changed(), ElementsAre(pages(5, 1), pages(48, 8)));
  ram_->forget_told();
  EXPECT_THAT(changed(), ElementsAre(pages(5, 1)));
}

TEST_F(PartlyMappedGuestRamTest, WhatIsServedWithoutTrackingIsToldWhole) {
  ASSERT_OK(served_by_.unregister({memory_.address() + 48 * kPage, 16 * kPage}));
  EXPECT_THAT(changed(), ElementsAre(pages(48, 8)));
  EXPECT_THAT(changed(), ElementsAre(pages(48, 8)));
}

TEST_F(PartlyMappedGuestRamTest, WhereTheKernelHasNoScanWhatIsServedIsToldWhole) {
  write(5, 9);
  write(50, 9);
  const WithoutScan old;
  for (int call = 0; call < 2; ++call) EXPECT_THAT(changed(), ElementsAre(pages(5, 1), pages(48, 8)));
}

TEST_F(MappedGuestRamTest, ItIsReadThroughTheProcess) {
  write(5, 9);
  write(6, 0);
  std::vector<std::byte> bytes(3 * kPage);
  EXPECT_OK(value(ram_->source(::getpid())).read(real_file_system(), 5 * kPage, bytes));
  EXPECT_EQ(std::memcmp(bytes.data(), memory_.bytes().data() + 5 * kPage, bytes.size()), 0);
}

TEST_F(MappedGuestRamTest, UseTellsWhatIsSharedFromWhatIsNot) {
  for (uint64_t page = 0; page < 32; ++page) EXPECT_EQ(memory_.bytes()[page * kPage], std::byte{1});
  write(5, 9);
  const GuestMemoryUse use = value(ram_->use(::getpid()));
  EXPECT_EQ(use.resident_bytes, 32 * kPage);
  EXPECT_EQ(use.own_bytes, kPage);
}

}  // namespace
}  // namespace stasis::vmm
