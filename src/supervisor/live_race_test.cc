// Writes of a guest against the rounds of a live snapshot, each in the order that matters: the copy stops at a sync
// point until the guest, a process of its own, has written. What is in the snapshot is the memory of the moment at
// which the guest was stopped, whichever way it was restored.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <future>
#include <optional>

#include "base/file.h"
#include "base/memory.h"
#include "base/testing/sync_points.h"
#include "pager/testing/two_processes.h"
#include "supervisor/live_rounds.h"
#include "vmm/qemu/guest_ram.h"

namespace stasis::supervisor {
namespace {

using pager::testing::content_of;
using pager::testing::kPages;
using pager::testing::kSize;
using pager::testing::VmmShape;
using snapshot::kBlockSize;
using stasis::testing::AtPoint;
using stasis::testing::StopAt;
using ::testing::IsEmpty;

bool holds(const std::vector<Range>& ranges, uint64_t page) {
  const uint64_t at = page * kBlockSize;
  return std::ranges::any_of(ranges, [at](const Range& range) { return at >= range.offset && at < range.end(); });
}

// Where the guest's memory came from.
enum class Origin { kServed, kMapped, kBooted };

std::string name_of(const ::testing::TestParamInfo<Origin>& origin) {
  if (origin.param == Origin::kBooted) return "booted";
  return origin.param == Origin::kMapped ? "mapped" : "uffd";
}

class LiveRaceTest : public pager::testing::TwoProcesses, public ::testing::WithParamInterface<Origin> {
 protected:
  void SetUp() override {
    if (!probe_userfaultfd().write_protect_async) GTEST_SKIP() << "this kernel has no asynchronous write-protection";
    TwoProcesses::SetUp();
    for (uint64_t page = 0; page < kPages; ++page) model_.push_back(content_of(page));
    ram_.emplace(vmm::GuestRam::create(kSize).value());
    if (GetParam() == Origin::kMapped) start_mapped();
    if (GetParam() == Origin::kBooted) start_booted();
    if (GetParam() == Origin::kServed) start_served();
    ASSERT_TRUE(real_file_system().make_directory(dir_.path() / "work"));
    copy_.emplace(LiveCopy::create(real_file_system(), space_, dir_.path() / "work").value());
    source_ = ram_->source(vmm_->pid()).value();
  }

  static void fill(int file) {
    for (uint64_t page = 0; page < kPages; ++page) {
      const std::vector<std::byte> block(kBlockSize, content_of(page));
      ASSERT_TRUE(real_file_system().write_at(file, page * kBlockSize, block));
    }
  }
  void start_served() {
    serve({.watch = VmmShape::Watch::kMissingAndWrites});
    ram_->is_mapped_at(vmm_->address(), tracker(), {}, {{0, kSize}});
    ASSERT_TRUE(ram_->start_tracking(vmm_->pid()));
  }
  // As after a mapped restore: private mappings of a layer.
  void start_mapped() {
    layer_ = create_memory_file("layer", kSize).value();
    fill(layer_.get());
    start_vmm({.file = layer_.get(), .watch = VmmShape::Watch::kNothing});
    ram_->is_mapped_at(vmm_->address(), tracker(), {{0, kSize}});
    ASSERT_TRUE(ram_->start_tracking(vmm_->pid()));
  }
  // All of memory is in its file, and nobody has watched how it came there.
  void start_booted() {
    fill(ram_->fd());
    start_vmm({.shared = true, .file = ram_->fd(), .watch = VmmShape::Watch::kNothing});
    ram_->is_booted(tracker());
    ASSERT_TRUE(ram_->start_tracking(vmm_->pid()));
  }
  UserFaultFd tracker() const { return UserFaultFd(duplicate(vmm_->uffd().fd()).value()); }

