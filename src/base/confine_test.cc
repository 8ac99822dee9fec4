// What a confined process cannot do, each in a child. Needs root.
#include "base/confine.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "base/file_system.h"
#include "base/process.h"
#include "base/testing/in_child.h"
#include "base/unix_socket.h"

namespace stasis {
namespace {

using testing::ChildEnd;
using testing::run_child;
using testing::Tell;

// How a child ends that is confined and then does this. Its exit status is 0 if `deed` returns.
ChildEnd confined(const std::function<void()>& deed, std::chrono::seconds time = std::chrono::seconds(30)) {
  return run_child([&](const Tell& tell) {
    if (const Status status = confine_this_process({uint64_t{1} << 30, time}); !status) {
      tell(status.error().message);
      ::_exit(9);
    }
    deed();
    ::syscall(SYS_exit_group, 0);
  });
}

void expect_killed(const char* what, const std::function<void()>& deed) {
  const ChildEnd end = confined(deed);
  EXPECT_TRUE(WIFSIGNALED(end.wait_status) && WTERMSIG(end.wait_status) == SIGSYS)
      << what << ": wait status " << end.wait_status << " " << end.text;
}

TEST(ConfineTest, ComputesReadsWhatIsOpenAndSends) {
  const auto file = real_file_system().open_read("/proc/self/exe");
  ASSERT_TRUE(file);
  auto sockets = unix_socket_pair();
  ASSERT_TRUE(sockets);
  const ChildEnd end = confined([&] {
    std::vector<std::byte> bytes(4 << 20);
    const auto read = real_file_system().read_at(file->get(), 0, std::span(bytes).first(4));
    if (!read || *read != 4 || !send_message(sockets->first.get(), {reinterpret_cast<const char*>(bytes.data()), 4})) {
      ::syscall(SYS_exit_group, 1);
    }
  });
  EXPECT_EQ(end.wait_status, 0) << end.text;
  const auto message = receive_message(sockets->second.get(), Milliseconds(1000));
  ASSERT_TRUE(message && *message);
  EXPECT_EQ((*message)->body.substr(1), "ELF");
}

TEST(ConfineTest, NoFilesNoProcessesNoNetworkNoCode) {
  expect_killed("open", [] { (void)::open("/", O_RDONLY); });
  expect_killed("openat2", [] { ::syscall(SYS_openat2, AT_FDCWD, "/", nullptr, 0); });
  expect_killed("stat", [] { (void)::access("/etc/passwd", R_OK); });
  expect_killed("write to a descriptor", [] { (void)!::write(1, "x", 1); });
  expect_killed("fork", [] { (void)::fork(); });
  expect_killed("exec", [] {
    const char* const arguments[] = {"true", nullptr};
    ::execv("/bin/true", const_cast<char* const*>(arguments));
  });
  expect_killed("socket", [] { (void)::socket(AF_INET, SOCK_STREAM, 0); });
  expect_killed("kill", [] { ::kill(::getppid(), 0); });
  expect_killed("become root", [] { (void)!::setuid(0); });
  expect_killed("ptrace", [] { ::syscall(SYS_ptrace, 0, 0, 0, 0); });
  expect_killed("map code", [] { ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); });
  expect_killed("make code of data", [] {
    void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ::mprotect(page, 4096, PROT_READ | PROT_EXEC);
  });
}

TEST(ConfineTest, MemoryBeyondTheLimitIsRefused) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers need terabytes of address space";
#endif
  const auto can_map = [](size_t bytes) {
    return ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
  };
  const ChildEnd end = confined([&] {
    if (!can_map(size_t{256} << 20) || can_map(size_t{1} << 30)) ::syscall(SYS_exit_group, 1);
  });
  EXPECT_EQ(end.wait_status, 0) << end.text;
}

TEST(ConfineTest, ItStillDiesWithItsParent) {
  auto sockets = unix_socket_pair();
  ASSERT_TRUE(sockets);
  const pid_t parent = ::fork();
  ASSERT_GE(parent, 0);
  if (parent == 0) {
    if (::fork() != 0) {
      for (;;) ::pause();
    }
    const std::string pid = std::to_string(::getpid());
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const Status status = confine_this_process({uint64_t{1} << 30, std::chrono::seconds(60)});
    (void)send_message(sockets->first.get(), status ? pid : status.error().message);
    for (volatile bool forever = true; forever;) {
    }
  }
  const auto message = receive_message(sockets->second.get(), Milliseconds(20'000));
  const Result<UniqueFd> child =
      message && *message ? open_pidfd(std::atoi((*message)->body.c_str())) : fail(Code::kNotFound, "");
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  ASSERT_TRUE(child);
  EXPECT_TRUE(*wait_readable(child->get(), Deadline::after(Milliseconds(20'000))));
}

TEST(ConfineTest, TheEndOfItsTimeKillsIt) {
  const ChildEnd end = confined(
      [] {
        for (volatile bool forever = true; forever;) {
        }
      },
      std::chrono::seconds(1));
  EXPECT_TRUE(WIFSIGNALED(end.wait_status) && WTERMSIG(end.wait_status) == SIGALRM)
      << end.wait_status << " " << end.text;
}

}  // namespace
}  // namespace stasis
