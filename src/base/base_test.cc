#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <optional>
#include <set>
#include <thread>

#include "base/clock.h"
#include "base/fd.h"
#include "base/file.h"
#include "base/file_system.h"
#include "base/memory.h"
#include "base/poll_set.h"
#include "base/process.h"
#include "base/process_memory.h"
#include "base/rate_limit.h"
#include "base/testing/forwarding_file_system.h"
#include "base/testing/temp_dir.h"
#include "base/unix_socket.h"
#include "base/uuid.h"

namespace stasis {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TempDir;

std::set<std::string> open_descriptors() {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) names.insert(entry.path().filename());
  return names;
}

TEST(ResultTest, ContextIsAddedInFrontAndRemedyKept) {
  Error error = errno_error(ENOSPC, "write layer x");
  error = std::move(error).with_context("pause sandbox y");
  EXPECT_EQ(error.code, Code::kResourceExhausted);
  EXPECT_EQ(error.message, "pause sandbox y: write layer x: No space left on device");
  EXPECT_THAT(error.remedy, HasSubstr("free space"));
}

TEST(ResultTest, EveryCodeHasANameThatLeadsBack) {
  for (int value = 1; value <= 16; ++value) {
    const Code code = static_cast<Code>(value);
    EXPECT_EQ(code_from_name(code_name(code)), code);
  }
  EXPECT_EQ(code_from_name("no such word"), Code::kUnknown);
}

TEST(UniqueFdTest, ClosesOnceAndMoves) {
  const auto before = open_descriptors();
  {
    auto pair = unix_socket_pair();
    ASSERT_TRUE(pair);
    UniqueFd moved = std::move(pair->first);
    EXPECT_FALSE(pair->first.valid());
    moved = std::move(pair->second);
    EXPECT_TRUE(moved.valid());
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST(UuidTest, TextLeadsBackAndBadTextIsRefused) {
  const Uuid uuid = Uuid::random();
  EXPECT_EQ(Uuid::parse(uuid.text()).value(), uuid);
  EXPECT_NE(Uuid::random(), uuid);
  for (const char* bad : {"", "x", "00000000-0000-0000-0000-00000000000", "00000000-0000-0000-0000-0000000000000",
                          "0000000000000-0000-0000-000000000000", "g0000000-0000-0000-0000-000000000000",
                          "../../../../../../../../../../../../etc"}) {
    EXPECT_FALSE(Uuid::parse(bad)) << bad;
  }
}

using PutInPlace = Status (*)(FileSystem&, const Path&, std::string_view);
class PutInPlaceTest : public ::testing::TestWithParam<PutInPlace> {};
INSTANTIATE_TEST_SUITE_P(Both, PutInPlaceTest, ::testing::Values(PutInPlace{publish_file}, PutInPlace{replace_file}));

TEST_P(PutInPlaceTest, FileIsWholeAndNoTemporaryStays) {
  const TempDir dir;
  FileSystem& fs = real_file_system();
  ASSERT_TRUE(GetParam()(fs, dir.path() / "record", "one, and longer"));
  ASSERT_TRUE(GetParam()(fs, dir.path() / "record", "two"));
  const auto content = read_file(fs, dir.path() / "record", 100);
  ASSERT_TRUE(content);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(content->data()), content->size()), "two");
  EXPECT_THAT(fs.list(dir.path()).value(), ElementsAre("record"));
  EXPECT_EQ(read_file(fs, dir.path() / "record", 2).error().code, Code::kDataLoss);
}

TEST(FileSystemTest, WhatIsInMemoryIsReadWithoutWaiting) {
  const TempDir dir;
  FileSystem& fs = real_file_system();
  const auto fd = fs.create(dir.path() / "file");
  const std::vector<std::byte> content(1 << 20, std::byte{7});
  ASSERT_TRUE(fs.write_at(fd->get(), 0, content));
  std::vector<std::byte> bytes(content.size() + 100);
  EXPECT_EQ(fs.read_now(fd->get(), 0, bytes).value(), content.size()) << "up to its end";
  bytes.resize(content.size());
  EXPECT_EQ(bytes, content);
  ASSERT_TRUE(fs.sync(fd->get()));
  ::posix_fadvise(fd->get(), 0, 0, POSIX_FADV_DONTNEED);
  const auto cold = fs.read_now(fd->get(), 0, bytes);
  EXPECT_TRUE(cold || cold.error().code == Code::kUnavailable) << "a file system in memory forgets nothing";
  ASSERT_TRUE(fs.read_at(fd->get(), 0, bytes));
  EXPECT_EQ(fs.read_now(fd->get(), 0, bytes).value(), content.size());
}

