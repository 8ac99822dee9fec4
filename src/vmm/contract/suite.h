// The fixture of the contract suite's test files: machines that are booted, saved and restored in a directory of their
// own, on the driver and in the way that the case is instantiated with.
#pragma once

#include <gtest/gtest.h>

#include "base/poll.h"
#include "vmm/contract/lab.h"
#include "vmm/contract/result_matchers.h"

namespace stasis::vmm::contract {

constexpr Range pages(uint64_t first, uint64_t count) { return {first * 4096, count * 4096}; }

// Big enough to be in many frames, with neighbours that are not touched.
constexpr Range kFilled = pages(16, 200);

class Contract : public ::testing::TestWithParam<Driver> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(real_file_system().make_directory(directory_.path() / "fixture").has_value());
    auto made = GetParam().make(directory_.path() / "fixture");
    ASSERT_OK(made);
    fixture_ = std::move(*made);
    lab_ = std::make_unique<Lab>(*fixture_, directory_.path(), GetParam().way, GetParam().prepared);
  }

  Machine booted() {
    auto machine = fixture_->make_machine();
    EXPECT_OK(machine);
    EXPECT_OK(machine->vmm->boot(fixture_->boot_spec()));
    return std::move(*machine);
  }
  // A machine that was told to fill its arena, and its snapshot; the machine is gone.
  Snapshot filled_snapshot(uint64_t seed) {
    Machine machine = booted();
    EXPECT_OK(machine.guest->count());
    EXPECT_OK(machine.guest->fill(kFilled, seed));
    filled_sum_ = value(machine.guest->checksum(kFilled));
    EXPECT_OK(machine.vmm->pause());
    auto taken = lab_->take(*machine.vmm, lab_->nothing());
    EXPECT_OK(taken);
    return std::move(*taken);
  }
  Restored restored(const Snapshot& snapshot) {
    auto restored = lab_->restore(snapshot);
    EXPECT_OK(restored);
    EXPECT_OK(restored->status);
    return std::move(*restored);
  }
  Restored resumed(const Snapshot& snapshot) {
    Restored machine = restored(snapshot);
    EXPECT_OK(machine.vmm().resume());
    return machine;
  }
  Snapshot paused_snapshot(Restored& machine, const snapshot::BlockMap& parent) {
    EXPECT_OK(machine.vmm().pause());
    const std::vector<Range> removed = machine.take_removed();
    auto taken = lab_->take(machine.vmm(), parent, removed);
    EXPECT_OK(taken);
    return std::move(*taken);
  }
  bool mapped() const { return GetParam().way == Way::kMapped; }
  // Stored, beyond what the test itself changed.
  void expect_stored(const Snapshot& snapshot, uint64_t blocks) const {
    EXPECT_GE(snapshot.blocks_stored, blocks);
    EXPECT_LE(snapshot.blocks_stored, blocks + fixture_->noise_blocks());
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Fixture> fixture_;
  std::unique_ptr<Lab> lab_;
  uint64_t filled_sum_ = 0;
};

// What holds in each way of restoring. Its cases are in several files; contract_restore_test.cc instantiates it.
class Restoring : public Contract {};

// No process, or one that has exited.
inline bool ended(const Vmm& vmm) {
  return vmm.pidfd() < 0 || value(wait_readable(vmm.pidfd(), Deadline::after(Milliseconds(0))));
}

// Each of them, restoring by mapping; and each of them twice.
inline std::vector<Driver> drivers_mapped() {
  std::vector<Driver> list = drivers();
  for (Driver& driver : list) {
    driver.name += "Mapped";
    driver.way = Way::kMapped;
  }
  return list;
}

inline std::vector<Driver> drivers_both_ways() {
  std::vector<Driver> list = drivers();
  for (Driver& driver : drivers_mapped()) list.push_back(std::move(driver));
  return list;
}

// And those once more that can map a part of the memory.
inline std::vector<Driver> drivers_all_ways() {
  std::vector<Driver> list = drivers_both_ways();
  for (Driver& driver : drivers()) {
    if (!driver.maps_parts) continue;
    driver.name += "Partly";
    driver.way = Way::kPartly;
    list.push_back(std::move(driver));
  }
  return list;
}

// And mapped once more, by machines that have been prepared. (Whether a machine has been prepared and how it gets its
// memory have nothing to do with each other.)
inline std::vector<Driver> drivers_all_ways_and_prepared() {
  std::vector<Driver> list = drivers_all_ways();
  for (Driver& driver : drivers_mapped()) {
    driver.name += "Prepared";
    driver.prepared = true;
    list.push_back(std::move(driver));
  }
  return list;
}

inline std::string driver_name(const ::testing::TestParamInfo<Driver>& info) { return info.param.name; }

}  // namespace stasis::vmm::contract
