// The real supervisor with a real Linux guest under QEMU, without agent or server: boot, pause, restore in both ways.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/process.h"
#include "base/testing/temp_dir.h"
#include "snapshot/compact.h"
#include "snapshot/ranges.h"
#include "snapshot/store.h"
#include "snapshot/verified.h"
#include "snapshot/working_set.h"
#include "supervisor/client.h"

namespace stasis::supervisor {
namespace {

using snapshot::SnapshotId;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string required(const char* variable) {
  const char* value = std::getenv(variable);
  EXPECT_NE(value, nullptr) << variable << " is not set; run this through ctest";
  return value != nullptr ? value : "";
}

class SupervisorTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    root_ = std::make_unique<testing::TempDir>();
    auto store = snapshot::Store::open(real_file_system(), root_->path() / "store");
    ASSERT_TRUE(store) << store.error().message;
    store_ = std::make_unique<snapshot::Store>(std::move(*store));
    const Path image = required("STASIS_IMAGE");
    auto imported =
        snapshot::import_image(*store_, {image / "vmlinux", image / "initrd", image / "rootfs.ext4", "test"});
    ASSERT_TRUE(imported) << imported.error().message;
    image_ = imported->id;
  }
  static void TearDownTestSuite() {
    store_.reset();
    root_.reset();
  }

  // A supervisor with its sandbox directory.
  struct Running {
    Path dir;
    std::optional<Process> process;
    std::unique_ptr<Client> client;
  };

  Running launch(SnapshotId base, const std::string& name, const std::string& restore) {
    Running running;
    running.dir = root_->path() / name;
    EXPECT_TRUE(real_file_system().make_directory(running.dir));
    SandboxConfig config{name, store_->root(), base, {1, 256}, 0, "qemu", restore};
    EXPECT_TRUE(publish_file(real_file_system(), running.dir / kConfigFile, to_json(config).dump()));
    SpawnOptions options;
    options.argv = {required("STASIS_BIN") + "/stasis-supervisor", "--sandbox-dir", running.dir.string()};
    options.stderr_fd = STDERR_FILENO;
    auto process = spawn(options);
    EXPECT_TRUE(process) << process.error().message;
    running.process = std::move(*process);
    return running;
  }
  // The same, and waits until it can be asked.
  Running start(SnapshotId base, const std::string& name, const std::string& restore = "") {
    Running running = launch(base, name, restore);
    connect(running);
    return running;
  }