  void write(uint64_t page, int value) {
    ASSERT_TRUE(vmm_->wait(vmm_->write(page, std::byte(value))));
    model_[page] = std::byte(value);
  }
  std::vector<Range> look() {
    auto pages = ram_->changed(vmm_->pid());
    EXPECT_TRUE(pages && pages->tracked);
    all_ = pages->all;
    fresh_ = total_length(pages->fresh) / kBlockSize;
    return pages->fresh;
  }
  void copy(const std::vector<Range>& fresh) { ASSERT_TRUE(copy_->copy(source_, fresh)); }
  // One round, in which `meanwhile` happens after the scan, when a piece is about to be read or has just been.
  void round(const char* point, const std::function<void()>& meanwhile) {
    StopAt stop(point);
    const std::vector<Range> fresh = look();
    const auto copying = std::async(std::launch::async, [&] { copy(fresh); });
    ASSERT_TRUE(stop.await());
    meanwhile();
    stop.go_on();
  }
  void write_first(uint64_t pages, int value) {
    std::vector<pager::testing::VmmProcess::Ticket> writes;
    for (uint64_t page = 0; page < pages; ++page) writes.push_back(vmm_->write(page, std::byte(value)));
    for (const auto ticket : writes) ASSERT_TRUE(vmm_->wait(ticket));
    std::fill_n(model_.begin(), pages, std::byte(value));
  }
  // All rounds, until the copy is content; in each the guest writes so many pages once the first have been read. How
  // many rounds there were.
  uint32_t copy_in_rounds_against(const std::vector<uint64_t>& writes) {
    size_t round = 0;
    bool has_written = true;
    const AtPoint write_on("live_copy.write", [&](void*) {
      if (std::exchange(has_written, true)) return;
      write_first(writes.at(round), static_cast<int>(101 + round));
      ++round;
    });
    const auto ahead = copy_in_rounds(*copy_,
                                      [&]() -> Result<vmm::SavedMemory> {
                                        has_written = false;
                                        return vmm::SavedMemory{ram_->source(vmm_->pid()).value(), {}, look()};
                                      },
                                      {.small = 4 * kBlockSize});
    EXPECT_TRUE(ahead);
    return ahead ? ahead->rounds : 0;
  }
  // The guest is stopped: the last round. Then it goes on, and the memory of that moment is sealed.
  void expect_snapshot_of_now(const std::function<void()>& after = [] {}) {
    ASSERT_TRUE(copy_->copy_last(source_, look()));
    const std::vector<std::byte> now = model_;
    after();
    const auto sealed = copy_->seal(layers_, all_, server_ ? server_->removed() : std::vector<Range>{});
    ASSERT_TRUE(sealed) << sealed.error().message;
    const auto memory = snapshot::AddressSpace::open(real_file_system(), layers_, sealed->map).value();
    std::vector<std::byte> block(kBlockSize);
    for (uint64_t page = 0; page < kPages; ++page) {
      ASSERT_TRUE(memory->read(page * kBlockSize, block));
      EXPECT_TRUE(block == std::vector<std::byte>(kBlockSize, now[page])) << "page " << page;
    }
  }