TEST(FileSystemTest, DataRangesFollowHoles) {
  const TempDir dir;
  FileSystem& fs = real_file_system();
  const auto fd = fs.create(dir.path() / "sparse");
  ASSERT_TRUE(fd);
  ASSERT_TRUE(fs.truncate(fd->get(), 1 << 20));
  const std::vector<std::byte> block(4096, std::byte{7});
  ASSERT_TRUE(fs.write_at(fd->get(), 64 << 10, block));
  EXPECT_THAT(fs.data_ranges(fd->get()).value(), ElementsAre(Range{64 << 10, 4096}));
  EXPECT_TRUE(fs.is_hole(fd->get(), {0, 64 << 10}));
  EXPECT_FALSE(fs.is_hole(fd->get(), {60 << 10, 8 << 10}));
  EXPECT_FALSE(fs.is_hole(fd->get(), {64 << 10, 4096}));
  EXPECT_TRUE(fs.is_hole(fd->get(), {68 << 10, 4096})) << "nothing is behind it";
  ASSERT_TRUE(fs.punch_hole(fd->get(), {64 << 10, 4096}));
  EXPECT_TRUE(fs.data_ranges(fd->get())->empty());
}

TEST(FileSystemTest, RemoveTreeFollowsNoSymlink) {
  const TempDir dir;
  const TempDir other;
  std::filesystem::create_directories(dir.path() / "a" / "b");
  ASSERT_TRUE(publish_file(real_file_system(), other.path() / "keep", std::string_view("x")));
  std::filesystem::create_symlink(other.path(), dir.path() / "a" / "link");
  ASSERT_TRUE(remove_tree(real_file_system(), dir.path() / "a"));
  EXPECT_FALSE(exists(real_file_system(), dir.path() / "a"));
  EXPECT_TRUE(exists(real_file_system(), other.path() / "keep"));
  EXPECT_TRUE(remove_tree(real_file_system(), dir.path() / "a"));
}

TEST(PollTest, EventWakesAndDeadlinePasses) {
  const auto event = Event::create();
  ASSERT_TRUE(event);
  EXPECT_FALSE(wait_readable(event->fd(), Deadline::after(Milliseconds(1))).value());
  event->set();
  EXPECT_TRUE(wait_readable(event->fd(), Deadline::never()).value());
  event->clear();
  EXPECT_FALSE(wait_readable(event->fd(), Deadline::after(Milliseconds(0))).value());
}

TEST(PollTest, ATimerIsReadableOnceItsTimeHasPassed) {
  const UniqueFd at_once = readable_after(Milliseconds(0)).value();
  EXPECT_TRUE(wait_readable(at_once.get(), Deadline::never()).value());
  const auto begun = Deadline::Clock::now();
  const UniqueFd soon = readable_after(Milliseconds(20)).value();
  EXPECT_TRUE(wait_readable(soon.get(), Deadline::never()).value());
  EXPECT_GE(Deadline::Clock::now() - begun, Milliseconds(20));
  const UniqueFd late = readable_after(std::chrono::hours(1)).value();
  EXPECT_FALSE(wait_readable(late.get(), Deadline::after(Milliseconds(0))).value());
}

