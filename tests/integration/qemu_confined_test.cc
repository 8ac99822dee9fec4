// What of QEMU only a real one shows.
#include <fstream>
#include <limits>
#include <string>

#include "vmm/contract/suite.h"

namespace stasis::vmm::contract {
namespace {

class QemuConfined : public Contract {};

// "2": a filter (proc(5)). Of a QEMU that was built without, the option would be refused.
std::string seccomp_of(pid_t process) {
  std::ifstream status("/proc/" + std::to_string(process) + "/status");
  for (std::string word; status >> word;) {
    if (word == "Seccomp:" && status >> word) return word;
    status.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return "no line of /proc/PID/status";
}

TEST_P(QemuConfined, ItsSystemCallsAreFilteredHoweverItWasStarted) {
  Machine machine = booted();
  EXPECT_EQ(seccomp_of(machine.vmm->pid()), "2");
  EXPECT_OK(machine.guest->count());
  ASSERT_OK(machine.vmm->pause());
  const Snapshot first = value(lab_->take(*machine.vmm, lab_->nothing()));
  machine.vmm->stop();
  Restored later = resumed(first);
  EXPECT_EQ(seccomp_of(later.vmm().pid()), "2");
  EXPECT_EQ(value(later.guest().count()), 2u);
}

INSTANTIATE_TEST_SUITE_P(Drivers, QemuConfined, testing::ValuesIn(drivers_both_ways()), driver_name);

}  // namespace
}  // namespace stasis::vmm::contract
