// Sandboxes on an older kernel, which does not tell what a guest writes: their supervisor and VMM are really on one
// (base/testing/older_kernel.h). A snapshot of a guest that goes on is then copied while it stands still, which is
// told.
#include <algorithm>
#include <map>

#include "base/userfaultfd.h"
#include "snapshot/verified.h"
#include "tests/integration/linux_guest.h"
#include "tests/integration/supervisor_fixture.h"
#include "vmm/contract/result_matchers.h"

namespace stasis::supervisor {
namespace {

using vmm::contract::value;

constexpr Range kFilled{64 << 10, 4 << 20};

class OlderKernelTest : public SupervisorTest {
 protected:
  static std::string text_of(const Path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  static std::unique_ptr<vmm::contract::LinuxGuest> guest_of(const Running& running) {
    return std::make_unique<vmm::contract::LinuxGuest>(
        [&client = *running.client](Transport transport) { return client.guest_socket(transport, Milliseconds(5000)); },
        text_of(required("STASIS_ARENA")));
  }

  // Starts a sandbox on `base`, which has filled memory with `before` if that is not 0, and takes a snapshot of it
  // while it goes on writing.
  SnapshotId snapshot_of_one_that_goes_on(SnapshotId base, uint64_t before, uint64_t now, const std::string& way) {
    const std::string name = "sandbox-" + std::to_string(now);
    Running running = start(base, name, way == kRestorePartly ? "" : way);
    const auto guest = guest_of(running);
    if (before != 0) expect_filled(*guest, before);
    const auto state = running.client->state(Milliseconds(60'000));
    EXPECT_TRUE(state);
    EXPECT_EQ(state->restore_method, way) << state->restore_reason;
    EXPECT_TRUE(guest->fill(kFilled, now));
    sums_[now] = value(guest->checksum(kFilled));
    const SnapshotId id = SnapshotId::random();
    const auto taken = running.client->snapshot(id, Milliseconds(60'000));
    EXPECT_TRUE(taken) << taken.error().message;
    expect_copied_while_it_stood(*taken);
    EXPECT_TRUE(before == 0 || taken->memory.stored_bytes < bytes_of_memory(id) / 2) << "only what has changed";
    EXPECT_TRUE(guest->fill(kFilled, now + 1000)) << "it goes on";
    EXPECT_TRUE(running.client->stop("test", Milliseconds(5000)));
    return id;
  }

  static void expect_copied_while_it_stood(const SnapshotReply& taken) {
    ASSERT_TRUE(taken.live);
    EXPECT_EQ(taken.live->rounds, 0U);
    EXPECT_THAT(taken.live->reason, HasSubstr("writes while it runs"));
    EXPECT_EQ(taken.live->last_round_bytes, taken.memory.compared_bytes) << "all of it, at the stop";
    EXPECT_GE(taken.memory.stored_bytes, kFilled.length);
  }

  void expect_filled(vmm::contract::LinuxGuest& guest, uint64_t seed) {
    EXPECT_EQ(value(guest.checksum(kFilled)), sums_[seed]);
  }

  static snapshot::LayerId newest_layer(SnapshotId id, SnapshotId parent) {
    const snapshot::BlockMap map = map_of_memory(id);
    const snapshot::BlockMap before = map_of_memory(parent);
    const auto is_new = [&](snapshot::LayerId layer) { return std::ranges::count(before.layers(), layer) == 0; };
    return *std::ranges::find_if(map.layers(), is_new);
  }

  std::map<uint64_t, uint64_t> sums_;  // by seed
};

TEST_F(OlderKernelTest, AGuestIsStoppedForItsLiveSnapshotAndRestoredFromIt) {
  ASSERT_FALSE(probe_userfaultfd().write_protect_async) << "this kernel is none";
  const SnapshotId booted = snapshot_of_one_that_goes_on(image_, 0, 1, "");
  const SnapshotId served = snapshot_of_one_that_goes_on(booted, 1, 2, kRestoreUffd);
  const SnapshotId mapped = snapshot_of_one_that_goes_on(served, 2, 3, kRestoreMapped);
  snapshot::VerifiedLayers(*store_).forget(newest_layer(mapped, served));  // cannot be mapped any more
  const SnapshotId partly = snapshot_of_one_that_goes_on(mapped, 3, 4, kRestorePartly);
  // By a spare, whose log is a file.
  Running last = start_spare("spare", store_->read_map(partly, *store_->load(partly).value().disk_map).value().size());
  ASSERT_TRUE(become(last, partly, "last", ""));
  expect_filled(*guest_of(last), 4);
  EXPECT_THAT(text_of(last.dir / kSupervisorLog), HasSubstr("this kernel does not tell what the guest writes"));
  EXPECT_TRUE(last.client->stop("test", Milliseconds(5000)));
}

// It looks at the machine itself: whether all else is there does not matter here.
TEST_F(OlderKernelTest, TheDoctorSaysWhatItCosts) {
  const Path said = root_->path() / "doctor";
  const UniqueFd file = real_file_system().create(said).value();
  SpawnOptions options;
  options.argv = {required("STASIS_BIN") + "/stasis", "doctor"};
  options.stdout_fd = file.get();
  ASSERT_TRUE(spawn(options).value().wait(Deadline::never()));
  EXPECT_THAT(text_of(said),
              ::testing::AllOf(HasSubstr("not told by this kernel"), HasSubstr("run Linux 6.9 or newer")));
}

}  // namespace
}  // namespace stasis::supervisor