TEST(PollTest, ASetTellsWhichOfItAreReadableUntilTheyAreNot) {
  const Event first = Event::create().value();
  const Event second = Event::create().value();
  auto [here, there] = unix_socket_pair().value();
  const std::array fds{first.fd(), here.get(), second.fd()};
  const PollSet set = PollSet::of(fds).value();
  const auto ready = [&](Deadline deadline) { return set.wait(deadline)->to_ulong(); };
  EXPECT_EQ(ready(Deadline::after(Milliseconds(1))), 0U);
  second.set();
  EXPECT_EQ(ready(Deadline::never()), 4U);
  first.set();
  EXPECT_EQ(ready(Deadline::after(Milliseconds(0))), 5U);
  second.clear();
  there.reset();
  EXPECT_EQ(ready(Deadline::never()), 3U) << "a peer that has gone is told";
  EXPECT_EQ(PollSet::of(std::array{first.fd(), first.fd()}).error().code, Code::kAlreadyExists);
}

TEST(UnixSocketTest, MessageCarriesDescriptors) {
  auto pair = unix_socket_pair();
  ASSERT_TRUE(pair);
  const auto memory = create_memory_file("test", 4096);
  const std::array fds{memory->get()};
  ASSERT_TRUE(send_message(pair->first.get(), "hello", fds));
  const auto message = receive_message(pair->second.get(), Milliseconds(1000));
  ASSERT_TRUE(message && *message);
  EXPECT_EQ((*message)->body, "hello");
  EXPECT_EQ((*message)->fds.size(), 1U);
}

TEST(UnixSocketTest, EndSilenceAndHugeLengthsAreTold) {
  auto pair = unix_socket_pair();
  ASSERT_TRUE(pair);
  EXPECT_EQ(receive_message(pair->second.get(), Milliseconds(1)).error().code, Code::kDeadlineExceeded);
  const std::array<unsigned char, 4> huge{0xff, 0xff, 0xff, 0x7f};
  ASSERT_TRUE(send_all(pair->first.get(), std::as_bytes(std::span(huge))));
  EXPECT_EQ(receive_message(pair->second.get(), Milliseconds(1000)).error().code, Code::kInvalidArgument);
  pair->first.reset();
  EXPECT_EQ(receive_message(pair->second.get(), Milliseconds(1000)).value(), std::nullopt);
  EXPECT_EQ(send_message(pair->second.get(), "x").error().code, Code::kUnavailable);
}

// Replaces a file whenever it is about to be opened.
class ReplacingFileSystem final : public testing::ForwardingFileSystem {
 public:
  ReplacingFileSystem(Path path, std::string content)
      : ForwardingFileSystem(real_file_system()), path_(std::move(path)), content_(std::move(content)) {}
  Result<UniqueFd> open_read(const Path& path) override {
    if (path == path_) STASIS_TRY(publish_file(inner_, path_, content_));
    return inner_.open_read(path);
  }

 private:
  std::optional<Error> before(const char* /*what*/) override { return std::nullopt; }
  Path path_;
  std::string content_;
};

TEST(FileTest, AFileThatIsReplacedWhileItIsReadIsOneOfTheTwo) {
  const TempDir dir;
  const Path path = dir.path() / "record";
  for (const size_t size : {0, 1, 99, 100, 101, 199, 200, 201, 500}) {
    ASSERT_TRUE(publish_file(real_file_system(), path, std::string(100, 'a')));
    ReplacingFileSystem fs(path, std::string(size, 'b'));
    const auto content = read_file(fs, path, 500);
    ASSERT_TRUE(content) << content.error().message;
    EXPECT_EQ(content->size(), size);
    EXPECT_EQ(std::count(content->begin(), content->end(), std::byte{'b'}), size);
  }
  ReplacingFileSystem fs(path, std::string(501, 'b'));
  EXPECT_EQ(read_file(fs, path, 500).error().code, Code::kDataLoss);
}

TEST(UnixSocketTest, ALongQueueEndsTheWait) {
  const TempDir dir;
  const auto listener = listen_unix(dir.path() / "s").value();
  std::vector<UniqueFd> queued;
  for (;;) {
    auto connected = connect_unix(dir.path() / "s", Milliseconds(10));
    if (!connected) {
      EXPECT_EQ(connected.error().code, Code::kDeadlineExceeded);
      break;
    }
    queued.push_back(std::move(*connected));
    ASSERT_LT(queued.size(), 1000U);
  }
}