  // A spare for this disk, ready.
  static Running start_spare(const std::string& name, uint64_t disk_bytes) {
    Running running;
    running.dir = root_->path() / name;
    EXPECT_TRUE(real_file_system().make_directory(running.dir));
    const SpareConfig config{{1, 256}, disk_bytes, "qemu"};
    EXPECT_TRUE(publish_file(real_file_system(), running.dir / kSpareFile, to_json(config).dump()));
    const auto log = real_file_system().create(running.dir / kSupervisorLog);
    EXPECT_TRUE(log);
    SpawnOptions options;
    options.argv = {required("STASIS_BIN") + "/stasis-supervisor", "--spare-dir", running.dir.string()};
    options.stderr_fd = log->get();
    options.die_with_parent = true;
    auto process = spawn(options);
    EXPECT_TRUE(process) << process.error().message;
    running.process = std::move(*process);
    connect(running);
    const Status ready = running.client->await_spare(Milliseconds(60'000));
    EXPECT_TRUE(ready) << ready.error().message;
    return running;
  }
  static void connect(Running& running) {
    for (int attempt = 0; attempt < 1000 && !running.client; ++attempt) {
      auto client = Client::connect(running.dir);
      if (client) running.client = std::move(*client);
      std::this_thread::sleep_for(Milliseconds(10));
    }
    ASSERT_TRUE(running.client);
  }
  // It becomes the supervisor of a sandbox with a directory of its own.
  static Status become(Running& spare, SnapshotId base, const std::string& name, const std::string& restore) {
    const Path dir = root_->path() / name;
    EXPECT_TRUE(real_file_system().make_directory(dir));
    const SandboxConfig config{name, store_->root(), base, {}, 0, "qemu", restore};
    EXPECT_TRUE(publish_file(real_file_system(), dir / kConfigFile, to_json(config).dump()));
    STASIS_TRY(spare.client->become(dir, Milliseconds(5000)));
    spare.dir = dir;
    return {};
  }

  // `id` is what a guest was paused in that had just booted.
  void pause_booted(const std::string& name, SnapshotId& id) {
    Running booted = start(image_, name);
    ASSERT_TRUE(booted.client->state(Milliseconds(60'000)));
    await_daemon(*booted.client);
    id = SnapshotId::random();
    ASSERT_TRUE(booted.client->pause(id, Milliseconds(60'000)));
    ASSERT_TRUE(booted.process->wait(Deadline::never()));
  }

  static nlohmann::json exit_record(const Running& running) {
    std::ifstream file(running.dir / kExitFile);
    return nlohmann::json::parse(file, nullptr, false);
  }
  // Why it ends, which it does by itself.
  static ExitRecord end_of(Running& running) {
    const auto ended = running.process->wait(Deadline::after(Milliseconds(60'000)));
    EXPECT_TRUE(ended && *ended) << "it does not end";
    auto record = exit_from_json(exit_record(running));
    EXPECT_TRUE(record);
    return record ? std::move(*record) : ExitRecord{};
  }

  // One HTTP request to the guest daemon, over a socket from inside the sandbox; its first line, empty if nobody
  // answers.
  static std::string request(Client& client, const std::string& head) {
    auto socket = client.guest_socket(Milliseconds(5000));
    if (!socket) return "";
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(49983);
    ::inet_pton(AF_INET, "172.30.0.2", &address.sin_addr);
    timeval limit{2, 0};
    ::setsockopt(socket->get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    ::setsockopt(socket->get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (::connect(socket->get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return "";
    const std::string text = head + " HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n";
    if (!send_all(socket->get(), std::as_bytes(std::span(text)))) return "";
    std::string answer(4096, '\0');
    const ssize_t n = ::recv(socket->get(), answer.data(), answer.size(), 0);
    return n > 0 ? answer.substr(0, answer.find('\r')) : "";
  }

  static void await_daemon(Client& client) {
    std::string answer;
    for (int attempt = 0; attempt < 600 && answer.empty(); ++attempt) {
      answer = request(client, "GET /health");
      if (answer.empty()) std::this_thread::sleep_for(Milliseconds(50));
    }
    ASSERT_THAT(answer, HasSubstr("204"));
  }

  static snapshot::BlockMap map_of_memory(SnapshotId id) {
    return store_->read_map(id, *store_->load(id).value().memory_map).value();
  }
  static snapshot::LayerId layer_of_memory(SnapshotId id) { return map_of_memory(id).layers()[0]; }
  static uint64_t bytes_of_memory(SnapshotId id) { return snapshot::live_bytes(map_of_memory(id)); }

  static std::filesystem::perms permissions_of(const Path& path) { return std::filesystem::status(path).permissions(); }

  static bool mounted_outside() {
    std::ifstream table("/proc/self/mountinfo");
    const std::string text((std::istreambuf_iterator<char>(table)), {});
    return text.find("/run/stasis-vm") != std::string::npos;
  }

  static inline std::unique_ptr<testing::TempDir> root_;
  static inline std::unique_ptr<snapshot::Store> store_;
  static inline SnapshotId image_;
};

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

// What a restore touches is written down for three seconds. A pause within them keeps what is known by then.
TEST_F(SupervisorTest, APauseSoonAfterARestoreKeepsWhatWasTouched) {
  SnapshotId first;
  ASSERT_NO_FATAL_FAILURE(pause_booted("for-a-moment", first));

  Running restored = start(first, "moment", kRestoreUffd);
  ASSERT_TRUE(restored.client->state(Milliseconds(60'000)));
  const auto trace = restored.client->trace(Milliseconds(5'000));
  ASSERT_TRUE(trace);
  const SnapshotId second = SnapshotId::random();
  ASSERT_TRUE(restored.client->pause(second, Milliseconds(60'000)));
  ASSERT_TRUE(restored.process->wait(Deadline::never()));
  const auto guess = snapshot::load_working_set(*store_, second);
  ASSERT_TRUE(guess) << guess.error().message;
  const auto ahead = snapshot::prefetch_ranges(guess->entries, UINT64_MAX);
  size_t faults = 0;
  for (const TraceReply::Event& event : trace->events) {
    if (event.how != "fault") continue;
    ++faults;
    const std::array page{Range{event.offset, event.length}};
    EXPECT_TRUE(snapshot::subtract(page, ahead).empty()) << "page at " << event.offset;
  }
  EXPECT_GT(faults, 0U);
  EXPECT_EQ(snapshot::load_working_set(*store_, first).error().code, Code::kNotFound)
      << "less than three seconds are not what the next restore needs";
}

// Of a paused guest's snapshot: what is not mapped is told, and what is asked for is not exchanged for something else.
TEST_F(SupervisorTest, WhatIsNotKnownToBeWholeIsNotMapped) {
  SnapshotId id;
  ASSERT_NO_FATAL_FAILURE(pause_booted("unverified", id));
  const snapshot::LayerId layer = layer_of_memory(id);
  snapshot::VerifiedLayers(*store_).forget(layer);

  Running served = start(id, "served");
  ASSERT_TRUE(served.client->state(Milliseconds(60'000)));
  await_daemon(*served.client);
  const auto state = served.client->state(Milliseconds(5000));
  ASSERT_TRUE(state);
  EXPECT_EQ(state->restore_method, kRestoreUffd);
  EXPECT_THAT(state->restore_reason, HasSubstr(layer.text()));
  ASSERT_TRUE(served.client->stop("test", Milliseconds(5000)));

  Running refused = launch(id, "refused", kRestoreMapped);
  const ExitRecord record = end_of(refused);
  EXPECT_EQ(record.error.code, Code::kFailedPrecondition);
  EXPECT_THAT(record.error.message, HasSubstr(layer.text()));
}

// The memory of a paused guest that ran on for a moment: its first layer can be mapped, its second one cannot.
class PartlyMappedTest : public SupervisorTest {
 protected:
  void SetUp() override {
    SupervisorTest::SetUp();
    SnapshotId first;
    const std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    ASSERT_NO_FATAL_FAILURE(pause_booted(name + "-booted", first));
    Running restored = start(first, name + "-restored");
    ASSERT_TRUE(restored.client->state(Milliseconds(60'000)));
    await_daemon(*restored.client);
    ASSERT_TRUE(restored.client->pause(id_, Milliseconds(60'000)));
    ASSERT_TRUE(restored.process->wait(Deadline::never()));
    const auto map = map_of_memory(id_);
    const auto layers = map.layers();
    ASSERT_EQ(layers.size(), 2U);
    newer_ = layers[0] == layer_of_memory(first) ? layers[1] : layers[0];
    snapshot::VerifiedLayers(*store_).forget(newer_);
  }
  SnapshotId id_ = SnapshotId::random();
  snapshot::LayerId newer_;
};

TEST_F(PartlyMappedTest, TheRestIsServedAndTheNextSnapshotIsOfBoth) {
  Running partly = start(id_, "partly");
  ASSERT_TRUE(partly.client->state(Milliseconds(60'000)));
  await_daemon(*partly.client);
  const auto state = partly.client->state(Milliseconds(5000));
  ASSERT_TRUE(state);
  EXPECT_EQ(state->restore_method, kRestorePartly) << state->restore_reason;
  EXPECT_THAT(state->restore_reason, AllOf(HasSubstr("MiB are mapped"), HasSubstr(newer_.text())));
  const uint64_t held = bytes_of_memory(id_);
  EXPECT_GT(state->mapped_bytes, held / 2);
  EXPECT_LT(state->mapped_bytes + state->copied_bytes, held);
  EXPECT_GT(state->faults + state->pages_prefetched, 0U);
  const auto trace = partly.client->trace(Milliseconds(5000));
  ASSERT_TRUE(trace);
  EXPECT_EQ(trace->method, kRestorePartly);
  std::map<std::string, uint64_t> pages;
  for (const auto& row : trace->report.pages) pages[row.how] += row.pages;
  EXPECT_EQ(pages["mapped"] + pages["copied"], (state->mapped_bytes + state->copied_bytes) / 4096);
  EXPECT_GT(pages["fault"] + pages["prefetch"], 0U);

  const SnapshotId live = SnapshotId::random();
  ASSERT_TRUE(partly.client->snapshot(live, Milliseconds(60'000)));
  const SnapshotId last = SnapshotId::random();
  const auto paused = partly.client->pause(last, Milliseconds(60'000));
  ASSERT_TRUE(paused) << paused.error().message;
  EXPECT_LT(paused->memory.stored_bytes, held / 4);
  ASSERT_TRUE((*partly.process->wait(Deadline::never()))->success());
  for (const SnapshotId then : {live, last}) {
    Running again = start(then, "again-" + then.text(), kRestoreUffd);
    ASSERT_TRUE(again.client->state(Milliseconds(60'000)));
    await_daemon(*again.client);
    ASSERT_TRUE(again.client->stop("test", Milliseconds(5000)));
  }
}

TEST_F(PartlyMappedTest, AskedForMappedItIsNotServedInPart) {
  Running refused = launch(id_, "not-in-part", kRestoreMapped);
  const ExitRecord record = end_of(refused);
  EXPECT_EQ(record.error.code, Code::kFailedPrecondition);
  EXPECT_THAT(record.error.message, HasSubstr(newer_.text()));
}

TEST_F(PartlyMappedTest, AServedPageThatIsDamagedEndsTheSandboxWithTheReason) {
  const Path file = layer_data_path(store_->layers_dir(), newer_);
  std::filesystem::permissions(file, std::filesystem::perms(0600));
  const uint64_t size = std::filesystem::file_size(file);
  std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
  for (uint64_t at = 100; at < size; at += 65536) bytes.seekp(static_cast<std::streamoff>(at)).write("damage", 6);
  bytes.close();
  Running partly = launch(id_, "damaged-in-part", "");
  const ExitRecord record = end_of(partly);
  EXPECT_EQ(record.error.code, Code::kDataLoss);
  EXPECT_THAT(record.error.message, HasSubstr(newer_.text()));
}

TEST_F(SupervisorTest, APageOfAMappedLayerThatCannotBeReadEndsTheSandboxWithTheReason) {
  SnapshotId id;
  ASSERT_NO_FATAL_FAILURE(pause_booted("to-cut", id));
  Running mapped = start(id, "cut", kRestoreMapped);
  ASSERT_TRUE(mapped.client->state(Milliseconds(60'000)));
  const snapshot::LayerId layer = layer_of_memory(id);
  const Path file = layer_data_path(store_->layers_dir(), layer);
  std::filesystem::permissions(file, std::filesystem::perms(0600));
  std::filesystem::resize_file(file, 0);
  const ExitRecord record = end_of(mapped);
  EXPECT_EQ(record.error.code, Code::kDataLoss);
  EXPECT_THAT(record.error.message, HasSubstr("mapped layer"));
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

TEST_F(SupervisorTest, DamagedMemoryEndsTheRestoreWithTheReason) {
  SnapshotId id;
  ASSERT_NO_FATAL_FAILURE(pause_booted("to-damage", id));
  // Every frame of the memory's layer is damaged: the first fault finds it.
  const Path file = layer_data_path(store_->layers_dir(), layer_of_memory(id));
  std::filesystem::permissions(file, std::filesystem::perms(0600));
  const auto fd = real_file_system().open_write(file);
  ASSERT_TRUE(fd);
  const auto data = real_file_system().data_ranges(fd->get());
  const std::array flipped{std::byte{0x5a}, std::byte{0xa5}};
  for (const Range& range : *data) {
    for (uint64_t at = range.offset; at < range.end(); at += snapshot::kFrameSize) {
      ASSERT_TRUE(real_file_system().write_at(fd->get(), at, flipped));
    }
  }
  Running restored = start(id, "damaged");
  const ExitRecord record = end_of(restored);
  EXPECT_EQ(record.error.code, Code::kDataLoss);
  for (const std::string& named : {id.text(), file.filename().string(), std::string("frame ")}) {
    EXPECT_THAT(record.error.message, HasSubstr(named));
  }
}

}  // namespace
}  // namespace stasis::supervisor
