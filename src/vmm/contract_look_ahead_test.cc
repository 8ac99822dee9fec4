// Memory that is copied ahead, while the guest runs: what the looks and the save tell is all that was written.
#include <algorithm>
#include <span>
#include <vector>

#include "snapshot/ranges.h"
#include "vmm/contract/suite.h"

namespace stasis::vmm::contract {
namespace {

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

}  // namespace
}  // namespace stasis::vmm::contract
