// Every operation on a store (testing/operations.h) is interrupted at every call to the file system, in every way: the
// call fails, once or with all that follow; or the power goes there. What is listed afterwards restores bit by bit,
// what was published is listed, the rest is swept, and the store goes on; and none of that rests on anything that a
// power cut later takes back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/testing/setting.h"
#include "snapshot/testing/operations.h"

namespace stasis::snapshot {
namespace {

using stasis::testing::FaultyFileSystem;
using stasis::testing::VolatileFileSystem;
using ::testing::HasSubstr;
using testing::Operation;
using testing::World;

using Mode = FaultyFileSystem::Mode;

struct Interruption {
  const char* name;
  int error_number;
  Mode mode;
  bool power_cut = false;  // right after the operation has ended with its error
};

// What a power cut leaves is chance: so many outcomes of each are looked at. `make torture` asks for more.
uint64_t outcomes() { return stasis::testing::setting("STASIS_POWER_CUT_OUTCOMES", 5); }

class InterruptionTest : public ::testing::TestWithParam<std::tuple<Operation, Interruption>> {
 protected:
  const Operation& operation() const { return std::get<0>(GetParam()); }
  const Interruption& interruption() const { return std::get<1>(GetParam()); }

  // Returns false once n is behind the operation's last call. The guest is the same for every n, so that each makes the
  // same calls: where its content hung on n, the loop ended at the first n behind the last call of *its* guest, and the
  // last calls of most, the sync behind a manifest among them, were never interrupted.
  bool run(uint64_t n) {
    World world(kGuest);
    world.random.seed(n);
    if (operation().run_before) operation().run_before(world);
    const auto files_before = world.store.files();
    FaultyFileSystem& faulty = world.store.faulty;
    faulty.fail_at(n, interruption().error_number, interruption().mode);
    const Status status = operation().run(world);
    const uint64_t calls = faulty.calls();
    faulty.heal();
    SCOPED_TRACE(std::string(operation().name) + ", " + interruption().name + ", seed and call " + std::to_string(n) +
                 "; " + faulty.injected());
    if (!status) {
      EXPECT_THAT(status.error().message, HasSubstr("injected"));
    }

    const auto cut = world.device().cut_power();
    for (uint64_t i = interruption().power_cut ? outcomes() : 1; i > 0 && !HasFailure(); --i) {
      SCOPED_TRACE("with " + std::to_string(i - 1) + " more outcomes to come");
      if (interruption().power_cut) world.come_back(*cut);
      if (!interruption().power_cut && interruption().mode == Mode::kFromThenOn) world.reopen();
      world.find_image();
      world.check();
      if (interruption().mode == Mode::kOnce) expect_reports_true(world, status, files_before);
      i == 1 ? go_on(world) : sweep(world);
    }
    if (!faulty.fired()) {
      EXPECT_EQ(calls, n - 1) << "calls before the last were not interrupted";
    }
    return faulty.fired();
  }

  static constexpr uint64_t kGuest = 1;

  // A failure that was reported has left nothing that is listed, whatever happens later.
  void expect_reports_true(World& world, const Status& status, const std::set<std::string>& files_before) {
    if (world.in_doubt) {
      EXPECT_EQ(world.store.healthy.load(*world.in_doubt).error().code, Code::kNotFound);
    }
    if (operation().run != testing::run_import || status) return;
    EXPECT_FALSE(world.image_found) << "a failed import is listed";
    if (!interruption().power_cut) {
      EXPECT_EQ(world.store.files(), files_before);
    }
  }

  static void sweep(World& world) {
    const auto collected = world.store.healthy.collect(std::vector<BlockMap>{});
    EXPECT_TRUE(collected) << collected.error().message;
    world.check();
    world.store.expect_nothing_else();
  }

  // The guest goes on (or another one from a snapshot): a snapshot of now is right, and everything else can be swept.
  // Nothing of that rests on what a power cut takes back.
  static void go_on(World& world) {
    const SnapshotId fourth = SnapshotId::random();
    world.expect_new(fourth);
    const Status taken = world.take(world.store.healthy, fourth);
    EXPECT_TRUE(taken) << taken.error().message;
    world.settle(taken.has_value());
    sweep(world);
    world.lose_power();
    sweep(world);
  }
};

TEST_P(InterruptionTest, WhatIsListedIsWholeAndTheRestIsSwept) {
  uint64_t n = 1;
  while (run(n) && !HasFailure()) ++n;
  EXPECT_TRUE(HasFailure() || n > operation().least_calls) << "fewer calls than it makes: nothing was interrupted";
}

INSTANTIATE_TEST_SUITE_P(
    , InterruptionTest,
    ::testing::Combine(::testing::ValuesIn(testing::operations()),
                       ::testing::Values(Interruption{"Eio", EIO, Mode::kOnce},
                                         Interruption{"Enospc", ENOSPC, Mode::kOnce},
                                         Interruption{"KilledOrDeviceGone", EIO, Mode::kFromThenOn},
                                         Interruption{"FullFromThenOn", ENOSPC, Mode::kFromThenOn},
                                         Interruption{"PowerCut", EIO, Mode::kFromThenOn, true},
                                         Interruption{"EioThenPowerCut", EIO, Mode::kOnce, true})),
    [](const auto& test) { return std::string(std::get<0>(test.param).name) + std::get<1>(test.param).name; });

// Whoever made the store was killed at any call. The next one that opens it can rely on it.
TEST(OpenInterruptionTest, AStoreThatWasHalfMadeIsDurableOnceItIsOpen) {
  bool fired = true;
  for (uint64_t n = 1; fired && !::testing::Test::HasFailure(); ++n) {
    SCOPED_TRACE("call " + std::to_string(n));
    const stasis::testing::TempDir dir;
    VolatileFileSystem device(dir.path());
    FaultyFileSystem faulty(device);
    const Path root = dir.path() / "var" / "store";
    faulty.fail_at(n, EIO, Mode::kFromThenOn);
    const auto opened = Store::open(faulty, root);
    fired = faulty.fired();
    EXPECT_EQ(opened.has_value(), !fired);
    faulty.heal();

    testing::Random random(n);
    if (fired && n % 2 == 0) device.lose_power(random);
    const Store store = Store::open(faulty, root).value();
    Manifest manifest;
    manifest.id = SnapshotId::random();
    ASSERT_TRUE(store.begin(manifest.id));
    ASSERT_TRUE(store.publish(manifest));
    device.lose_power(random);
    EXPECT_TRUE(store.load(manifest.id));
  }
}

}  // namespace
}  // namespace stasis::snapshot
