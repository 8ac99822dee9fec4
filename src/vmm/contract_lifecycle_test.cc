// The life of a machine: booted, paused, prepared, stopped or killed, and what is refused in which state. However it
// ends, no process is left.
#include <gmock/gmock.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "base/poll.h"
#include "vmm/contract/suite.h"

namespace stasis::vmm::contract {
namespace {

bool process_is_there(pid_t pid) { return ::kill(pid, 0) == 0; }

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

TEST_P(Contract, SaveWhileRunningIsRefused) {
  Machine machine = booted();
  Path state;
  EXPECT_FAILS(lab_->save(*machine.vmm, state), Code::kFailedPrecondition);
  EXPECT_FALSE(exists(real_file_system(), state));
  EXPECT_EQ(value(machine.guest->count()), 1u);
  EXPECT_OK(machine.vmm->pause());
  EXPECT_OK(lab_->save(*machine.vmm, state));
}

// Where the VMM's threads may run, of any of them.
std::set<std::string> processors_of(const Vmm& vmm) {
  std::set<std::string> found;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/" + std::to_string(vmm.pid()) + "/task")) {
    std::ifstream status(thread.path() / "status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("Cpus_allowed:")) found.insert(line);
    }
  }
  return found;
}

TEST_P(Contract, ASaveThatIsOverOrFailedLeavesTheVmmOnEveryProcessor) {
  Machine machine = booted();
  const auto before = processors_of(*machine.vmm);
  EXPECT_OK(machine.vmm->pause());
  EXPECT_OK(machine.vmm->resume());
  EXPECT_EQ(processors_of(*machine.vmm), before);
  EXPECT_OK(machine.vmm->pause());
  Path state;
  EXPECT_OK(lab_->save(*machine.vmm, state));
  EXPECT_EQ(processors_of(*machine.vmm), before);
  EXPECT_OK(machine.vmm->resume());
  EXPECT_OK(machine.vmm->pause());
  EXPECT_OK(machine.vmm->save({directory_.path() / "state", directory_.path() / "scratch"}));
  machine.vmm->save_failed();
  EXPECT_EQ(processors_of(*machine.vmm), before);
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

TEST_P(Contract, APreparedMachineThatDiedSaysSoInTheWordsOfItsLog) {
  const Snapshot first = filled_snapshot(7);
  auto machine = fixture_->make_machine();
  ASSERT_OK(machine);
  ASSERT_OK(machine->vmm->prepare({}));
  ASSERT_EQ(::kill(machine->vmm->pid(), SIGKILL), 0);
  EXPECT_TRUE(value(wait_readable(machine->vmm->pidfd(), Deadline::after(Milliseconds(5000)))));
  const Path moved = machine->runtime_dir / "moved.log";
  std::ofstream(moved) << "words of its own\n";
  const Status restored = machine->vmm->restore({.state = first.state,
                                                 .saved_with = first.saved_with,
                                                 .uffd_socket = machine->runtime_dir / "nobody.sock",
                                                 .log = moved});
  EXPECT_FAILS(restored, Code::kUnavailable);
  EXPECT_THAT(restored.error().message,
              testing::AllOf(testing::HasSubstr("signal 9"), testing::HasSubstr("its last words: words of its own")));
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

}  // namespace
}  // namespace stasis::vmm::contract
