// A sandbox's life: boot, pause, restore, snapshot, spares, and its ends.
#include <signal.h>
#include <sys/stat.h>

#include "base/file_lock.h"

#include "tests/integration/supervisor_fixture.h"

namespace stasis::supervisor {
namespace {

TEST_F(SupervisorTest, BootPauseRestorePauseRestore) {
  Running booted = start(image_, "booted");
  const auto state = booted.client->state(Milliseconds(60'000));
  ASSERT_TRUE(state) << state.error().message;
  EXPECT_EQ(state->state, "running");
  EXPECT_EQ(state->restore_method, "");
  await_daemon(*booted.client);
  const SnapshotId first = SnapshotId::random();
  const auto paused = booted.client->pause(first, Milliseconds(60'000));
  ASSERT_TRUE(paused) << paused.error().message;
  EXPECT_EQ(paused->memory.generation, 0U);
  EXPECT_GT(paused->memory.stored_bytes, 10U << 20);
  ASSERT_TRUE((*booted.process->wait(Deadline::never()))->success());
  EXPECT_EQ(exit_record(booted)["reason"], "paused");
  EXPECT_FALSE(open_pidfd(state->vmm_pid)) << "the VMM still runs";
  EXPECT_FALSE(mounted_outside());

  Running restored = start(first, "restored", kRestoreUffd);
  ASSERT_TRUE(restored.client->state(Milliseconds(60'000)));
  await_daemon(*restored.client);
  const auto after = restored.client->state(Milliseconds(5000));
  ASSERT_TRUE(after);
  EXPECT_EQ(after->restore_method, kRestoreUffd);
  EXPECT_EQ(after->restore_reason, "asked for");
  EXPECT_GT(after->faults, 0U);
  EXPECT_LT(after->pages_by_fault + after->pages_around + after->pages_zero, after->total_pages);
  // Nobody but the owner reaches any of its sockets.
  using std::filesystem::perms;
  const Path runtime = Path("/proc") / std::to_string(after->supervisor_pid) / "root/run/stasis-vm";
  EXPECT_EQ(permissions_of(runtime), perms::owner_all);
  EXPECT_EQ(permissions_of(runtime / "uffd.sock"), perms::owner_read | perms::owner_write);
  EXPECT_EQ(permissions_of(restored.dir), perms::owner_all);
  EXPECT_EQ(permissions_of(restored.dir / kControlSocket), perms::owner_read | perms::owner_write);
  const SnapshotId second = SnapshotId::random();
  const auto again = restored.client->pause(second, Milliseconds(60'000));
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->memory.generation, 1U);
  EXPECT_LT(again->memory.stored_bytes, paused->memory.stored_bytes / 2);
  EXPECT_LE(again->memory.stored_bytes, again->memory.compared_bytes);

  Running third = start(second, "third");
  ASSERT_TRUE(third.client->state(Milliseconds(60'000)));
  await_daemon(*third.client);
  const auto mapped = third.client->state(Milliseconds(5000));
  ASSERT_TRUE(mapped);
  EXPECT_EQ(mapped->restore_method, kRestoreMapped) << mapped->restore_reason;
  EXPECT_EQ(mapped->mapped_bytes + mapped->copied_bytes, bytes_of_memory(second));
  EXPECT_GT(mapped->resident_pages, 0U);
  EXPECT_EQ(mapped->faults, 0U);
  const auto last = third.client->pause(SnapshotId::random(), Milliseconds(60'000));
  ASSERT_TRUE(last) << last.error().message;
  EXPECT_EQ(last->memory.generation, 2U);
  EXPECT_LT(last->memory.stored_bytes, paused->memory.stored_bytes / 2);
  ASSERT_TRUE((*third.process->wait(Deadline::never()))->success());
}

// A spare, told late what it is, is a sandbox like any other: both ways, its logs, its own end, its next snapshot.
TEST_F(SupervisorTest, ASpareBecomesASandbox) {
  Running booted = start(image_, "for-spares");
  const auto state = booted.client->state(Milliseconds(60'000));
  ASSERT_TRUE(state);
  await_daemon(*booted.client);
  SnapshotId base = SnapshotId::random();
  ASSERT_TRUE(booted.client->pause(base, Milliseconds(60'000)));
  ASSERT_TRUE(booted.process->wait(Deadline::never()));

  for (const std::string way : {kRestoreMapped, kRestoreUffd}) {
    Running spare = start_spare("spare-" + way, state->disk_bytes);
    const Path spare_dir = spare.dir;
    ASSERT_TRUE(become(spare, base, "became-" + way, way));
    const auto became = spare.client->state(Milliseconds(60'000));
    ASSERT_TRUE(became) << became.error().message;
    EXPECT_TRUE(became->spare);
    EXPECT_EQ(became->sandbox_id, "became-" + way);
    EXPECT_EQ(became->restore_method, way);
    EXPECT_EQ(became->disk_bytes, state->disk_bytes);
    await_daemon(*spare.client);
    EXPECT_EQ(real_file_system().list(spare_dir).value(), std::vector<std::string>{kSpareFile});
    EXPECT_TRUE(exists(real_file_system(), spare.dir / kVmmLog));
    const auto again = Client::connect(spare.dir);
    ASSERT_TRUE(again) << "its socket has not moved along";
    EXPECT_EQ((*again)->pid(), spare.process->pid());
    const SnapshotId next = SnapshotId::random();
    const auto paused = spare.client->pause(next, Milliseconds(60'000));
    ASSERT_TRUE(paused) << paused.error().message;
    EXPECT_LT(paused->memory.stored_bytes, 64U << 20);
    ASSERT_TRUE((*spare.process->wait(Deadline::never()))->success());
    EXPECT_EQ(exit_record(spare)["reason"], "paused");
    base = next;
  }
  EXPECT_FALSE(mounted_outside());
}

TEST_F(SupervisorTest, ASpareOfAnotherShapeSaysSo) {
  SnapshotId base;
  ASSERT_NO_FATAL_FAILURE(pause_booted("for-another-shape", base));
  Running spare = start_spare("another-shape", 1 << 20);
  ASSERT_TRUE(become(spare, base, "misfit", ""));
  const ExitRecord record = end_of(spare);
  EXPECT_EQ(record.error.code, Code::kFailedPrecondition);
}

TEST_F(SupervisorTest, ASpareEndsWithItsVmmWithItsClientAndWhenItIsTold) {
  Running alone = start_spare("let-go", 1 << 20);
  alone.client.reset();
  EXPECT_TRUE((*alone.process->wait(Deadline::after(Milliseconds(10'000))))->success());

  Running told = start_spare("told", 1 << 20);
  told.process->signal(SIGTERM);
  EXPECT_TRUE((*told.process->wait(Deadline::after(Milliseconds(10'000))))->success());

  Running lost = start_spare("lost", 1 << 20);
  EXPECT_FALSE(lost.client->become(root_->path() / "nowhere", Milliseconds(5000)).has_value());
  EXPECT_FALSE((*lost.process->wait(Deadline::after(Milliseconds(10'000))))->success());
  EXPECT_FALSE(mounted_outside());
}

TEST_F(SupervisorTest, SnapshotKeepsTheGuestRunningAndTheNextOneIsSmall) {
  Running running = start(image_, "live");
  ASSERT_TRUE(running.client->state(Milliseconds(60'000)));
  await_daemon(*running.client);
  const auto first = running.client->snapshot(SnapshotId::random(), Milliseconds(60'000));
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_THAT(request(*running.client, "GET /health"), HasSubstr("204"));
  const auto second = running.client->snapshot(SnapshotId::random(), Milliseconds(60'000));
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_EQ(second->memory.generation, 1U);
  EXPECT_LT(second->memory.stored_bytes, first->memory.stored_bytes / 4);
}

// Somebody waits for the lock on this file (proc_locks(5): "N: -> FLOCK ... MAJOR:MINOR:INODE ...").
bool is_waited_for(const Path& file) {
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) return false;
  const std::string inode = ":" + std::to_string(status.st_ino) + " ";
  std::ifstream table("/proc/locks");
  for (std::string line; std::getline(table, line);) {
    if (line.find("->") != std::string::npos && line.find(inode) != std::string::npos) return true;
  }
  return false;
}

// A snapshot of much memory takes minutes: whoever runs commands in the guest must not have to wait for it.
TEST_F(SupervisorTest, WhileASnapshotIsTakenTheGuestIsReached) {
  Running running = start(image_, "reached");
  ASSERT_TRUE(running.client->state(Milliseconds(60'000)));
  await_daemon(*running.client);
  std::optional<FileLock> collection = FileLock::try_exclusive(store_->root() / "lock").value();
  std::thread taking([&] {
    const auto taken = running.client->snapshot(SnapshotId::random(), Milliseconds(60'000));
    EXPECT_TRUE(taken) << taken.error().message;
  });
  while (!is_waited_for(store_->root() / "lock")) std::this_thread::yield();

  // More than the loop takes clients, each of which must wait and gives up.
  for (int i = 0; i < 20; ++i) {
    const auto state = Client::connect(running.dir).value()->state(Milliseconds(1));
    EXPECT_EQ(state.error().code, Code::kDeadlineExceeded);
  }
  const auto other = Client::connect(running.dir).value();
  EXPECT_THAT(request(*other, "GET /health"), HasSubstr("204"));
  EXPECT_TRUE(other->pager(Milliseconds(5'000)));
  std::thread patient([&] { EXPECT_TRUE(other->state(Milliseconds(60'000))) << "answered once it has been taken"; });

  collection.reset();
  taking.join();
  patient.join();
  EXPECT_TRUE(running.client->state(Milliseconds(5'000)));
}

// What the sandbox stands on is in its own record, whatever fails: a collection takes none of it.
TEST_F(SupervisorTest, ADiskThatCannotBeWrittenDownCostsThatSnapshotOnly) {
  Running running = start(image_, "no-record");
  ASSERT_TRUE(running.client->state(Milliseconds(60'000)));
  await_daemon(*running.client);
  const Path obstacle = running.dir / (std::string(kDiskMapFile) + ".tmp");
  ASSERT_TRUE(real_file_system().make_directory(obstacle));
  EXPECT_FALSE(running.client->snapshot(SnapshotId::random(), Milliseconds(60'000)));
  collect_around(running);
  ASSERT_TRUE(real_file_system().remove_directory(obstacle));
  const SnapshotId id = SnapshotId::random();
  const auto taken = running.client->snapshot(id, Milliseconds(60'000));
  ASSERT_TRUE(taken) << taken.error().message;
  EXPECT_GT(taken->disk.stored_bytes, 0U);
  collect_around(running);
  const auto disk = store_->read_map(id, *store_->load(id).value().disk_map).value();
  EXPECT_TRUE(snapshot::AddressSpace::open(real_file_system(), store_->layers_dir(), disk));
}

TEST_F(SupervisorTest, UnknownBaseEndsWithTheReason) {
  SandboxConfig config{"x", store_->root(), SnapshotId::random(), {1, 256}, 0, "qemu"};
  const Path dir = root_->path() / "unknown";
  ASSERT_TRUE(real_file_system().make_directory(dir));
  ASSERT_TRUE(publish_file(real_file_system(), dir / kConfigFile, to_json(config).dump()));
  SpawnOptions options;
  options.argv = {required("STASIS_BIN") + "/stasis-supervisor", "--sandbox-dir", dir.string()};
  auto process = spawn(options);
  ASSERT_TRUE(process);
  EXPECT_EQ((*process->wait(Deadline::never()))->code, 1);
  std::ifstream file(dir / kExitFile);
  const auto record = exit_from_json(nlohmann::json::parse(file, nullptr, false));
  ASSERT_TRUE(record);
  EXPECT_FALSE(record->expected);
  EXPECT_EQ(record->error.code, Code::kNotFound);
}

TEST_F(SupervisorTest, KilledVmmIsRecordedAndKilledSupervisorTakesItsVmmAlong) {
  Running first = start(image_, "vmm-dies");
  const auto state = first.client->state(Milliseconds(60'000));
  ASSERT_TRUE(state);
  ASSERT_EQ(::kill(state->vmm_pid, SIGKILL), 0);
  ASSERT_TRUE(first.process->wait(Deadline::never()));
  EXPECT_THAT(exit_record(first)["reason"].get<std::string>(), HasSubstr("signal 9"));

  Running second = start(image_, "supervisor-dies");
  const auto other = second.client->state(Milliseconds(60'000));
  ASSERT_TRUE(other);
  const auto vmm = open_pidfd(other->vmm_pid);
  ASSERT_TRUE(vmm);
  second.process->kill_and_wait();
  EXPECT_TRUE(*wait_readable(vmm->get(), Deadline::after(Milliseconds(10'000))));
  EXPECT_FALSE(mounted_outside());
}

// As an error of KVM makes it; here by a second monitor, which a QEMU in place of the real one has.
TEST_F(SupervisorTest, AGuestThatItsVmmStopsByItselfEndsWithTheReason) {
  const Path bin = root_->path() / "bin";
  const Path monitor = root_->path() / "monitor";
  ASSERT_TRUE(real_file_system().make_directory(bin));
  const Path program = bin / "qemu-system-x86_64";
  // The library is loaded into the shell, too, and takes its variables out of the environment.
  std::ofstream(program) << "#!/bin/sh\nLD_PRELOAD=" << required("STASIS_BIN") << "/../lib/libstasis-preload.so "
                         << "STASIS_RAM_FD=3 STASIS_MAPPING_FD=5 STASIS_BOOTS=1 PATH=${PATH#*:} "
                         << "exec qemu-system-x86_64 \"$@\" -qmp unix:" << monitor.string() << ",server=on,wait=off\n";
  std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  Running running = launch(image_, "stops-by-itself", "", {{"PATH", bin.string() + ":" + std::getenv("PATH")}});
  connect(running);
  ASSERT_TRUE(running.client->state(Milliseconds(60'000)));
  const auto qmp = connect_unix(monitor);
  ASSERT_TRUE(qmp) << qmp.error().message;
  const std::string commands = R"({"execute":"qmp_capabilities"}{"execute":"stop"})";
  ASSERT_TRUE(send_all(qmp->get(), std::as_bytes(std::span(commands))));
  const ExitRecord record = end_of(running);
  EXPECT_FALSE(record.expected);
  EXPECT_THAT(record.reason, HasSubstr("QEMU has stopped the guest by itself: paused"));
}

}  // namespace
}  // namespace stasis::supervisor
