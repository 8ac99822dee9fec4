// Sandboxes of which the VMM or the supervisor (whose thread the page server is) is killed with SIGKILL at a random
// time of a restore or after it, in both ways of restoring. The supervisor is the real one, its VMM Firecracker's
// double, and the guest reads its memory meanwhile. Nothing hangs, nothing is read that was not there, nothing stays
// behind, and why the sandbox ended is in its record. And of which the VMM fails to stop or to go on: the guest goes
// on, or the sandbox ends.
//   STASIS_TORTURE_KILLS=N (default 200) STASIS_TORTURE_SEED=S
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <thread>

#include "base/process.h"
#include "base/testing/setting.h"
#include "base/testing/temp_dir.h"
#include "snapshot/store.h"
#include "snapshot/verified.h"
#include "supervisor/client.h"
#include "vmm/contract/firecracker_fixture.h"
#include "vmm/contract/serial_guest.h"

namespace stasis::supervisor {
namespace {

using snapshot::SnapshotId;
using stasis::testing::setting;
using ::testing::HasSubstr;
using ::testing::Not;
using vmm::contract::SerialGuest;
using vmm::contract::test_program;

constexpr uint32_t kMemoryMib = 32;
constexpr uint64_t kFill = 7;
constexpr Range kFilled{0, 8 << 20};
constexpr uint64_t kPiece = 64 << 10;  // checked by the guest at once
constexpr Milliseconds kPatience{20'000};

std::string text_of(const Path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<std::string> entries_of(const Path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) names.push_back(entry.path().filename());
  return names;
}

enum class Victim { kVmm, kSupervisor };

// One sandbox, as an agent would start it. Its VMM is started by a script that tells its process and gives it the
// console of this directory as standard input.
struct Sandboxed {
  Path dir;
  std::unique_ptr<SerialGuest> guest;
  std::optional<Process> supervisor;

  pid_t vmm() const {
    pid_t pid = 0;
    std::ifstream(dir / "vmm.pid") >> pid;
    return pid;
  }
  Result<ExitRecord> record() const {
    return exit_from_json(nlohmann::json::parse(text_of(dir / kExitFile), nullptr, false));
  }
  // Processes that were started for it and still are.
  std::vector<std::string> processes() const {
    const std::string mark = "STASIS_TEST_DIR=" + dir.string() + '\0';
    std::vector<std::string> found;
    for (const std::string& pid : entries_of("/proc")) {
      const Path process = Path("/proc") / pid;
      if (text_of(process / "environ").find(mark) != std::string::npos)
        found.push_back(pid + " " + text_of(process / "comm"));
    }
    return found;
  }
};

class DeathTest : public ::testing::Test {
 protected:
  void SetUp() override {
    write(root_.path() / "vmm", "#!/bin/sh\n[ \"$1\" = --version ] || echo $$ > \"$STASIS_TEST_DIR/vmm.pid\"\nexec '" +
                                    test_program("fake-firecracker").string() +
                                    "' \"$@\" <> \"$STASIS_TEST_DIR/console\"\n");
    ASSERT_EQ(::chmod((root_.path() / "vmm").c_str(), 0700), 0);
    auto store = snapshot::Store::open(real_file_system(), root_.path() / "store");
    ASSERT_TRUE(store) << store.error().message;
    store_.emplace(std::move(*store));
    write(root_.path() / "initrd", "nothing");
    write(root_.path() / "disk", std::string(1 << 20, 'd'));
    const auto image = snapshot::import_image(
        *store_, {test_program("tiny-guest"), root_.path() / "initrd", root_.path() / "disk", "test"});
    ASSERT_TRUE(image) << image.error().message;
    image_ = image->id;
    make_snapshot(image_);
  }

  static void write(const Path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

  Sandboxed launch(SnapshotId base, const std::string& restore, const char* misbehaviour = "") {
    const std::string name = "sandbox" + std::to_string(++sandboxes_);
    Sandboxed sandbox{.dir = root_.path() / name, .guest = {}, .supervisor = {}};
    EXPECT_TRUE(real_file_system().make_directory(sandbox.dir));
    sandbox.guest = SerialGuest::create(sandbox.dir, sandbox.dir / "vmm.log", uint64_t{kMemoryMib} << 20).value();
    const SandboxConfig config{name, store_->root(), base, {1, kMemoryMib}, 0, "firecracker", restore};
    write(sandbox.dir / kConfigFile, to_json(config).dump());
    SpawnOptions options;
    options.argv = {test_program("stasis-supervisor").string(), "--sandbox-dir", sandbox.dir.string()};
    options.env = {{"STASIS_FIRECRACKER", (root_.path() / "vmm").string()},
                   {"STASIS_TEST_DIR", sandbox.dir.string()},
                   {"FAKE_FIRECRACKER_MISBEHAVE", misbehaviour}};
    auto process = spawn(options);
    EXPECT_TRUE(process) << process.error().message;
    sandbox.supervisor = std::move(*process);
    return sandbox;
  }

  std::unique_ptr<Client> connect(const Sandboxed& sandbox) {
    for (const Deadline deadline = Deadline::after(kPatience); !deadline.passed();) {
      if (auto client = Client::connect(sandbox.dir)) return std::move(*client);
      std::this_thread::yield();
    }
    return nullptr;
  }

  // Of a guest that has filled a part of its memory.
  void make_snapshot(SnapshotId image) {
    Sandboxed booted = launch(image, "");
    const auto client = connect(booted);
    ASSERT_TRUE(client);
    const auto state = client->state(kPatience);
    ASSERT_TRUE(state) << state.error().message << text_of(booted.dir / kExitFile);
    ASSERT_TRUE(booted.guest->fill(kFilled, kFill));
    base_ = SnapshotId::random();
    const auto paused = client->pause(base_, kPatience);
    ASSERT_TRUE(paused) << paused.error().message;
    ASSERT_TRUE(booted.supervisor->wait(Deadline::after(kPatience)).value());
  }

  // The guest reads what it had filled, piece by piece, until it has all or `over`, when nobody may answer any more.
  // True: all.
  static bool read_all(Sandboxed& sandbox, const std::atomic<bool>& over) {
    sandbox.guest->set_patience(Milliseconds(50));
    const Deadline deadline = Deadline::after(kPatience);
    for (uint64_t at = 0; at < kFilled.length && !deadline.passed();) {
      const Range piece{at, kPiece};
      const auto sum = sandbox.guest->checksum(piece);
      if (!sum && over) return false;
      if (!sum) continue;  // it may not run yet
      EXPECT_EQ(*sum, SerialGuest::checksum_of_fill(piece, kFill)) << "at " << at;
      at += kPiece;
    }
    return !deadline.passed();
  }

  void kill(Sandboxed& sandbox, Victim victim) {
    if (victim == Victim::kSupervisor) return sandbox.supervisor->signal(SIGKILL);
    const Deadline deadline = Deadline::after(kPatience);
    while (sandbox.vmm() == 0 && !deadline.passed()) std::this_thread::yield();
    const auto vmm = open_pidfd(sandbox.vmm());
    if (vmm) signal_pidfd(vmm->get(), SIGKILL);
  }

  void expect_ended(Sandboxed& sandbox, Victim victim) {
    const auto status = sandbox.supervisor->wait(Deadline::after(kPatience));
    ASSERT_TRUE(status && *status) << "the supervisor hangs";
    const auto record = sandbox.record();
    if (victim == Victim::kSupervisor) {
      EXPECT_EQ((*status)->signal, SIGKILL);
    } else {
      ASSERT_TRUE(record) << "no record";
      EXPECT_FALSE(record->expected);
      EXPECT_FALSE(record->error.message.empty());
      reasons_[record->error.message.substr(0, record->error.message.find(';'))]++;
    }
    const Deadline deadline = Deadline::after(kPatience);
    while (!sandbox.processes().empty() && !deadline.passed()) std::this_thread::yield();
    EXPECT_THAT(sandbox.processes(), ::testing::IsEmpty());
    EXPECT_THAT(text_of("/proc/self/mountinfo"), Not(HasSubstr("/run/stasis-vm")));
    EXPECT_THAT(text_of("/proc/net/unix"), Not(HasSubstr(sandbox.dir.string())));
  }

  // Until the guest has read everything, from the start of its supervisor.
  Milliseconds time_of(const std::string& restore) {
    const auto start = std::chrono::steady_clock::now();
    Sandboxed sandbox = launch(base_, restore);
    EXPECT_TRUE(read_all(sandbox, false)) << text_of(sandbox.dir / kExitFile);
    const auto time = std::chrono::steady_clock::now() - start;
    const auto client = connect(sandbox);
    EXPECT_TRUE(client && client->stop("test", kPatience));
    EXPECT_TRUE(sandbox.supervisor->wait(Deadline::after(kPatience)).value());
    EXPECT_EQ(sandbox.record()->reason, "stopped: test");
    return std::chrono::duration_cast<Milliseconds>(time);
  }

  // True: the guest was done before.
  bool die(const std::string& restore, Victim victim, std::chrono::microseconds moment) {
    const size_t descriptors = entries_of("/proc/self/fd").size();
    bool done = false;
    {
      Sandboxed sandbox = launch(base_, restore);
      std::atomic<bool> over{false};
      std::thread reader([&] { done = read_all(sandbox, over); });
      std::this_thread::sleep_for(moment);  // the time is what is tried out
      kill(sandbox, victim);
      over = true;
      reader.join();
      expect_ended(sandbox, victim);
      if (victim == Victim::kVmm) {
        EXPECT_THAT(sandbox.record().value().error.message, HasSubstr("signal 9"));
      }
      std::filesystem::remove_all(sandbox.dir);
    }
    EXPECT_EQ(entries_of("/proc/self/fd").size(), descriptors);
    return done;
  }

  stasis::testing::TempDir root_;
  std::optional<snapshot::Store> store_;
  SnapshotId image_;
  SnapshotId base_;
  int sandboxes_ = 0;
  std::map<std::string, int> reasons_;
};

TEST_F(DeathTest, ASandboxThatLosesAPartAtAnyTimeEndsWithTheReasonAndLeavesNothing) {
  const uint64_t kills = setting("STASIS_TORTURE_KILLS", 200);
  const uint64_t seed = setting("STASIS_TORTURE_SEED", 1);
  std::mt19937_64 random(seed);
  const std::map<std::string, Milliseconds> times{{kRestoreUffd, time_of(kRestoreUffd)},
                                                  {kRestoreMapped, time_of(kRestoreMapped)}};
  int whole = 0;
  for (uint64_t i = 0; i < kills && !HasFailure(); ++i) {
    const char* way = i % 2 == 0 ? kRestoreUffd : kRestoreMapped;
    const Victim victim = i / 2 % 2 == 0 ? Victim::kVmm : Victim::kSupervisor;
    const std::chrono::microseconds moment(random() % (times.at(way).count() * 1200));
    SCOPED_TRACE("seed " + std::to_string(seed) + ", kill " + std::to_string(i + 1) + " (" + way + ", " +
                 (victim == Victim::kVmm ? "VMM" : "supervisor") + " after " + std::to_string(moment.count()) + " us)");
    whole += die(way, victim, moment) ? 1 : 0;
  }
  for (const auto& [reason, count] : reasons_) std::fprintf(stderr, "%4d  %s\n", count, reason.c_str());
  std::fprintf(stderr, "%4d  guests had read everything before\n", whole);
  // What is left of all of them restores as if nothing had been.
  for (const char* way : {kRestoreUffd, kRestoreMapped}) (void)time_of(way);
}

// Its vCPUs stand, and nobody has been told so.
TEST_F(DeathTest, AGuestThatStopsThoughItsPauseFailedGoesOn) {
  Sandboxed sandbox = launch(base_, kRestoreUffd, "late_pause");
  const auto client = connect(sandbox);
  ASSERT_TRUE(client);
  for (const bool keep_running : {true, false}) {
    ASSERT_TRUE(sandbox.guest->count());
    const auto id = SnapshotId::random();
    const auto taken = keep_running ? client->snapshot(id, kPatience) : client->pause(id, kPatience);
    ASSERT_FALSE(taken);
    EXPECT_THAT(taken.error().message, HasSubstr("stop the guest"));
    EXPECT_TRUE(sandbox.guest->count()) << "it stands still";
  }
  EXPECT_TRUE(client->stop("test", kPatience));
  EXPECT_TRUE(sandbox.supervisor->wait(Deadline::after(kPatience)).value());
}

TEST_F(DeathTest, AGuestThatCannotGoOnEndsWithTheReason) {
  Sandboxed sandbox = launch(image_, "", "stands_still");
  const auto client = connect(sandbox);
  ASSERT_TRUE(client);
  ASSERT_TRUE(sandbox.guest->count());
  ASSERT_FALSE(client->snapshot(SnapshotId::random(), kPatience));
  expect_ended(sandbox, Victim::kVmm);
  ASSERT_TRUE(sandbox.record());
  EXPECT_THAT(sandbox.record()->reason, HasSubstr("let the guest go on: "));
}

// Where the VMM is killed for it, and where it exits. The next one reads and checks every frame.
TEST_F(DeathTest, AMappedPageThatCannotBeReadDuringARestoreEndsItAsDamage) {
  const snapshot::LayerId layer = store_->read_map(base_, *store_->load(base_).value().memory_map).value().layers()[0];
  const snapshot::VerifiedLayers verified(*store_);
  for (const char* how : {"bus_error", "bus_error,exits_on_sigbus"}) {
    verified.note_written(layer);
    Sandboxed sandbox = launch(base_, kRestoreMapped, how);
    ASSERT_TRUE(sandbox.supervisor->wait(Deadline::after(kPatience)).value());
    ASSERT_TRUE(sandbox.record());
    EXPECT_EQ(sandbox.record()->error.code, Code::kDataLoss);
    EXPECT_THAT(sandbox.record()->reason, HasSubstr("mapped layer"));
    EXPECT_FALSE(verified.holds(layer)) << how;
  }
}

}  // namespace
}  // namespace stasis::supervisor