TEST(UnixSocketTest, SocketFileIsPrivateAndStaleOneIsUnavailable) {
  const TempDir dir;
  const Path path = dir.path() / "s";
  {
    const auto listener = listen_unix(path);
    ASSERT_TRUE(listener);
    EXPECT_EQ(std::filesystem::status(path).permissions(), std::filesystem::perms(0600));
    const auto client = connect_unix(path);
    ASSERT_TRUE(client);
    EXPECT_EQ(peer_pid(client->get()).value(), ::getpid());
  }
  EXPECT_EQ(connect_unix(path).error().code, Code::kUnavailable);
  EXPECT_EQ(listen_unix(dir.path() / std::string(200, 'x')).error().code, Code::kInvalidArgument);
}

TEST(ProcessTest, ExitStatusSignalAndMissingProgram) {
  SpawnOptions options;
  options.argv = {"/bin/sh", "-c", "exit 7"};
  auto process = spawn(options);
  ASSERT_TRUE(process);
  EXPECT_EQ((*process->wait(Deadline::never()))->text(), "exit status 7");

  options.argv = {"/bin/sleep", "1000"};
  auto sleeper = spawn(options);
  ASSERT_TRUE(sleeper);
  EXPECT_EQ(sleeper->wait(Deadline::after(Milliseconds(1))).value(), std::nullopt);
  EXPECT_EQ(sleeper->kill_and_wait().text(), "signal 9 (Killed)");

  options.argv = {"/no/such/program"};
  EXPECT_EQ(spawn(options).error().code, Code::kNotFound);
}

TEST(ProcessTest, AProgramIsLookedUpInThePath) {
  SpawnOptions options;
  options.argv = {"true"};
  auto process = spawn(options);
  ASSERT_TRUE(process) << process.error().message;
  EXPECT_TRUE((*process->wait(Deadline::never()))->success());

  options.argv = {"no-such-program-anywhere"};
  EXPECT_EQ(spawn(options).error().code, Code::kNotFound);
  options.argv = {};
  EXPECT_EQ(spawn(options).error().code, Code::kInvalidArgument);
}

TEST(ProcessTest, AChildHasDefaultSignals) {
  sigset_t blocked;
  sigset_t before;
  ::sigemptyset(&blocked);
  ::sigaddset(&blocked, SIGUSR2);
  ::pthread_sigmask(SIG_BLOCK, &blocked, &before);
  const auto ignored = ::signal(SIGUSR1, SIG_IGN);
  SpawnOptions options;
  options.argv = {"grep", "-cE", "Sig(Blk|Ign):[[:space:]]*0+$", "/proc/self/status"};
  auto pair = unix_socket_pair();
  ASSERT_TRUE(pair);
  options.stdout_fd = pair->second.get();
  auto process = spawn(options);
  ::signal(SIGUSR1, ignored);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ASSERT_TRUE(process);
  ASSERT_TRUE((*process->wait(Deadline::never()))->success());
  std::array<std::byte, 16> buffer;
  const auto received = receive_with_fds(pair->first.get(), buffer);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(buffer.data()), received->bytes), "2\n");
}

// After a fork() each page would be copied, or at least fault, when it is written next.
TEST(ProcessTest, AStartLeavesTheMemoryOfTheCallerAlone) {
  constexpr size_t kPages = 4096;
  std::vector<char> memory(kPages * 4096, 1);
  SpawnOptions options;
  options.argv = {"/bin/sleep", "1000"};
  auto process = spawn(options);
  ASSERT_TRUE(process);
  rusage before{};
  rusage after{};
  ::getrusage(RUSAGE_THREAD, &before);
  for (size_t page = 0; page < kPages; ++page) memory[page * 4096] = 2;
  ::getrusage(RUSAGE_THREAD, &after);
  EXPECT_LT(after.ru_minflt - before.ru_minflt, static_cast<long>(kPages / 16));
}