  std::vector<std::byte> model_;  // what each page of the guest is full of
  std::optional<vmm::GuestRam> ram_;
  UniqueFd layer_;
  std::optional<LiveCopy> copy_;
  MemorySource source_;
  std::vector<Range> all_;
  uint64_t fresh_ = 0;  // pages, at the last look
};

INSTANTIATE_TEST_SUITE_P(Ways, LiveRaceTest, ::testing::Values(Origin::kServed, Origin::kMapped, Origin::kBooted),
                         name_of);

TEST_P(LiveRaceTest, WhatIsWrittenAfterTheScanAndBeforeTheCopyIsToldAgain) {
  write(5, 201);
  round("live_copy.read", [&] { write(5, 202), write(6, 202), write(150, 202); });
  const std::vector<Range> fresh = look();
  for (const uint64_t page : {5, 6, 150}) EXPECT_TRUE(holds(fresh, page)) << page;
  copy(fresh);
  expect_snapshot_of_now();
}

TEST_P(LiveRaceTest, WhatIsWrittenAfterItWasReadIsToldAgain) {
  write(5, 201);
  write(150, 201);
  round("live_copy.write", [&] { write(5, 202), write(150, 0); });
  const std::vector<Range> fresh = look();
  for (const uint64_t page : {5, 150}) EXPECT_TRUE(holds(fresh, page)) << page;
  copy(fresh);
  EXPECT_THAT(look(), IsEmpty());
  expect_snapshot_of_now();
}

TEST_P(LiveRaceTest, WhatIsWrittenOnceTheGuestGoesOnIsNotInTheSnapshot) {
  write(5, 201);
  copy(look());
  write(7, 202);
  expect_snapshot_of_now([&] { write(5, 203), write(7, 203), write(8, 203); });
}

TEST_P(LiveRaceTest, AGuestThatWritesThroughAllRoundsIsCopiedExactly) {
  std::vector<pager::testing::VmmProcess::Ticket> writes;
  for (int round = 0; round < 8; ++round) {
    for (uint64_t page = 0; page < kPages; page += 3) {
      writes.push_back(vmm_->write(page, std::byte(100 + round)));
      if (page % 8 == 0) copy(look());
    }
    for (const auto ticket : writes) ASSERT_TRUE(vmm_->wait(ticket));
    writes.clear();
    for (uint64_t page = 0; page < kPages; page += 3) model_[page] = std::byte(100 + round);
  }
  expect_snapshot_of_now();
}

TEST_P(LiveRaceTest, AGuestThatWritesMoreThanIsCopiedIsStoppedSoon) {
  write_first(40, 100);
  EXPECT_EQ(copy_in_rounds_against({200, 250}), 2u);
  expect_snapshot_of_now([&] { write_first(kPages, 200); });
  EXPECT_EQ(fresh_, 250u) << "were left for the stop";
}

TEST_P(LiveRaceTest, AGuestThatNeverGetsQuietIsStoppedAfterEightRounds) {
  write_first(250, 100);
  EXPECT_EQ(copy_in_rounds_against({175, 122, 85, 59, 41, 28, 20, 100}), 8u);
  expect_snapshot_of_now([&] { write_first(kPages, 200); });
  EXPECT_EQ(fresh_, 100u);
}

// Of a guest whose pages come by faults, and who can give them back.
class LiveServedRaceTest : public LiveRaceTest {};
INSTANTIATE_TEST_SUITE_P(Ways, LiveServedRaceTest, ::testing::Values(Origin::kServed), name_of);

TEST_P(LiveServedRaceTest, AWriteWhoseFaultIsBeingAnsweredIsInTheNextRound) {
  write(5, 201);
  StopAt before_copy("userfaultfd.copy");
  const auto writes = vmm_->write(90, std::byte{202});
  ASSERT_TRUE(before_copy.await());
  const std::vector<Range> first = look();
  EXPECT_FALSE(holds(first, 90));
  copy(first);
  before_copy.go_on();
  ASSERT_TRUE(vmm_->wait(writes));
  model_[90] = std::byte{202};
  EXPECT_TRUE(holds(look(), 90));
  // What was told just now has not been copied: as after a round that failed, everything comes again.
  ram_->forget_tracking();
  expect_snapshot_of_now();
}

TEST_P(LiveServedRaceTest, WhatIsGivenBackWhileItIsCopiedIsZeros) {
  write(5, 201);
  write(90, 201);
  round("live_copy.read", [&] {
    ASSERT_TRUE(vmm_->wait(vmm_->give_back(5, 1))->ok);
    model_[5] = std::byte{0};
  });
  ASSERT_TRUE(vmm_->wait(vmm_->give_back(30, 1))->ok);  // never touched
  model_[30] = std::byte{0};
  expect_snapshot_of_now();
}

}  // namespace
}  // namespace stasis::supervisor
