// The contract of vmm.h, checked on every driver that can run here: see contract/fixture.h.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <array>

#include "base/poll.h"
#include "base/process.h"
#include "snapshot/ranges.h"
#include "vmm/contract/suite.h"

namespace stasis::vmm::contract {
namespace {

bool process_is_there(pid_t pid) { return ::kill(pid, 0) == 0; }

// No process, or one that has exited.
bool ended(const Vmm& vmm) {
  return vmm.pidfd() < 0 || value(wait_readable(vmm.pidfd(), Deadline::after(Milliseconds(0))));
}

class Restoring : public Contract {};
// What a mapped restore does.
class Mapping : public Contract {};
// What a page server does.
class Paging : public Contract {};

TEST_P(Contract, BootsAndRunsTheGuest) {
  Machine machine = booted();
  EXPECT_EQ(value(machine.guest->count()), 1u);
  EXPECT_EQ(value(machine.guest->count()), 2u);
  EXPECT_FALSE(machine.vmm->info().name.empty());
  EXPECT_FALSE(machine.vmm->info().version.empty());
  EXPECT_GT(machine.vmm->pid(), 0);
  EXPECT_GE(machine.vmm->pidfd(), 0);
}

TEST_P(Contract, PausesAndResumesAnyNumberOfTimes) {
  Machine machine = booted();
  for (uint64_t turn = 1; turn <= 3; ++turn) {
    EXPECT_OK(machine.vmm->pause());
    EXPECT_OK(machine.vmm->pause());
    EXPECT_OK(machine.vmm->resume());
    EXPECT_OK(machine.vmm->resume());
    EXPECT_EQ(value(machine.guest->count()), turn);
  }
}

TEST_P(Contract, IsStartedOnceOnly) {
  Machine machine = booted();
  EXPECT_FAILS(machine.vmm->boot(fixture_->boot_spec()), Code::kFailedPrecondition);
  EXPECT_EQ(value(machine.guest->count()), 1u);
}

TEST_P(Contract, RefusesToPauseWhatDoesNotRun) {
  auto machine = fixture_->make_machine();
  ASSERT_OK(machine);
  EXPECT_FAILS(machine->vmm->pause(), Code::kFailedPrecondition);
  EXPECT_FAILS(machine->vmm->resume(), Code::kFailedPrecondition);
  Path state;
  EXPECT_FAILS(lab_->save(*machine->vmm, state), Code::kFailedPrecondition);
}

TEST_P(Contract, BootWithoutAKernelFailsAndLeavesNoProcess) {
  auto machine = fixture_->make_machine();
  ASSERT_OK(machine);
  BootSpec spec = fixture_->boot_spec();
  spec.vmlinux = directory_.path() / "no-such-kernel";
  const Status booted = machine->vmm->boot(spec);
  ASSERT_FALSE(booted.has_value());
  EXPECT_FALSE(booted.error().message.empty());
  machine->vmm->stop();
  EXPECT_TRUE(ended(*machine->vmm));
}

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

TEST_P(Contract, SaveWhileRunningIsRefused) {
  Machine machine = booted();
  Path state;
  EXPECT_FAILS(lab_->save(*machine.vmm, state), Code::kFailedPrecondition);
  EXPECT_FALSE(exists(real_file_system(), state));
  EXPECT_EQ(value(machine.guest->count()), 1u);
  EXPECT_OK(machine.vmm->pause());
  EXPECT_OK(lab_->save(*machine.vmm, state));
}

// Memory as it is put together from what each look tells to be fresh.
class CopiedAhead {
 public:
  explicit CopiedAhead(std::vector<std::byte> parent) : bytes_(std::move(parent)) {}
  void copy(const SavedMemory& memory) {
    for (const Range& range : memory.fresh) {
      const auto part = std::span(bytes_).subspan(range.offset, range.length);
      EXPECT_OK(memory.source.read(real_file_system(), range.offset, part));
    }
  }
  // What was told and is no candidate at the save reads as zeros: of a booted guest.
  void keep_only(const std::vector<Range>& candidates) {
    for (const Range& gone : snapshot::subtract(std::vector{Range{0, bytes_.size()}}, candidates)) {
      std::fill_n(bytes_.begin() + static_cast<long>(gone.offset), gone.length, std::byte{});
    }
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

// Copied ahead while the guest runs, in two rounds, and once more what was fresh at the save: the same bytes as from
// the stopped guest alone.
TEST_P(Restoring, LookingAheadMissesNothing) {
  const Snapshot first = filled_snapshot(7);
  Restored machine = resumed(first);
  const Range everything{0, fixture_->memory_bytes()};
  CopiedAhead copied(value(lab_->content(first.memory, everything)));
  for (uint64_t round = 0; round < 2; ++round) {
    EXPECT_OK(machine.guest().fill(pages(32, 60 - 20 * round), 8 + round));
    const auto ahead = machine.vmm().look_ahead();
    if (!ahead && ahead.error().code == Code::kUnimplemented) GTEST_SKIP() << ahead.error().message;
    ASSERT_OK(ahead);
    copied.copy(*ahead);
  }
  EXPECT_OK(machine.guest().fill(pages(32, 8), 10));
  EXPECT_OK(machine.guest().zero(pages(50, 5)));
  EXPECT_OK(machine.vmm().pause());
  Path state;
  const auto saved = lab_->save(machine.vmm(), state);
  ASSERT_OK(saved);
  EXPECT_LT(total_length(saved->fresh), total_length(saved->candidates));
  copied.copy(*saved);
  const auto second = lab_->capture(state, *saved, first.memory);
  ASSERT_OK(second);
  expect_stored(*second, 60);
  EXPECT_TRUE(value(lab_->content(second->memory, everything)) == copied.bytes());
}

// Which is why a driver may look at memory while it still saves the device state.
TEST_P(Restoring, NothingOfMemoryIsWrittenWhileAStoppedMachineIsSaved) {
  const Snapshot first = filled_snapshot(7);
  Restored machine = resumed(first);
  for (uint64_t turn = 0; turn < 3; ++turn) {
    const auto ahead = machine.vmm().look_ahead();
    if (!ahead && ahead.error().code == Code::kUnimplemented) GTEST_SKIP() << ahead.error().message;
    EXPECT_OK(machine.guest().fill(pages(20, 10), 8 + turn));
    EXPECT_OK(machine.guest().churn(turn));
    EXPECT_OK(machine.vmm().pause());
    const auto saved = machine.vmm().save({directory_.path() / "state", directory_.path() / "scratch"});
    ASSERT_OK(saved);
    EXPECT_GE(total_length(saved->fresh), pages(20, 10).length);
    EXPECT_EQ(total_length(value(machine.vmm().look_ahead()).fresh), 0u);
    machine.vmm().save_failed();
    EXPECT_OK(machine.vmm().resume());
  }
}

TEST_P(Restoring, LookingAheadAtABootedGuestMissesNothing) {
  Machine machine = booted();
  const Range everything{0, fixture_->memory_bytes()};
  CopiedAhead copied(std::vector<std::byte>(everything.length));
  for (uint64_t round = 0; round < 2; ++round) {
    EXPECT_OK(machine.guest->fill(pages(16, 300 - 100 * round), 8 + round));
    const auto ahead = machine.vmm->look_ahead();
    if (!ahead && ahead.error().code == Code::kUnimplemented) GTEST_SKIP() << ahead.error().message;
    ASSERT_OK(ahead);
    copied.copy(*ahead);
  }
  EXPECT_OK(machine.guest->fill(pages(32, 8), 10));
  EXPECT_OK(machine.guest->zero(pages(50, 5)));
  const uint64_t sum = value(machine.guest->checksum(kFilled));
  EXPECT_OK(machine.vmm->pause());
  Path state;
  const auto saved = lab_->save(*machine.vmm, state);
  ASSERT_OK(saved);
  EXPECT_LT(total_length(saved->fresh), total_length(saved->candidates));
  copied.copy(*saved);
  copied.keep_only(saved->candidates);
  auto first = lab_->capture(state, *saved, lab_->nothing());
  ASSERT_OK(first);
  EXPECT_TRUE(value(lab_->content(first->memory, everything)) == copied.bytes());
  // The same machine goes on, and its next snapshot compares what it has written since.
  EXPECT_OK(machine.vmm->resume());
  EXPECT_OK(machine.guest->fill(pages(20, 4), 11));
  EXPECT_OK(machine.vmm->pause());
  const auto second = lab_->take(*machine.vmm, first->memory);
  ASSERT_OK(second);
  EXPECT_LT(second->blocks_compared, first->blocks_compared);
  Restored later = resumed(*first);
  EXPECT_EQ(value(later.guest().checksum(kFilled)), sum);
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

TEST_P(Restoring, StopLeavesNoProcessInAnyState) {
  const Snapshot first = filled_snapshot(7);
  const std::vector<std::function<void(Machine&)>> states{
      [](Machine&) {},
      [](Machine& m) { EXPECT_OK(m.vmm->pause()); },
      [](Machine& m) { m.vmm->stop(); },
  };
  for (const auto& bring_into_state : states) {
    Machine machine = booted();
    const pid_t pid = machine.vmm->pid();
    ASSERT_TRUE(process_is_there(pid));
    bring_into_state(machine);
    EXPECT_FALSE(machine.vmm->stop().empty());
    EXPECT_FALSE(process_is_there(pid));
  }
  Restored machine = restored(first);
  const pid_t pid = machine.vmm().pid();
  ASSERT_TRUE(process_is_there(pid));
  machine.vmm().stop();
  EXPECT_FALSE(process_is_there(pid));
  EXPECT_FAILS(machine.vmm().pause(), Code::kFailedPrecondition);
}

TEST_P(Contract, TheDestructorLeavesNoProcess) {
  Machine machine = booted();
  const pid_t pid = machine.vmm->pid();
  machine.vmm.reset();
  EXPECT_FALSE(process_is_there(pid));
}

TEST_P(Contract, StopBeforeStartSaysSo) {
  auto machine = fixture_->make_machine();
  ASSERT_OK(machine);
  EXPECT_EQ(machine->vmm->pidfd(), -1);
  EXPECT_EQ(machine->vmm->stop(), "not started");
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

TEST_P(Contract, DeathIsVisible) {
  Machine machine = booted();
  const pid_t pid = machine.vmm->pid();
  EXPECT_FALSE(value(wait_readable(machine.vmm->pidfd(), Deadline::after(Milliseconds(0)))));
  ASSERT_EQ(::kill(pid, SIGKILL), 0);
  EXPECT_TRUE(value(wait_readable(machine.vmm->pidfd(), Deadline::after(Milliseconds(5000)))));
  const Status paused = machine.vmm->pause();
  ASSERT_FALSE(paused.has_value());
  EXPECT_THAT(paused.error().message, testing::HasSubstr("signal 9"));
  EXPECT_THAT(machine.vmm->stop(), testing::HasSubstr("signal 9"));
}

TEST_P(Contract, APreparedMachineCanOnlyBeRestored) {
  const Snapshot first = filled_snapshot(7);
  auto machine = fixture_->make_machine();
  ASSERT_OK(machine);
  ASSERT_OK(machine->vmm->prepare({}));
  EXPECT_GT(machine->vmm->pid(), 0);
  EXPECT_FALSE(ended(*machine->vmm));
  EXPECT_FALSE(machine->vmm->info().version.empty());
  EXPECT_FAILS(machine->vmm->prepare({}), Code::kFailedPrecondition);
  EXPECT_FAILS(machine->vmm->boot(fixture_->boot_spec()), Code::kFailedPrecondition);
  Path state;
  EXPECT_FAILS(lab_->save(*machine->vmm, state), Code::kFailedPrecondition);
  EXPECT_FAILS(lab_->restore_without_pages(*machine, first.state), Code::kUnavailable);
  EXPECT_TRUE(ended(*machine->vmm));
}

TEST_P(Contract, APreparedMachineThatDiedSaysSoAndWhereItsLogIs) {
  const Snapshot first = filled_snapshot(7);
  auto machine = fixture_->make_machine();
  ASSERT_OK(machine);
  ASSERT_OK(machine->vmm->prepare({}));
  ASSERT_EQ(::kill(machine->vmm->pid(), SIGKILL), 0);
  EXPECT_TRUE(value(wait_readable(machine->vmm->pidfd(), Deadline::after(Milliseconds(5000)))));
  const Status restored = machine->vmm->restore({.state = first.state,
                                                 .saved_with = first.saved_with,
                                                 .uffd_socket = machine->runtime_dir / "nobody.sock",
                                                 .log = "/where/it/was/moved"});
  EXPECT_FAILS(restored, Code::kUnavailable);
  EXPECT_THAT(restored.error().message,
              testing::AllOf(testing::HasSubstr("signal 9"), testing::HasSubstr("/where/it")));
}

TEST_P(Contract, APreparedMachineGoesWithItsObject) {
  auto machine = fixture_->make_machine();
  ASSERT_OK(machine);
  ASSERT_OK(machine->vmm->prepare({}));
  const pid_t pid = machine->vmm->pid();
  machine->vmm.reset();
  EXPECT_FALSE(process_is_there(pid));
}

INSTANTIATE_TEST_SUITE_P(Drivers, Contract, testing::ValuesIn(drivers()), driver_name);
INSTANTIATE_TEST_SUITE_P(Drivers, Paging, testing::ValuesIn(drivers()), driver_name);
INSTANTIATE_TEST_SUITE_P(Drivers, Mapping, testing::ValuesIn(drivers_mapped()), driver_name);
INSTANTIATE_TEST_SUITE_P(Drivers, Restoring, testing::ValuesIn(drivers_all_ways_and_prepared()), driver_name);
INSTANTIATE_TEST_SUITE_P(Drivers, Damage, testing::ValuesIn(drivers_both_ways()), driver_name);

}  // namespace
}  // namespace stasis::vmm::contract
