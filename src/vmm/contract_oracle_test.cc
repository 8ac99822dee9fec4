// The oracle of captures: whatever a guest does, and however it was restored (also from a snapshot that was compacted),
// looked at, saved, saved in vain and paged out by its host, the snapshot that is made of the base and of all the
// differences since is the whole memory of the stopped machine, byte by byte, and each difference stores what has
// changed and nothing else. The memory is read out of the VMM's process, past the dirty tracking that the capture
// believes. On a kernel that does not tell what was written (the programs *_older_kernel_test) the same holds, but
// nobody looks ahead. STASIS_ORACLE_STEPS and STASIS_ORACLE_SEED make it long (make torture).
#include <array>
#include <cstring>
#include <random>

#include "base/pagemap.h"
#include "base/testing/page_out.h"
#include "base/testing/setting.h"
#include "vmm/contract/suite.h"

namespace stasis::vmm::contract {
namespace {

using stasis::testing::setting;

class Oracle : public Contract {
 protected:
  void SetUp() override {
    Contract::SetUp();
    const uint64_t seed = setting("STASIS_ORACLE_SEED", 1);
    dice_.seed(seed);
    std::cout << "seed " << seed << '\n';
  }

  uint64_t roll(uint64_t sides) { return std::uniform_int_distribution<uint64_t>(0, sides - 1)(dice_); }

  Range some_pages() {
    const uint64_t all = std::min<uint64_t>(machine_.guest().arena_bytes() / 4096, 1024);
    const uint64_t first = roll(all);
    return pages(first, 1 + roll(std::min<uint64_t>(64, all - first)));
  }

  void let_the_guest_act() {
    GuestControl& guest = machine_.guest();
    const Range range = some_pages();
    switch (roll(7)) {
      case 0:
      case 1:
        EXPECT_OK(guest.fill(range, 1 + roll(1000)));
        break;
      case 2:
        EXPECT_OK(guest.zero(range));
        break;
      case 3:
        EXPECT_OK(guest.rewrite(range));
        break;
      case 4:
        EXPECT_OK(guest.checksum(range));
        break;
      case 5:
        EXPECT_OK(guest.churn(roll(1U << 31)));
        break;
      default:
        give_back(range);
    }
  }

  // A mapped page that is given back is the layer's again, so no VMM gives one back.
  void give_back(Range range) {
    if (GetParam().way != Way::kUffd) return;
    const Status given = machine_.guest().give_back(range);
    if (!given) {
      EXPECT_EQ(given.error().code, Code::kUnimplemented) << given.error().message;
    }
  }

  void look_ahead() {
    const auto ahead = machine_.vmm().look_ahead();
    if (!ahead) {
      EXPECT_EQ(ahead.error().code, Code::kUnimplemented) << ahead.error().message;
    } else {
      EXPECT_TRUE(kernel_tells_written_pages()) << "who has told it?";
    }
  }

  void save_in_vain() {
    EXPECT_OK(machine_.vmm().pause());
    Path lost;
    EXPECT_OK(lab_->save(machine_.vmm(), lost));
    machine_.vmm().save_failed();
    EXPECT_OK(machine_.vmm().resume());
  }

  void live() {
    for (uint64_t i = 1 + roll(6); i > 0; --i) {
      let_the_guest_act();
      if (roll(4) == 0) look_ahead();
      if (roll(12) == 0) save_in_vain();
      if (roll(6) == 0) stasis::testing::page_out(machine_.vmm().pid());
    }
  }

  // Pauses, captures, and compares.
  void capture_and_compare() {
    EXPECT_OK(machine_.vmm().pause());
    const std::vector<Range> removed = machine_.take_removed();
    Path state;
    const auto saved = lab_->save(machine_.vmm(), state);
    ASSERT_OK(saved);
    auto taken = lab_->capture(state, *saved, last_.memory, removed);
    ASSERT_OK(taken);
    last_ = std::move(*taken);
    const auto truth = lab_->memory_of(machine_, *saved);
    ASSERT_OK(truth);
    auto stored = lab_->content(last_.memory, {0, fixture_->memory_bytes()});
    ASSERT_OK(stored);
    expect_equal(*truth, *stored);
    EXPECT_EQ(last_.blocks_stored, changed_to_data(*truth)) << "what has not changed is not stored";
    before_ = std::move(*stored);
  }

  // Pages that are not what they were at the last capture, and not zeros.
  uint64_t changed_to_data(std::span<const std::byte> now) const {
    static constexpr std::array<std::byte, 4096> kZeros{};
    uint64_t changed = 0;
    for (size_t at = 0; at < now.size(); at += 4096) {
      if (std::memcmp(&now[at], &before_[at], 4096) != 0 && std::memcmp(&now[at], kZeros.data(), 4096) != 0) ++changed;
    }
    return changed;
  }

  static void expect_equal(std::span<const std::byte> truth, std::span<const std::byte> stored) {
    ASSERT_EQ(truth.size(), stored.size());
    uint64_t different = 0;
    for (size_t at = 0; at < truth.size(); at += 4096) {
      if (std::memcmp(&truth[at], &stored[at], 4096) == 0) continue;
      if (++different == 1) ADD_FAILURE() << "the page at " << at << " is not what the machine has";
    }
    EXPECT_EQ(different, 0u);
  }

  std::mt19937_64 dice_;
  Restored machine_;
  Snapshot last_;
  std::vector<std::byte> before_;  // its memory
};

TEST_P(Oracle, BaseAndDifferencesAreTheWholeMemory) {
  last_ = filled_snapshot(7);
  ASSERT_OK(lab_->compact(last_));
  before_ = value(lab_->content(last_.memory, {0, fixture_->memory_bytes()}));
  machine_ = resumed(last_);
  const uint64_t steps = setting("STASIS_ORACLE_STEPS", 8);
  for (uint64_t step = 0; step < steps && !HasFailure(); ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    live();
    ASSERT_NO_FATAL_FAILURE(capture_and_compare());
    if (roll(2) == 0) {
      EXPECT_OK(machine_.vmm().resume());
    } else {
      if (roll(2) == 0) {
        ASSERT_OK(lab_->compact(last_));
      }
      machine_ = resumed(last_);
    }
  }
  EXPECT_EQ(machine_.page_failure(), std::nullopt);
}

INSTANTIATE_TEST_SUITE_P(Drivers, Oracle, ::testing::ValuesIn(drivers_all_ways()), driver_name);

}  // namespace
}  // namespace stasis::vmm::contract
