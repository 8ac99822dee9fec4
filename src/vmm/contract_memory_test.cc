// Where the memory of a restored machine comes from: a page server or a mapping; and what happens when that is damaged
// or gone.
#include <gmock/gmock.h>

#include <vector>

#include "base/poll.h"
#include "vmm/contract/suite.h"

namespace stasis::vmm::contract {
namespace {

// What a page server does.
class Paging : public Contract {};
// What a mapped restore does.
class Mapping : public Contract {};

TEST_P(Paging, PagesGivenBackReadAsZerosInTheNextGeneration) {
  const Snapshot first = filled_snapshot(7);
  Restored machine = resumed(first);
  EXPECT_EQ(value(machine.guest().checksum(kFilled)), filled_sum_);
  const Status given_back = machine.guest().give_back(pages(60, 6));
  if (!given_back && given_back.error().code == Code::kUnimplemented) GTEST_SKIP() << "this guest has no balloon";
  ASSERT_OK(given_back);
  const Snapshot second = paused_snapshot(machine, first.memory);
  EXPECT_GE(second.blocks_zeroed, 6u);
  machine = resumed(second);
  EXPECT_NE(value(machine.guest().checksum(pages(60, 6))), 0u);
  const uint64_t zeros = value(machine.guest().checksum(pages(1000, 6)));
  EXPECT_EQ(value(machine.guest().checksum(pages(60, 6))), zeros);
}

TEST_P(Paging, RestoreWithoutAPageServerFailsAndLeavesNoProcess) {
  const Snapshot first = filled_snapshot(7);
  auto machine = fixture_->make_machine();
  ASSERT_OK(machine);
  EXPECT_FAILS(lab_->restore_without_pages(*machine, first.state), Code::kUnavailable);
  machine->vmm->stop();
  EXPECT_TRUE(ended(*machine->vmm));
}

TEST_P(Paging, WithoutItsPageServerAMachineWaitsAndCanBeStopped) {
  const Snapshot first = filled_snapshot(7);
  Restored machine = resumed(first);
  EXPECT_EQ(value(machine.guest().count()), 2u);
  machine.pages.reset();
  machine.guest().set_patience(Milliseconds(300));
  EXPECT_FAILS(machine.guest().checksum(kFilled), Code::kDeadlineExceeded) << "it must not go on with other content";
  machine.vmm().stop();
  EXPECT_TRUE(ended(machine.vmm()));
}

// Or a save would load, or make, all that the guest has never touched. (What the last faults have brought may be
// counted only now.)
TEST_P(Paging, ACaptureLoadsAndMakesNothing) {
  const Snapshot first = filled_snapshot(7);
  Restored machine = resumed(first);
  EXPECT_OK(machine.guest().checksum({kFilled.offset, kFilled.length / 2}));
  EXPECT_OK(machine.guest().fill(pages(20, 10), 8));
  ASSERT_OK(machine.vmm().pause());
  Path state;
  const SavedMemory saved = value(lab_->save(machine.vmm(), state));
  const auto loaded = [&] {
    const pager::PageServerStats stats = machine.pages->stats();
    return 4096 * (stats.pages_by_fault + stats.pages_around + stats.pages_zero);
  };
  const auto resident = [&] { return machine.vmm().guest_memory().resident_bytes; };
  const uint64_t size = fixture_->memory_bytes();
  const uint64_t loaded_before = loaded();
  const uint64_t resident_before = resident();
  EXPECT_GE(total_length(saved.candidates), 10 * 4096U);
  EXPECT_OK(lab_->capture(state, saved, first.memory, {}));
  EXPECT_LT(loaded(), loaded_before + (size - loaded_before) / 8) << "all of it would be there";
  EXPECT_LT(resident(), resident_before + (size - resident_before) / 8) << "all of it would be there";
  ASSERT_OK(machine.vmm().resume());
  EXPECT_OK(machine.guest().fill(pages(20, 10), 7));
  EXPECT_EQ(value(machine.guest().checksum(kFilled)), filled_sum_) << "what had not been loaded still comes";
}

TEST_P(Mapping, ALayerThatIsCutShortEndsTheMachineInsteadOfZeros) {
  const Snapshot first = filled_snapshot(7);
  Restored machine = resumed(first);
  for (const auto layer : machine.memory->map().layers()) {
    ASSERT_OK(lab_->cut_short(snapshot::layer_data_path(lab_->layers(), layer)));
  }
  machine.guest().set_patience(Milliseconds(2000));
  EXPECT_FALSE(machine.guest().checksum(kFilled).has_value());
  EXPECT_TRUE(value(wait_readable(machine.vmm().pidfd(), Deadline::after(Milliseconds(5000)))));
  // Firecracker's guest does not touch the page itself, KVM does: an error of KVM_RUN, at which Firecracker exits.
  EXPECT_THAT(machine.vmm().stop(), testing::AnyOf(testing::HasSubstr("signal 7"), "exit status 1"));
}

TEST_P(Mapping, ARemovedLayerLivesOnInTheMachine) {
  const Snapshot first = filled_snapshot(7);
  Restored machine = resumed(first);
  ASSERT_OK(remove_tree(real_file_system(), lab_->layers()));
  EXPECT_EQ(value(machine.guest().checksum(kFilled)), filled_sum_);
}

TEST_P(Mapping, ClonesShareWhatNeitherHasWritten) {
  const Snapshot first = filled_snapshot(7);
  std::vector<Restored> clones;
  clones.reserve(3);
  while (clones.size() < 3) clones.push_back(resumed(first));
  uint64_t held = 0;
  for (const auto& extent : first.memory.extents()) held += extent.is_zero() ? 0 : extent.length;
  uint64_t own = 0;
  for (Restored& clone : clones) {
    EXPECT_EQ(value(clone.guest().checksum(kFilled)), filled_sum_);
    const GuestMemoryUse use = clone.vmm().guest_memory();
    if (use.resident_bytes == 0) GTEST_SKIP() << "this driver does not know";
    EXPECT_GT(use.resident_bytes, kFilled.length);
    EXPECT_GT(use.own_bytes, 0u) << "its counter, if nothing else";
    own += use.own_bytes;
  }
  EXPECT_LT(own, held / 4) << "of all three together; each has touched much more of it";
}

// It is what a stopped guest waits for, and memory is in its layers. Of a machine that was booted and of one restored.
TEST_P(Restoring, NothingOfMemoryIsInTheDeviceState) {
  constexpr Range kMany = pages(0, 1024);
  const auto state_size = [](const Path& state) { return value(real_file_system().info(state)).size; };
  Machine machine = booted();
  EXPECT_OK(machine.guest->fill(kMany, 7));
  ASSERT_OK(machine.vmm->pause());
  const auto first = lab_->take(*machine.vmm, lab_->nothing());
  ASSERT_OK(first);
  machine.vmm->stop();
  EXPECT_LT(state_size(first->state), kMany.length / 2);
  Restored later = resumed(*first);
  EXPECT_OK(later.guest().fill(kMany, 8));
  ASSERT_OK(later.vmm().pause());
  Path state;
  ASSERT_OK(lab_->save(later.vmm(), state));
  EXPECT_LT(state_size(state), kMany.length / 2);
}

class Damage : public Contract {
 protected:
  void expect_refused(const Snapshot& snapshot, Code code) {
    auto machine = lab_->restore(snapshot);
    ASSERT_OK(machine);
    EXPECT_FAILS(machine->status, code);
    EXPECT_FALSE(machine->vmm().stop().empty());
  }
};

TEST_P(Damage, ADamagedStateIsDataLoss) {
  const Snapshot first = filled_snapshot(7);
  const auto size = value(real_file_system().info(first.state)).size;
  ASSERT_OK(lab_->overwrite(first.state, size / 2, "damage"));
  expect_refused(first, Code::kDataLoss);
}

TEST_P(Damage, ATruncatedStateIsDataLoss) {
  const Snapshot first = filled_snapshot(7);
  auto fd = real_file_system().open_write(first.state);
  ASSERT_OK(fd);
  ASSERT_OK(real_file_system().truncate(fd->get(), value(real_file_system().info(first.state)).size / 2));
  expect_refused(first, Code::kDataLoss);
}

TEST_P(Damage, AMissingStateIsNotFound) {
  Snapshot first = filled_snapshot(7);
  ASSERT_OK(real_file_system().remove(first.state));
  expect_refused(first, Code::kNotFound);
}

TEST_P(Damage, ADamagedPageEndsTheMachineInsteadOfReachingTheGuest) {
  const Snapshot first = filled_snapshot(7);
  ASSERT_OK(lab_->damage_filled_page(first, kFilled, 7));
  if (mapped()) return expect_refused(first, Code::kFailedPrecondition);  // what was verified is no more
  Restored machine = resumed(first);
  machine.guest().set_patience(Milliseconds(2000));
  EXPECT_FALSE(machine.guest().checksum(kFilled).has_value());
  EXPECT_TRUE(value(wait_readable(machine.vmm().pidfd(), Deadline::after(Milliseconds(5000)))));
  ASSERT_TRUE(machine.page_failure().has_value());
  EXPECT_EQ(machine.page_failure()->code, Code::kDataLoss);
}

INSTANTIATE_TEST_SUITE_P(Drivers, Paging, testing::ValuesIn(drivers()), driver_name);
INSTANTIATE_TEST_SUITE_P(Drivers, Mapping, testing::ValuesIn(drivers_mapped()), driver_name);
INSTANTIATE_TEST_SUITE_P(Drivers, Damage, testing::ValuesIn(drivers_both_ways()), driver_name);

}  // namespace
}  // namespace stasis::vmm::contract
