#include "base/host_probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "base/file_lock.h"
#include "base/process.h"
#include "base/reaper.h"
#include "base/terminal.h"

namespace stasis {
namespace {

Path own_namespace(const std::string& kind) { return std::filesystem::read_symlink("/proc/self/ns/" + kind); }

TEST(HostProbe, ProbesLeaveTheCallersNamespacesAlone) {
  const Path mounts = own_namespace("mnt");
  const Path network = own_namespace("net");
  for (const Status& outcome : {probe_mount_namespace(), probe_network_namespace(), probe_tap(), probe_fuse()}) {
    EXPECT_TRUE(outcome || !outcome.error().message.empty());
  }
  EXPECT_EQ(own_namespace("mnt"), mounts);
  EXPECT_EQ(own_namespace("net"), network);
  EXPECT_FALSE(std::filesystem::exists("/sys/class/net/stasis-probe"));
}

TEST(HostProbe, FreeSpaceOfADirectoryThatIsNotThereYetIsThatOfItsParent) {
  const auto space = free_disk_space("/tmp/not/there/yet");
  ASSERT_TRUE(space);
  EXPECT_GT(*space, 0U);
  EXPECT_GE(disk_space("/tmp/not/there/yet")->total_bytes, *space);
}

TEST(HostProbe, CgroupsWithAVersionHaveControllers) {
  const CgroupSupport support = probe_cgroups();
  EXPECT_EQ(support.version == 0, support.controllers.empty());
}

TEST(FileLock, IsExclusiveUntilItsOwnerGoes) {
  const Path path = Path(testing::TempDir()) / ("lock." + std::to_string(::getpid()));
  {
    const auto first = FileLock::try_exclusive(path);
    ASSERT_TRUE(first);
    const auto second = FileLock::try_exclusive(path);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, Code::kFailedPrecondition);
  }
  EXPECT_TRUE(FileLock::try_exclusive(path));
  std::filesystem::remove(path);
}

TEST(Reaper, ReapsOrphansAndLeavesOwnChildren) {
  ASSERT_TRUE(become_subreaper());
  SpawnOptions own;
  own.argv = {"/bin/true"};
  auto child = spawn(own);
  ASSERT_TRUE(child);
  // A shell that leaves a child behind: it becomes ours.
  SpawnOptions options;
  options.argv = {"/bin/sh", "-c", "/bin/sleep 0.2 & exit 0"};
  auto shell = spawn(options);
  ASSERT_TRUE(shell);
  ASSERT_TRUE(*shell->wait(Deadline::after(std::chrono::seconds(10))));
  ASSERT_TRUE(wait_readable(child->pidfd(), Deadline::after(std::chrono::seconds(10))).value());

  const std::vector<pid_t> mine = {child->pid()};
  EXPECT_THAT(reap_orphans(mine), testing::Not(testing::Contains(child->pid())));
  const auto status = child->wait(Deadline::after(std::chrono::seconds(10)));
  ASSERT_TRUE(status && *status);
  EXPECT_TRUE((*status)->success());

  siginfo_t info{};
  ASSERT_EQ(::waitid(P_ALL, 0, &info, WEXITED | WNOWAIT), 0);  // the orphan has exited
  EXPECT_THAT(reap_orphans({}), testing::ElementsAre(info.si_pid));
  EXPECT_TRUE(reap_orphans({}).empty());
}

TEST(Terminal, TellsPipesFromDevices) {
  std::array<int, 2> fds{};
  ASSERT_EQ(::pipe(fds.data()), 0);
  const UniqueFd read_end(fds[0]);
  const UniqueFd write_end(fds[1]);
  EXPECT_EQ(input_kind(read_end.get()), InputKind::kData);
  EXPECT_FALSE(is_terminal(read_end.get()));
  EXPECT_EQ(input_kind(-1), InputKind::kNothing);
}

}  // namespace
}  // namespace stasis
