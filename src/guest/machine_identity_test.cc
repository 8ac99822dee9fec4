#include "guest/machine_identity.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "guest/small_files.h"
#include "guest/test_directory.h"

namespace stasis::guest {
namespace {

TEST(MachineIdentity, NamesAndIdsAreChecked) {
  EXPECT_TRUE(valid_hostname("sandbox-1a"));
  for (const char* name : {"", "-a", ".a", "a b", "a\n", "a/b"}) EXPECT_FALSE(valid_hostname(name)) << name;
  EXPECT_FALSE(valid_hostname(std::string(64, 'a')));
  EXPECT_TRUE(valid_machine_id("0123456789abcdef0123456789abcdef"));
  for (const char* id : {"", "0123456789ABCDEF0123456789abcdef", "0123456789abcdef0123456789abcde"})
    EXPECT_FALSE(valid_machine_id(id)) << id;
}

TEST(MachineIdentity, TheClockIsCorrectedOutsideItsTolerance) {
  constexpr int64_t kHost = 1'795'559'465'000'000'000;
  constexpr int64_t kMs = 1'000'000;
  EXPECT_FALSE(clock_is_off(kHost, kHost));
  EXPECT_FALSE(clock_is_off(kHost - 50 * kMs, kHost));
  EXPECT_TRUE(clock_is_off(kHost - 51 * kMs, kHost));
  EXPECT_FALSE(clock_is_off(kHost + 5000 * kMs, kHost));
  EXPECT_TRUE(clock_is_off(kHost + 5001 * kMs, kHost));
}

TEST(MachineIdentity, FilesAreReplaced) {
  TestDirectory directory;
  directory.write("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 old\n10.0.0.1 other\n");
  directory.write("run/keep", "");
  const MachineScope scope{directory.path(), false};
  ASSERT_TRUE(set_hostname(scope, "clone-1"));
  ASSERT_TRUE(set_machine_id(scope, "0123456789abcdef0123456789abcdef"));
  ASSERT_TRUE(write_run_file(scope, "E2B_SANDBOX_ID", "abc"));
  ASSERT_TRUE(write_run_file(scope, "E2B_SANDBOX_ID", "def"));
  EXPECT_EQ(directory.read("etc/hostname"), "clone-1\n");
  EXPECT_EQ(directory.read("etc/hosts"), "127.0.0.1 localhost\n10.0.0.1 other\n127.0.1.1 clone-1\n");
  EXPECT_EQ(directory.read("etc/machine-id"), "0123456789abcdef0123456789abcdef\n");
  EXPECT_EQ(directory.read("run/e2b/.E2B_SANDBOX_ID"), "def");
  EXPECT_FALSE(set_hostname(scope, "not a name"));
  EXPECT_FALSE(set_machine_id(scope, "short"));
}

// Writes `content` over `old`; whether it is the same file as before.
bool written_in_place(const TestDirectory& directory, const std::string& old, const std::string& content) {
  directory.write("file", old);
  const std::string path = directory.path() + "/file";
  const UniqueFd before(open(path.c_str(), O_RDONLY | O_CLOEXEC));  // keeps its inode from being used again
  EXPECT_TRUE(write_small_file(path, content));
  EXPECT_EQ(directory.read("file"), content);
  struct stat was {};
  struct stat is {};
  EXPECT_EQ(fstat(before.get(), &was), 0);
  EXPECT_EQ(stat(path.c_str(), &is), 0);
  EXPECT_EQ(is.st_mode & 07777, 0644U);
  return was.st_ino == is.st_ino;
}

TEST(SmallFiles, AreWrittenInPlaceUnlessTheyBecomeShorter) {
  const TestDirectory directory;
  EXPECT_TRUE(written_in_place(directory, "sandbox-1\n", "sandbox-2\n"));
  EXPECT_TRUE(written_in_place(directory, "", "sandbox-2\n"));
  EXPECT_FALSE(written_in_place(directory, "sandbox-10\n", "sandbox-2\n"));
  EXPECT_FALSE(written_in_place(directory, "", std::string(4097, 'x')));
}

TEST(SmallFiles, OtherNamesOfAFileKeepTheirContent) {
  const TestDirectory directory;
  directory.write("target", "old\n");
  const std::string target = directory.path() + "/target";
  const std::string link = directory.path() + "/link";
  for (const auto& make : {::symlink, ::link}) {
    ASSERT_EQ(make(target.c_str(), link.c_str()), 0);
    ASSERT_TRUE(write_small_file(link, "new\n"));
    EXPECT_EQ(directory.read("link"), "new\n");
    EXPECT_EQ(directory.read("target"), "old\n");
    ASSERT_EQ(unlink(link.c_str()), 0);
  }
  EXPECT_FALSE(write_small_file(directory.path() + "/missing/file", "x"));
  EXPECT_FALSE(write_small_file(directory.path(), "x"));
}

TEST(MachineIdentity, EntropyIsBounded) {
  const MachineScope scope{"", false};
  EXPECT_FALSE(add_entropy(scope, ""));
  EXPECT_FALSE(add_entropy(scope, std::string(5000, 'x')));
  EXPECT_TRUE(add_entropy(scope, std::string(32, 'x')));
}

}  // namespace
}  // namespace stasis::guest