TEST(ProcessTest, ChildGetsTheNamedDescriptorsAndNoOthers) {
  auto pair = unix_socket_pair();
  ASSERT_TRUE(pair);
  SpawnOptions options;
  options.argv = {"/bin/ls", "/proc/self/fd"};
  options.fds = {{pair->second.get(), 5}};
  options.stdout_fd = pair->second.get();
  const UniqueFd inherited(::dup(0));  // not close-on-exec
  auto process = spawn(options);
  ASSERT_TRUE(process);
  pair->second.reset();
  ASSERT_TRUE((*process->wait(Deadline::never()))->success());
  std::array<std::byte, 256> buffer;
  const auto received = receive_with_fds(pair->first.get(), buffer);
  const std::string text(reinterpret_cast<const char*>(buffer.data()), received->bytes);
  EXPECT_EQ(text, "0\n1\n2\n3\n5\n");  // 3 is ls's own descriptor of the directory
}

TEST(ProcessTest, AChildDiesWithTheThreadThatStartedItIfItIsTo) {
  SpawnOptions options;
  options.argv = {"/bin/sleep", "1000"};
  options.die_with_parent = true;
  std::optional<Process> child;
  std::thread([&] {
    auto process = spawn(options);
    if (process) child = std::move(*process);
  }).join();
  ASSERT_TRUE(child);
  EXPECT_EQ((*child->wait(Deadline::never()))->text(), "signal 9 (Killed)");
}

TEST(ProcessTest, AChildLeadsASessionIfItIsTo) {
  SpawnOptions options;
  options.argv = {"/bin/sh", "-c", "[ $(cut -d ' ' -f 6 /proc/$$/stat) = $$ ]"};
  for (const bool leads : {true, false}) {
    options.new_session = leads;
    auto process = spawn(options);
    ASSERT_TRUE(process);
    EXPECT_EQ((*process->wait(Deadline::never()))->success(), leads);
  }
}

TEST(ProcessTest, DestructorKillsAndReaps) {
  pid_t pid = 0;
  {
    SpawnOptions options;
    options.argv = {"/bin/sleep", "1000"};
    auto process = spawn(options);
    ASSERT_TRUE(process);
    pid = process->pid();
  }
  EXPECT_EQ(open_pidfd(pid).error().code, Code::kNotFound);
}

TEST(ProcessMemoryTest, WhereAFileIsMapped) {
  const TempDir dir;
  const UniqueFd on_disk(::open((dir.path() / "mapped").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_TRUE(real_file_system().truncate(on_disk.get(), 8192));
  const UniqueFd in_memory = create_memory_file("stasis-test", 8192).value();
  for (const int file : {on_disk.get(), in_memory.get()}) {
    EXPECT_EQ(first_mapping_of(::getpid(), file).error().code, Code::kNotFound);
    const Mapping one = Mapping::shared_read_only(file, 8192).value();
    const Mapping other = Mapping::shared_read_only(file, 4096).value();
    EXPECT_EQ(first_mapping_of(::getpid(), file).value(), std::min(one.address(), other.address()));
  }
}

TEST(ClockTest, Rfc3339) { EXPECT_EQ(rfc3339(1'000'000'000'123'456'789), "2001-09-09T01:46:40.123456789Z"); }

TEST(RateLimitTest, WaitsForWhatWasTakenBeforeAndEndsWhenCancelled) {
  const Event cancel = Event::create().value();
  RateLimit slow(1, cancel.fd());
  EXPECT_TRUE(slow.take(1 << 30)) << "the first has nothing to wait for";
  std::thread later([&] { cancel.set(); });
  const Status waited = slow.take(1);  // would last for years
  later.join();
  ASSERT_FALSE(waited);
  EXPECT_EQ(waited.error().code, Code::kCancelled);
  EXPECT_FALSE(RateLimit(0, cancel.fd()).take(1)) << "cancelled, also without a rate";
  RateLimit none;
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(none.take(uint64_t{1} << 60));
}

TEST(LogTailTest, IsTheEndAndPrintable) {
  const TempDir dir;
  std::ofstream(dir.path() / "log") << std::string(10'000, 'a') << "two\r\nlines\xff\x1b\n";
  EXPECT_THAT(log_tail(dir.path() / "log"), ::testing::EndsWith("atwo\nlines??"));
  EXPECT_LT(log_tail(dir.path() / "log").size(), 3000U);
  EXPECT_EQ(log_tail(dir.path() / "none"), "");
}

}  // namespace
}  // namespace stasis
