// What a restored machine has in its memory, and what its next snapshots store: the same in each way of restoring.
#include <optional>

#include "vmm/contract/suite.h"

namespace stasis::vmm::contract {
namespace {

TEST_P(Restoring, RestoredMemoryIsEqual) {
  const Snapshot first = filled_snapshot(7);
  Restored machine = resumed(first);
  EXPECT_EQ(value(machine.guest().checksum(kFilled)), filled_sum_);
  EXPECT_EQ(value(machine.guest().count()), 2u) << "the counter is in guest memory too";
  EXPECT_EQ(machine.page_failure(), std::nullopt);
}

TEST_P(Restoring, AStateThatAnotherVersionSavedIsNotLoaded) {
  Snapshot first = filled_snapshot(7);
  first.saved_with.version = "0.1.0";
  auto machine = lab_->restore(first);
  ASSERT_OK(machine);
  EXPECT_FAILS(machine->status, Code::kFailedPrecondition);
  EXPECT_TRUE(ended(machine->vmm()));
}

TEST_P(Restoring, RestoringLoadsLazily) {
  const Snapshot first = filled_snapshot(7);
  Restored machine = restored(first);
  if (mapped()) {
    EXPECT_LT(machine.vmm().guest_memory().resident_bytes, fixture_->memory_bytes() / 2);
    return;
  }
  const auto stats = machine.pages->stats();
  EXPECT_GT(stats.total_pages, 0u);
  EXPECT_LT(stats.pages_by_fault + stats.pages_around + stats.pages_zero, stats.total_pages / 2);
}

TEST_P(Restoring, RestoredButNeverRunIsUnchanged) {
  const Snapshot first = filled_snapshot(7);
  Restored machine = restored(first);
  const Snapshot second = paused_snapshot(machine, first.memory);
  expect_stored(second, 0);
}

TEST_P(Restoring, SecondGenerationStoresWhatChanged) {
  const Snapshot first = filled_snapshot(7);
  Restored machine = resumed(first);
  EXPECT_OK(machine.guest().fill(pages(20, 10), 8));
  EXPECT_OK(machine.guest().fill(pages(1000, 3), 9));
  EXPECT_OK(machine.guest().rewrite(pages(100, 30)));
  const uint64_t sum = value(machine.guest().checksum(pages(16, 1000)));
  const Snapshot second = paused_snapshot(machine, first.memory);
  expect_stored(second, 13);
  machine = resumed(second);
  EXPECT_EQ(value(machine.guest().checksum(pages(16, 1000))), sum);
}

TEST_P(Restoring, ThirdGenerationOfTheSameMachine) {
  const Snapshot first = filled_snapshot(7);
  Restored machine = resumed(first);
  EXPECT_OK(machine.guest().fill(pages(20, 10), 8));
  const Snapshot second = paused_snapshot(machine, first.memory);
  EXPECT_OK(machine.vmm().resume());
  EXPECT_OK(machine.guest().fill(pages(25, 10), 9));
  const uint64_t sum = value(machine.guest().checksum(kFilled));
  const Snapshot third = paused_snapshot(machine, second.memory);
  expect_stored(third, 10);
  machine = resumed(third);
  EXPECT_EQ(value(machine.guest().checksum(kFilled)), sum);
  Restored older = resumed(second);
  EXPECT_NE(value(older.guest().checksum(kFilled)), sum);
}

TEST_P(Restoring, SecondSaveOfABootedMachine) {
  Machine machine = booted();
  EXPECT_OK(machine.guest->fill(kFilled, 7));
  EXPECT_OK(machine.vmm->pause());
  auto first = lab_->take(*machine.vmm, lab_->nothing());
  ASSERT_OK(first);
  EXPECT_OK(machine.vmm->resume());
  EXPECT_OK(machine.guest->fill(pages(30, 4), 8));
  const uint64_t sum = value(machine.guest->checksum(kFilled));
  EXPECT_OK(machine.vmm->pause());
  auto second = lab_->take(*machine.vmm, first->memory);
  ASSERT_OK(second);
  expect_stored(*second, 4);
  Restored later = resumed(*second);
  EXPECT_EQ(value(later.guest().checksum(kFilled)), sum);
}

TEST_P(Restoring, AZeroedPageStaysZero) {
  const Snapshot first = filled_snapshot(7);
  Restored machine = resumed(first);
  EXPECT_OK(machine.guest().zero(pages(40, 5)));
  const uint64_t zeros = value(machine.guest().checksum(pages(40, 5)));
  const uint64_t sum = value(machine.guest().checksum(kFilled));
  const Snapshot second = paused_snapshot(machine, first.memory);
  EXPECT_GE(second.blocks_zeroed, 5u);
  machine = resumed(second);
  EXPECT_EQ(value(machine.guest().checksum(pages(40, 5))), zeros);
  EXPECT_EQ(value(machine.guest().checksum(kFilled)), sum);
}

TEST_P(Restoring, AfterAFailedFirstSnapshotTheNextHasEverything) {
  Machine machine = booted();
  EXPECT_OK(machine.guest->fill(kFilled, 7));
  const uint64_t sum = value(machine.guest->checksum(kFilled));
  EXPECT_OK(machine.vmm->pause());
  Path lost;
  EXPECT_OK(lab_->save(*machine.vmm, lost));
  machine.vmm->save_failed();
  auto taken = lab_->take(*machine.vmm, lab_->nothing());
  ASSERT_OK(taken);
  Restored later = resumed(*taken);
  EXPECT_EQ(value(later.guest().checksum(kFilled)), sum);
}

TEST_P(Restoring, AfterAFailedLaterSnapshotTheNextHasEverything) {
  const Snapshot first = filled_snapshot(7);
  Restored machine = resumed(first);
  EXPECT_OK(machine.guest().fill(pages(20, 10), 8));
  EXPECT_OK(machine.vmm().pause());
  Path lost;
  EXPECT_OK(lab_->save(machine.vmm(), lost));
  machine.vmm().save_failed();
  EXPECT_OK(machine.vmm().resume());
  EXPECT_OK(machine.guest().fill(pages(300, 2), 9));
  const uint64_t sum = value(machine.guest().checksum(pages(16, 300)));
  const Snapshot second = paused_snapshot(machine, first.memory);
  expect_stored(second, 12);
  machine = resumed(second);
  EXPECT_EQ(value(machine.guest().checksum(pages(16, 300))), sum);
}

TEST_P(Restoring, TwoMachinesFromOneSnapshot) {
  const Snapshot first = filled_snapshot(7);
  Restored one = resumed(first);
  Restored two = resumed(first);
  EXPECT_OK(one.guest().fill(kFilled, 8));
  EXPECT_EQ(value(two.guest().checksum(kFilled)), filled_sum_);
  EXPECT_EQ(value(one.guest().count()), 2u);
  EXPECT_EQ(value(two.guest().count()), 2u);
}

INSTANTIATE_TEST_SUITE_P(Drivers, Restoring, testing::ValuesIn(drivers_all_ways_and_prepared()), driver_name);

}  // namespace
}  // namespace stasis::vmm::contract
