// The Firecracker driver against a Firecracker that misbehaves. What every driver must do is in vmm/contract_*_test.cc.
#include "vmm/firecracker/firecracker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/testing/sync_points.h"
#include "vmm/contract/firecracker_fixture.h"
#include "vmm/contract/lab.h"
#include "vmm/contract/result_matchers.h"
#include "vmm/contract/serial_guest.h"
#include "vmm/firecracker/memory_file.h"
#include "vmm/firecracker/version.h"

namespace stasis::vmm {
namespace {

using contract::double_options;
using contract::Lab;
using contract::Machine;
using contract::Restored;
using contract::Snapshot;
using contract::value;
using stasis::testing::AtPoint;
using ::testing::HasSubstr;

constexpr Range pages(uint64_t first, uint64_t count) { return {first * 4096, count * 4096}; }
constexpr FirecrackerDeadlines kShort{.start = Milliseconds(2000),
                                      .request = Milliseconds(500),
                                      .load = Milliseconds(700),
                                      .create = Milliseconds(2000),
                                      .create_per_gib = Milliseconds(0)};

class FirecrackerDriver : public ::testing::Test {
 protected:
  void SetUp() override { make_fixture(double_options()); }
  void TearDown() override { misbehave(""); }

  void make_fixture(const contract::FirecrackerFixtureOptions& options) {
    const Path home = directory_.path() / ("fixture" + std::to_string(++fixtures_));
    ASSERT_OK(real_file_system().make_directory(home));
    auto made = contract::make_firecracker_fixture(home, options);
    ASSERT_OK(made);
    fixture_ = std::move(*made);
    lab_ = std::make_unique<Lab>(*fixture_, directory_.path());
  }
  // Takes effect for the processes that are started next.
  static void misbehave(const char* how) { ::setenv("FAKE_FIRECRACKER_MISBEHAVE", how, 1); }

  MachineConfig config(const Machine& machine) const {
    MachineConfig config;
    config.shape = {1, static_cast<uint32_t>(fixture_->memory_bytes() >> 20)};
    config.runtime_dir = machine.runtime_dir;
    config.log = machine.log;
    return config;
  }
  // A machine with short deadlines.
  Machine machine() {
    auto made = fixture_->make_machine();
    EXPECT_OK(made);
    made->vmm = std::make_unique<Firecracker>(config(*made), kShort);
    return std::move(*made);
  }
  Status boot(Machine& machine) { return machine.vmm->boot(fixture_->boot_spec()); }
  Machine booted() {
    Machine made = machine();
    EXPECT_OK(boot(made));
    return made;
  }
  Snapshot filled_snapshot() {
    Machine made = booted();
    EXPECT_OK(made.guest->fill(pages(0, 64), 7));
    EXPECT_OK(made.vmm->pause());
    auto taken = lab_->take(*made.vmm, lab_->nothing());
    EXPECT_OK(taken);
    return std::move(*taken);
  }
  static void expect_ended(const Machine& machine) {
    ASSERT_GE(machine.vmm->pidfd(), 0);
    EXPECT_TRUE(value(wait_readable(machine.vmm->pidfd(), Deadline::after(Milliseconds(0)))));
  }
  // boot() fails like this, and no process is left.
  void expect_no_boot(const char* how, Code code, const char* text) {
    misbehave(how);
    Machine made = machine();
    const Status status = boot(made);
    EXPECT_FAILS(status, code);
    if (!status) {
      EXPECT_THAT(status.error().message, HasSubstr(text));
    }
    expect_ended(made);
  }
  // pause() fails like this, at once or at its deadline.
  void expect_no_pause(const char* how, Code code, const char* text) {
    misbehave(how);
    Machine made = booted();
    const Status status = made.vmm->pause();
    EXPECT_FAILS(status, code);
    if (!status) {
      EXPECT_THAT(status.error().message, HasSubstr(text));
    }
  }
  void expect_no_restore(const char* how, Code code, const char* text) {
    misbehave("");
    const Snapshot snapshot = filled_snapshot();
    misbehave(how);
    Restored made = restore(snapshot);
    EXPECT_FAILS(made.status, code);
    if (!made.status) {
      EXPECT_THAT(made.status.error().message, HasSubstr(text));
    }
    expect_ended(made.machine);
  }
  Restored restore(const Snapshot& snapshot) {
    auto made =
        lab_->restore(snapshot, [this](Machine& m) { m.vmm = std::make_unique<Firecracker>(config(m), kShort); });
    EXPECT_OK(made);
    return std::move(*made);
  }
  void expect_no_save(const char* how, Code code, const char* text);

