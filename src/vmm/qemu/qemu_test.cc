// The QEMU driver with programs that are no QEMU. With a real one it is checked by the contract (tests/integration).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <x86intrin.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "base/testing/temp_dir.h"
#include "vmm/contract/result_matchers.h"
#include "vmm/vmm.h"

namespace stasis::vmm {
namespace {

using ::testing::AllOf;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::Le;
using ::testing::Not;
using ::testing::StartsWith;

// A PATH on which `script` is what QEMU's name leads to.
class FakeQemu {
 public:
  explicit FakeQemu(const std::string& script) : old_(std::getenv("PATH")) {
    const Path program = directory_.path() / "qemu-system-x86_64";
    EXPECT_OK(publish_file(real_file_system(), program, "#!/bin/bash\n" + script));
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
    ::setenv("PATH", (directory_.path().string() + ":" + old_).c_str(), 1);
  }
  ~FakeQemu() { ::setenv("PATH", old_.c_str(), 1); }
  FakeQemu(const FakeQemu&) = delete;
  FakeQemu& operator=(const FakeQemu&) = delete;
  const Path& directory() const { return directory_.path(); }

  MachineConfig config() const {
    MachineConfig config;
    config.shape = {1, 128};
    config.runtime_dir = directory_.path();
    config.log = directory_.path() / "a,b.log";
    return config;
  }

 private:
  testing::TempDir directory_;
  std::string old_;
};

std::string text_of(const Path& file) {
  const auto bytes = contract::value(read_file(real_file_system(), file, 1 << 20));
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// What QEMU is started with, one argument each.
std::vector<std::string> arguments_of_a_boot(bool kvm) {
  const FakeQemu fake("printf '%s\\n' \"$@\"; exit 1");
  const MachineConfig config = fake.config();
  EXPECT_FALSE(make_qemu(config, kvm)->boot({"/kernel", {}, "quiet"}).has_value());
  std::ifstream log(config.log);
  std::vector<std::string> arguments;
  for (std::string line; std::getline(log, line);) arguments.push_back(line);
  return arguments;
}

std::string argument_after(const std::vector<std::string>& arguments, const std::string& option) {
  const auto found = std::ranges::find(arguments, option);
  return arguments.end() - found > 1 ? found[1] : "no " + option;
}

// Between which rates (kHz) the time stamp counter goes, however long this thread was interrupted meanwhile.
class CounterRate {
 public:
  double least() const { return rate(first_.after, last_.before); }
  double most() const { return rate(first_.before, last_.after); }
  void end() { last_ = Moment(); }

 private:
  struct Moment {
    uint64_t before = __rdtsc();
    std::chrono::steady_clock::time_point time = std::chrono::steady_clock::now();
    uint64_t after = __rdtsc();
  };
  double rate(uint64_t from, uint64_t to) const {
    return static_cast<double>(to - from) / std::chrono::duration<double, std::milli>(last_.time - first_.time).count();
  }
  Moment first_;
  Moment last_;
};

TEST(QemuTest, AMissingProgramIsNotFoundWithTheRemedy) {
  const std::string path = std::getenv("PATH");
  ::setenv("PATH", "/nowhere", 1);
  const auto probed = probe_qemu();
  ::setenv("PATH", path.c_str(), 1);
  ASSERT_FALSE(probed.has_value());
  EXPECT_EQ(probed.error().code, Code::kNotFound);
  EXPECT_THAT(probed.error().remedy, HasSubstr("apt-get install"));
}

TEST(QemuTest, AProgramThatEndsAtOnceIsToldWithItsStatusAndItsLog) {
  const FakeQemu fake("echo wrong option; exit 7");
  const auto qemu = make_qemu(fake.config(), false);
  const Status booted = qemu->boot({"/kernel", {}, ""});
  EXPECT_FAILS(booted, Code::kUnavailable);
  EXPECT_THAT(booted.error().message, HasSubstr("exit status 7"));
  EXPECT_THAT(booted.error().message, HasSubstr("wrong option"));
  EXPECT_THAT(booted.error().message, Not(HasSubstr("a,b.log"))) << "which goes with the sandbox's directory";
  EXPECT_EQ(text_of(fake.config().log), "wrong option\n");
  EXPECT_EQ(qemu->stop(), "exit status 7");
  EXPECT_EQ(qemu->stop(), "exit status 7");
}

TEST(QemuTest, ArgumentsAreOneWordEachAndCommasInPathsStay) {
  const FakeQemu fake("printf '%s\\n' \"$@\"; exit 1");
  MachineConfig config = fake.config();
  config.disk = "/disk,with comma";
  config.tap = "tap0";
  config.mac = "06:00:ac:1e:00:02";
  EXPECT_FALSE(make_qemu(config, false)->boot({"/the kernel", "/the initrd", "console=ttyS0 quiet"}).has_value());
  const std::string arguments = text_of(config.log);
  EXPECT_THAT(arguments, HasSubstr("\n/the kernel\n"));
  EXPECT_THAT(arguments, HasSubstr("\n/the initrd\n"));
  EXPECT_THAT(arguments, HasSubstr("\nconsole=ttyS0 quiet"));
  EXPECT_THAT(arguments, HasSubstr("a,,b.log\n"));
  EXPECT_THAT(arguments, HasSubstr("\"filename\":\"/disk,with comma\""));
  EXPECT_THAT(arguments, HasSubstr("ifname=tap0"));
  EXPECT_THAT(arguments, HasSubstr("mac=06:00:ac:1e:00:02\n"));
}

// Without it x-ignore-shared leaves nothing out: all of memory would be in the device state.
TEST(QemuTest, GuestMemoryIsAFileThatIsShared) {
  for (const bool kvm : {false, true}) {
    const std::string memory = argument_after(arguments_of_a_boot(kvm), "-object") + ",";
    EXPECT_THAT(memory, AllOf(StartsWith("memory-backend-file,id=ram,"), HasSubstr(",share=on,"),
                              HasSubstr(",mem-path=/proc/self/fd/3,")));
  }
}

TEST(QemuTest, EveryPartOfTheSandboxIsOn) {
  for (const bool kvm : {false, true}) {
    EXPECT_EQ(argument_after(arguments_of_a_boot(kvm), "-sandbox"),
              "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
  }
}

TEST(QemuTest, WithoutKvmTheGuestIsToldTheRateOfItsCounter) {
  const std::string option = "quiet tsc_early_khz=";
  CounterRate rate;
  const std::string line = argument_after(arguments_of_a_boot(false), "-append");
  rate.end();
  ASSERT_THAT(line, StartsWith(option));
  EXPECT_THAT(std::stod(line.substr(option.size())), AllOf(Ge(rate.least() * 0.98), Le(rate.most() * 1.02)));
  EXPECT_EQ(argument_after(arguments_of_a_boot(true), "-append"), "quiet");
}

TEST(QemuTest, NoProgramIsStartedForAStateThatIsMissingOrDamaged) {
  const FakeQemu fake("exit 0");
  const auto qemu = make_qemu(fake.config(), false);
  const Path state = fake.directory() / "state";
  EXPECT_FAILS(qemu->restore({state, {}, "/nobody", {}}), Code::kNotFound);
  ASSERT_OK(publish_file(real_file_system(), state, "not what QEMU saved"));
  EXPECT_FAILS(qemu->restore({state, {}, "/nobody", {}}), Code::kDataLoss);
  EXPECT_EQ(qemu->stop(), "not started");
  EXPECT_EQ(qemu->pidfd(), -1);
}

}  // namespace
}  // namespace stasis::vmm