  contract::TemporaryDirectory directory_{contract::directory_in_memory()};
  std::unique_ptr<contract::Fixture> fixture_;
  std::unique_ptr<Lab> lab_;
  int fixtures_ = 0;
};

TEST_F(FirecrackerDriver, TellsWhatItIs) {
  Machine made = booted();
  EXPECT_EQ(made.vmm->info().name, "firecracker");
  EXPECT_EQ(made.vmm->info().version, "1.16.1");
  EXPECT_EQ(made.vmm->info().accelerator, "kvm");
}

TEST_F(FirecrackerDriver, NoProgramIsToldWithTheRemedy) {
  ::setenv("STASIS_FIRECRACKER", "/no/such/firecracker", 1);
  Machine made = machine();
  const Status status = boot(made);
  EXPECT_FAILS(status, Code::kNotFound);
  EXPECT_THAT(status.error().remedy, HasSubstr("STASIS_FIRECRACKER"));
  const auto probed = probe_firecracker();
  EXPECT_FAILS(probed, Code::kNotFound);
  EXPECT_THAT(probed.error().remedy, HasSubstr("STASIS_FIRECRACKER"));
}

TEST_F(FirecrackerDriver, ProbeTellsTheVersion) {
  const auto probed = probe_firecracker();
  ASSERT_OK(probed);
  EXPECT_EQ(probed->version, "1.16.1");
  misbehave("old_version");
  EXPECT_FAILS(probe_firecracker(), Code::kUnimplemented);
  misbehave("exit_at_start");
  EXPECT_FAILS(probe_firecracker(), Code::kNotFound);
}

TEST_F(FirecrackerDriver, FailedStarts) {
  expect_no_boot("exit_at_start", Code::kUnavailable, "exit status 1; its last words: Failed to start: told to");
  expect_no_boot("no_socket", Code::kDeadlineExceeded, "start Firecracker");
  expect_no_boot("old_version", Code::kUnimplemented, "1.13 or later");
  expect_no_boot("no_version", Code::kInternal, "version");
  expect_no_boot("refuse_start", Code::kFailedPrecondition, "Invalid Elf magic number");
}

TEST_F(FirecrackerDriver, SlowStartsSucceed) {
  misbehave("slow_socket,slow_answers");
  Machine made = booted();
  EXPECT_EQ(value(made.guest->count()), 1u);
}

TEST_F(FirecrackerDriver, UnknownFieldsInAnswersAreIgnored) {
  misbehave("extra_json");
  Machine made = booted();
  EXPECT_EQ(made.vmm->info().version, "1.16.1");
}

TEST_F(FirecrackerDriver, AStaleSocketDoesNotMatter) {
  Machine made = machine();
  ASSERT_OK(real_file_system().create(made.runtime_dir / "firecracker.sock"));
  EXPECT_OK(boot(made));
  made.vmm->stop();
  EXPECT_FALSE(exists(real_file_system(), made.runtime_dir / "firecracker.sock"));
}

TEST_F(FirecrackerDriver, AMissingDiskIsTold) {
  Machine made = machine();
  MachineConfig with_disk = config(made);
  with_disk.disk = directory_.path() / "no-disk";
  made.vmm = std::make_unique<Firecracker>(with_disk, kShort);
  const Status status = boot(made);
  EXPECT_FAILS(status, Code::kNotFound);
  EXPECT_THAT(status.error().message, HasSubstr("no-disk"));
  EXPECT_EQ(made.vmm->pidfd(), -1);
}

TEST_F(FirecrackerDriver, AMissingTapIsToldInsteadOfMade) {
  Machine made = machine();
  MachineConfig with_tap = config(made);
  with_tap.tap = "no-tap";
  made.vmm = std::make_unique<Firecracker>(with_tap, kShort);
  EXPECT_FAILS(boot(made), Code::kNotFound);
  EXPECT_FAILS(lab_->restore_without_pages(made, "/proc/self/status"), Code::kNotFound);
  EXPECT_EQ(made.vmm->pidfd(), -1);
}

TEST_F(FirecrackerDriver, ATapOfAnotherNameAtRestoreIsOverridden) {
  const auto with_interface = [this](Machine& m) {
    MachineConfig with_tap = config(m);
    with_tap.tap = "lo";  // the double opens no tap; it only must be there
    m.vmm = std::make_unique<Firecracker>(with_tap, kShort);
  };
  Machine made = machine();
  with_interface(made);
  ASSERT_OK(boot(made));
  ASSERT_OK(made.vmm->pause());
  auto taken = lab_->take(*made.vmm, lab_->nothing());
  ASSERT_OK(taken);
  auto later = lab_->restore(*taken, with_interface);
  ASSERT_OK(later);
  EXPECT_OK(later->status);
}

TEST_F(FirecrackerDriver, PausesThatFail) {
  expect_no_pause("refuse_state", Code::kFailedPrecondition, "PATCH /vm: Firecracker answered 400: Internal VMM error");
  expect_no_pause("http_error", Code::kFailedPrecondition, "larger than the limit");
  expect_no_pause("silent", Code::kDeadlineExceeded, "500 ms");
  expect_no_pause("cut_answer", Code::kUnavailable, "no answer");
  expect_no_pause("close_connection", Code::kUnavailable, "no answer");
  expect_no_pause("garbage", Code::kInternal, "not understood");
  expect_no_pause("endless", Code::kInternal, "not understood");
  expect_no_pause("dies_on_state", Code::kUnavailable, "signal 9 (Killed)");
}

TEST_F(FirecrackerDriver, AfterAPauseThatFailedItDoesNotSave) {
  misbehave("refuse_state");
  Machine made = booted();
  EXPECT_FAILS(made.vmm->pause(), Code::kFailedPrecondition);
  Path state;
  EXPECT_FAILS(lab_->save(*made.vmm, state), Code::kFailedPrecondition);
}

TEST_F(FirecrackerDriver, RestoresThatFail) {
  expect_no_restore("load_hangs", Code::kDeadlineExceeded, "PUT /snapshot/load");
  expect_no_restore("load_dies", Code::kUnavailable, "signal 9");
  expect_no_restore("no_handshake", Code::kDeadlineExceeded, "PUT /snapshot/load");
  expect_no_restore("wrong_regions", Code::kUnavailable,
                    "signal 9");  // the page server refuses, and its owner ends the VMM
  expect_no_restore("old_version", Code::kUnimplemented, "1.13");
}

TEST_F(FirecrackerDriver, ASlowLoadSucceeds) {
  const Snapshot snapshot = filled_snapshot();
  misbehave("late_load");
  Restored made = restore(snapshot);
  EXPECT_OK(made.status);
}

TEST_F(FirecrackerDriver, DeathRightAfterTheLoadIsVisible) {
  const Snapshot snapshot = filled_snapshot();
  misbehave("dies_after_load");
  Restored made = restore(snapshot);
  EXPECT_OK(made.status);
  EXPECT_TRUE(value(wait_readable(made.vmm().pidfd(), Deadline::after(Milliseconds(5000)))));
  EXPECT_FAILS(made.vmm().resume(), Code::kUnavailable);
  EXPECT_EQ(made.page_failure(), std::nullopt) << "a VMM that goes is no failure of the page server";
}

// A page server that does not know its VMM could not end it.
TEST_F(FirecrackerDriver, ARestoreOfWhoseProcessNobodyIsToldFails) {
  const Snapshot snapshot = filled_snapshot();
  Machine made = machine();
  RestoreSpec spec{.state = snapshot.state, .saved_with = snapshot.saved_with};
  spec.uffd_socket = made.runtime_dir / "nobody.sock";
  spec.on_started = [](pid_t) -> Status { return fail(Code::kResourceExhausted, "too many open files"); };
  const Status status = made.vmm->restore(spec);
  EXPECT_FAILS(status, Code::kResourceExhausted);
  EXPECT_THAT(status.error().message, HasSubstr("too many open files"));
  expect_ended(made);
}

TEST_F(FirecrackerDriver, NobodyAtThePageServersSocketIsNotDataLoss) {
  const Snapshot snapshot = filled_snapshot();
  Machine made = machine();
  EXPECT_FAILS(lab_->restore_without_pages(made, snapshot.state), Code::kUnavailable);
  expect_ended(made);
}

TEST_F(FirecrackerDriver, AMissingDiskAtRestoreIsToldBeforeAnythingStarts) {
  const Snapshot snapshot = filled_snapshot();
  Machine made = machine();
  MachineConfig with_disk = config(made);
  with_disk.disk = directory_.path() / "no-disk";
  made.vmm = std::make_unique<Firecracker>(with_disk, kShort);
  EXPECT_FAILS(lab_->restore_without_pages(made, snapshot.state), Code::kNotFound);
  EXPECT_EQ(made.vmm->pidfd(), -1);
}

TEST_F(FirecrackerDriver, AnInterfaceThatTheStateLacksIsNotDataLoss) {
  const Snapshot snapshot = filled_snapshot();
  Machine made = machine();
  MachineConfig with_tap = config(made);
  with_tap.tap = "lo";
  made.vmm = std::make_unique<Firecracker>(with_tap, kShort);
  const Status status = lab_->restore_without_pages(made, snapshot.state);
  EXPECT_FAILS(status, Code::kFailedPrecondition);
  EXPECT_THAT(status.error().message, HasSubstr("Unknown Network Device"));
}

// A Diff that fails, in a restored machine.
void FirecrackerDriver::expect_no_save(const char* how, Code code, const char* text) {
  misbehave(how);
  Restored made = restore(filled_snapshot());
  ASSERT_OK(made.status);
  Path state;
  const auto saved = lab_->save(made.vmm(), state);
  EXPECT_FAILS(saved, code);
  if (!saved) {
    EXPECT_THAT(saved.error().message, HasSubstr(text));
  }
  EXPECT_FALSE(exists(real_file_system(), state)) << "what a failed save began is gone";
  EXPECT_EQ(value(real_file_system().list(directory_.path() / "scratch")), std::vector<std::string>{});
}

TEST_F(FirecrackerDriver, SavesThatFail) {
  expect_no_save("create_fails", Code::kFailedPrecondition, "No space left on device");
  expect_no_save("create_short", Code::kInternal, "instead of");
  expect_no_save("create_no_state", Code::kNotFound, "device state");
  expect_no_save("create_dies", Code::kUnavailable, "signal 9");
}

TEST_F(FirecrackerDriver, AfterASaveThatFailedTheNextHasWhatWasWrittenBefore) {
  misbehave("create_fails");  // and has forgotten what was written
  const Snapshot first = filled_snapshot();
  Restored made = restore(first);
  ASSERT_OK(made.status);
  ASSERT_OK(made.vmm().resume());
  ASSERT_OK(made.guest().fill(pages(3, 2), 8));
  ASSERT_OK(made.vmm().pause());
  Path state;
  EXPECT_FAILS(lab_->save(made.vmm(), state), Code::kFailedPrecondition);
  const auto second = lab_->take(made.vmm(), first.memory);
  ASSERT_OK(second);
  EXPECT_EQ(second->blocks_stored, 2u);
  Restored later = restore(*second);
  ASSERT_OK(later.vmm().resume());
  EXPECT_EQ(value(later.guest().checksum(pages(3, 2))), contract::SerialGuest::checksum_of_fill(pages(3, 2), 8));
}

TEST_F(FirecrackerDriver, FirstSaveIsEverythingAndLaterOnesAreNot) {
  Machine made = booted();
  ASSERT_OK(made.vmm->pause());
  Path state;
  const auto first = lab_->save(*made.vmm, state);
  ASSERT_OK(first);
  EXPECT_EQ(first->candidates, (std::vector<Range>{{0, fixture_->memory_bytes()}}));
  ASSERT_OK(made.vmm->resume());
  ASSERT_OK(made.guest->fill(pages(5, 2), 8));
  ASSERT_OK(made.guest->zero(pages(9, 1)));
  ASSERT_OK(made.vmm->pause());
  const auto second = lab_->save(*made.vmm, state);
  ASSERT_OK(second);
  const uint64_t arena = 4 << 20;
  EXPECT_EQ(second->candidates, (std::vector<Range>{{arena + 5 * 4096, 2 * 4096}, {arena + 9 * 4096, 4096}}))
      << "a page that the guest zeroed is data, not a hole";
  made.vmm->save_failed();
  const auto third = lab_->save(*made.vmm, state);
  ASSERT_OK(third);
  EXPECT_EQ(third->candidates, (std::vector<Range>{{0, fixture_->memory_bytes()}}));
  const auto fourth = lab_->save(*made.vmm, state);
  ASSERT_OK(fourth);
  EXPECT_EQ(fourth->candidates, std::vector<Range>{});
}

// A page that was not written would look as if it had been, with zeros.
TEST_F(FirecrackerDriver, WhereHolesAreNotExactEverySaveIsEverything) {
  Machine made = booted();
  ASSERT_OK(made.guest->fill(pages(0, 64), 7));
  ASSERT_OK(made.vmm->pause());
  const Snapshot first = value(lab_->take(*made.vmm, lab_->nothing()));
  ASSERT_OK(made.vmm->resume());
  ASSERT_OK(made.guest->fill(pages(5, 2), 8));
  const uint64_t sum = value(made.guest->checksum(pages(0, 64)));
  ASSERT_OK(made.vmm->pause());
  int probed = 0;
  {
    const AtPoint huge_pages("memory_file.data", AtPoint::on<std::vector<Range>>([&](std::vector<Range>& data) {
                               ++probed;
                               data = {{0, uint64_t{2} << 20}};
                             }));
    Path state;
    const auto saved = value(lab_->save(*made.vmm, state));
    EXPECT_EQ(probed, 1);
    EXPECT_EQ(saved.candidates, (std::vector<Range>{{0, fixture_->memory_bytes()}}));
    const Snapshot second = value(lab_->capture(state, saved, first.memory));
    EXPECT_EQ(second.blocks_stored, 2u);
    EXPECT_EQ(second.blocks_zeroed, 0u);
    Restored later = restore(second);
    ASSERT_OK(later.vmm().resume());
    EXPECT_EQ(value(later.guest().checksum(pages(0, 64))), sum) << "all of it was written by Firecracker";
  }
  EXPECT_EQ(value(lab_->take(*made.vmm, first.memory)).blocks_compared, 0u) << "and where they are, only what changed";
}

TEST_F(FirecrackerDriver, AMemoryFileThatWasLeftThereIsNotMergedInto) {
  Machine made = booted();
  ASSERT_OK(made.vmm->pause());
  Path state;
  ASSERT_OK(lab_->save(*made.vmm, state));
  const auto left = real_file_system().create(directory_.path() / "scratch" / "memory");
  ASSERT_OK(left);
  const std::vector<std::byte> full(fixture_->memory_bytes(), std::byte{1});
  ASSERT_OK(real_file_system().write_at(left->get(), 0, full));
  const auto saved = lab_->save(*made.vmm, state);
  ASSERT_OK(saved);
  EXPECT_EQ(saved->candidates, std::vector<Range>{});
}

TEST_F(FirecrackerDriver, AStateFileIsNeverOverwritten) {
  Machine made = booted();
  ASSERT_OK(made.vmm->pause());
  const Path state = directory_.path() / "state";
  ASSERT_OK(real_file_system().create(state));
  EXPECT_FAILS(made.vmm->save({state, directory_.path() / "scratch"}), Code::kAlreadyExists);
  EXPECT_EQ(value(real_file_system().info(state)).size, 0u);
}

TEST_F(FirecrackerDriver, RestoresTwoRegionsAboveThreeGibibytes) {
  misbehave("sparse_full");
  contract::FirecrackerFixtureOptions large = double_options();
  large.memory_mib = 3 * 1024 + 64;
  make_fixture(large);
  auto first = fixture_->make_machine();
  ASSERT_OK(first);
  ASSERT_OK(boot(*first));
  const uint64_t boundary = (uint64_t{3} << 30) - (4 << 20);
  const Range across{boundary - 8 * 4096, 16 * 4096};
  ASSERT_OK(first->guest->fill(across, 7));
  ASSERT_OK(first->vmm->pause());
  auto taken = lab_->take(*first->vmm, lab_->nothing());
  ASSERT_OK(taken);
  auto second = lab_->restore(*taken);
  ASSERT_OK(second);
  ASSERT_OK(second->status);
  EXPECT_EQ(second->pages->regions().size(), 2u);
  ASSERT_OK(second->vmm().resume());
  EXPECT_EQ(value(second->guest().checksum(across)), contract::SerialGuest::checksum_of_fill(across, 7));
  ASSERT_OK(second->guest().fill({boundary, 4096}, 8));
  ASSERT_OK(second->vmm().pause());
  auto next = lab_->take(second->vmm(), taken->memory);
  ASSERT_OK(next);
  EXPECT_EQ(next->blocks_stored, 1u);
}

}  // namespace
}  // namespace stasis::vmm
