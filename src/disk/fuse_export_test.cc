// Real mounts, each in a child process with a mount namespace of its own.
#include "disk/fuse_export.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <fstream>
#include <thread>

#include "base/namespaces.h"
#include "base/poll.h"
#include "base/process.h"
#include "base/testing/in_child.h"
#include "disk/testing_disk.h"

namespace stasis::disk {
namespace {

using snapshot::kBlockSize;

void check(bool condition, const std::string& what) {
  if (!condition) throw std::runtime_error(what + " (errno: " + std::strerror(errno) + ")");
}

bool is_mounted(const Path& directory) {
  std::ifstream table("/proc/self/mountinfo");
  std::string line;
  while (std::getline(table, line)) {
    if (line.find(" " + directory.string() + " ") != std::string::npos) return true;
  }
  return false;
}

size_t open_descriptors() {
  size_t count = 0;
  DIR* directory = ::opendir("/proc/self/fd");
  while (::readdir(directory) != nullptr) ++count;
  ::closedir(directory);
  return count;
}

UniqueFd open_file(const Path& path, int flags = 0) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | flags));
  check(fd.valid(), "open " + path.string());
  return fd;
}

void write_all(int fd, uint64_t offset, std::span<const std::byte> data) {
  const ssize_t n = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
  check(n == static_cast<ssize_t>(data.size()), "pwrite");
}

Bytes read_all(int fd, uint64_t offset, uint64_t length) {
  Bytes result(length);
  const ssize_t n = ::pread(fd, result.data(), length, static_cast<off_t>(offset));
  check(n == static_cast<ssize_t>(length), "pread");
  return result;
}

// What a body of a test has: an export, mounted, on a disk of zeros or on `base`.
struct Exported {
  Exported(const Path& root, std::shared_ptr<const snapshot::AddressSpace> base, const Path& work)
      : mount_point(root / "mnt") {
    must(real_file_system().make_directory(mount_point));
    disk = must(CowDisk::create(real_file_system(), std::move(base), work));
    exported = must(FuseExport::mount(*disk, mount_point));
  }
  Path file() const { return exported->file(); }

  Path mount_point;
  std::unique_ptr<CowDisk> disk;
  std::unique_ptr<FuseExport> exported;
};

class FuseExportTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    if (::access("/dev/fuse", F_OK) != 0) GTEST_SKIP() << "needs /dev/fuse";
  }

  // The body runs in a child; what it throws is the failure.
  void in_own_namespace(const std::function<void()>& body) {
    const std::string error = testing::in_child([&]() -> std::string {
      ::alarm(60);  // a hang is a failure, not a stuck test run
      must(enter_private_mount_namespace());
      body();
      return "";
    });
    EXPECT_EQ(error, "");
  }

  testing::TempDir dir_;
  Directories dirs_{dir_.path()};
};

void random_io(int fd, CowDisk& disk, unsigned seed, uint64_t alignment) {
  std::mt19937_64 random(seed);
  Bytes model = content_of(disk);
  for (int i = 0; i < 400; ++i) {
    const bool large = random() % 20 == 0;
    const uint64_t offset = random() % (model.size() / alignment) * alignment;
    const uint64_t most = std::min<uint64_t>(model.size() - offset, large ? 3'000'000 : 20'000);
    const uint64_t length = std::max<uint64_t>(random() % (most + 1) / alignment * alignment, alignment);
    const auto part = std::span(model).subspan(offset, std::min<uint64_t>(length, model.size() - offset));
    const uint64_t kind = random() % 4;
    if (kind == 0) {
      const Bytes read = read_all(fd, offset, part.size());
      check(std::equal(read.begin(), read.end(), part.begin()), "other bytes at " + std::to_string(offset));
    } else if (kind == 1) {
      const int mode = random() % 2 == 0 ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
      const off_t at = static_cast<off_t>(offset);
      check(::fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, at, static_cast<off_t>(part.size())) == 0, "fallocate");
      std::fill(part.begin(), part.end(), std::byte{});
    } else {
      const Bytes data = random_bytes(random, part.size());
      write_all(fd, offset, data);
      std::copy(data.begin(), data.end(), part.begin());
    }
    if (i % 50 == 0) check(::fsync(fd) == 0 && ::fdatasync(fd) == 0, "fsync");
  }
  check(content_of(disk) == model, "the disk has other content than the file was given");
  check(read_all(fd, 0, model.size()) == model, "the file reads other content");
}

TEST_F(FuseExportTest, RandomIoIsWhatTheDiskHolds) {
  in_own_namespace([&] {
    std::mt19937_64 random(3);
    Exported it(dir_.path(), make_base(dirs_.layers, random_bytes(random, size_t{8} << 20)), dirs_.work);
    random_io(open_file(it.file()).get(), *it.disk, 1, 1);
    random_io(open_file(it.file(), O_DIRECT).get(), *it.disk, 2, 512);
    random_io(open_file(it.file(), O_SYNC).get(), *it.disk, 3, 1);
  });
}

TEST_F(FuseExportTest, IsADirectoryWithOneFileOfTheDisksSize) {
  in_own_namespace([&] {
    constexpr uint64_t kSize = uint64_t{5} << 30;
    Exported it(dir_.path(), make_zero_base(dirs_.layers, kSize), dirs_.work);
    struct stat st {};
    check(::stat(it.file().c_str(), &st) == 0, "stat");
    check(st.st_size == static_cast<off_t>(kSize) && st.st_mode == (S_IFREG | 0600), "size or mode");
    check(must(real_file_system().list(it.mount_point)) == std::vector<std::string>{"root.raw"}, "list");
    check(::access((it.mount_point / "other").c_str(), F_OK) != 0 && errno == ENOENT, "another file is there");
    const UniqueFd fd = open_file(it.file());
    std::byte byte{};
    check(::pread(fd.get(), &byte, 1, kSize) == 0, "read at the end");
    check(::pwrite(fd.get(), &byte, 1, kSize) < 0 && errno == EFBIG, "write at the end");
    check(::fallocate(fd.get(), FALLOC_FL_ZERO_RANGE, kSize - 1, 2) < 0 && errno == EFBIG, "zero beyond the end");
    check(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, kSize - 1, 2) == 0, "punch over the end");
    check(::fallocate(fd.get(), 0, 0, 1) < 0 && errno == EOPNOTSUPP, "preallocate");
    check(::ftruncate(fd.get(), 1) < 0, "truncate");
    check(::creat((it.mount_point / "new").c_str(), 0600) < 0, "create");
    check(::unlink(it.file().c_str()) < 0, "unlink");
  });
}

TEST_F(FuseExportTest, SealsBetweenWritesThroughTheSameOpenFile) {
  in_own_namespace([&] {
    Exported it(dir_.path(), make_zero_base(dirs_.layers, uint64_t{4} << 20), dirs_.work);
    const UniqueFd fd = open_file(it.file());
    std::mt19937_64 random(5);
    for (int i = 0; i < 5; ++i) {
      random_io(fd.get(), *it.disk, static_cast<unsigned>(i), 1);
      const Bytes before = content_of(*it.disk);
      const SealResult sealed = must(it.disk->seal(dirs_.layers, snapshot::LayerId::random()));
      check(content_of(dirs_.layers, sealed.map) == before, "sealed content");
      check(read_all(fd.get(), 0, before.size()) == before, "content after the seal");
    }
  });
}

TEST_F(FuseExportTest, ShowsAnotherDiskThroughTheSameOpenFile) {
  in_own_namespace([&] {
    std::mt19937_64 random(6);
    const Bytes content = random_bytes(random, uint64_t{1} << 20);
    const auto disk_of = [&](const char* work, std::shared_ptr<const snapshot::AddressSpace> base) {
      must(real_file_system().make_directory(dir_.path() / work));
      return must(CowDisk::create(real_file_system(), std::move(base), dir_.path() / work));
    };
    const auto later = disk_of("later", make_base(dirs_.layers, content));
    const auto larger = disk_of("larger", make_zero_base(dirs_.layers, uint64_t{2} << 20));
    Exported it(dir_.path(), make_zero_base(dirs_.layers, content.size()), dirs_.work);
    const UniqueFd fd = open_file(it.file());
    check(read_all(fd.get(), 0, content.size()) == Bytes(content.size()), "not the first disk");
    check(!it.exported->show(*larger), "a disk of another size is shown");
    must(it.exported->show(*later));
    it.disk.reset();
    check(read_all(fd.get(), 0, content.size()) == content, "not the second disk");
    random_io(fd.get(), *later, 1, 1);
    it.exported.reset();  // before `later`
  });
}

TEST_F(FuseExportTest, EndsWithTheFileStillOpen) {
  in_own_namespace([&] {
    Exported it(dir_.path(), make_zero_base(dirs_.layers, uint64_t{64} << 20), dirs_.work);
    const size_t before = open_descriptors();
    const UniqueFd fd = open_file(it.file());
    // Somebody keeps the file system busy while it goes.
    std::atomic<bool> running = false;
    int seen = 0;
    std::thread user([&] {
      std::byte block[kBlockSize] = {};
      while (::pwrite(fd.get(), block, sizeof block, 0) > 0) running = true;
      seen = errno;
    });
    while (!running) std::this_thread::yield();
    it.exported.reset();
    user.join();
    check(seen == ENOTCONN || seen == ECONNABORTED, "the user of the file was told " + std::to_string(seen));
    check(!is_mounted(it.mount_point), "still mounted");
    check(must(real_file_system().list(it.mount_point)).empty(), "the directory is not empty");
    check(open_descriptors() < before, "descriptors leaked");  // `fd` came, the export's went
  });
}

TEST_F(FuseExportTest, MountsAgainAndLeaksNothing) {
  in_own_namespace([&] {
    Exported it(dir_.path(), make_zero_base(dirs_.layers, uint64_t{1} << 20), dirs_.work);
    it.exported.reset();
    const size_t before = open_descriptors();
    for (int i = 0; i < 30; ++i) {
      auto exported = must(FuseExport::mount(*it.disk, it.mount_point));
      write_all(open_file(exported->file()).get(), 100, random_bytes(*std::make_unique<std::mt19937_64>(i), 100));
    }
    check(open_descriptors() == before, "descriptors leaked");
    check(!is_mounted(it.mount_point), "still mounted");
    const auto nowhere = FuseExport::mount(*it.disk, dir_.path() / "missing");
    check(!nowhere && nowhere.error().code == Code::kNotFound, "mounted on a directory that is not there");
    check(open_descriptors() == before, "descriptors leaked by a failed mount");
  });
}

// A VMM is forked from the process that serves its disk.
TEST_F(FuseExportTest, ChildrenOfTheServingProcessUseTheFile) {
  in_own_namespace([&] {
    Exported it(dir_.path(), make_zero_base(dirs_.layers, uint64_t{4} << 20), dirs_.work);
    std::mt19937_64 random(9);
    const Bytes content = random_bytes(random, uint64_t{4} << 20);
    must(it.disk->write(0, content));
    const Path copy = dir_.path() / "copy";
    must(publish_file(real_file_system(), copy, content));
    std::atomic<bool> stop = false;
    std::thread busy([&] {
      const UniqueFd fd = open_file(it.file());
      while (!stop) (void)read_all(fd.get(), 0, 65536);
    });
    for (int i = 0; i < 20; ++i) {
      SpawnOptions options;
      options.argv = {"cmp", it.file().string(), copy.string()};
      Process process = must(spawn(options));
      const auto status = must(process.wait(Deadline::after(std::chrono::seconds(20))));
      check(status && status->success(), "cmp: " + (status ? status->text() : std::string("hangs")));
    }
    stop = true;
    busy.join();
  });
}

TEST_F(FuseExportTest, AFullDiskIsToldAndEverythingStaysReadable) {
  in_own_namespace([&] {
    must(mount_tmpfs(dirs_.work, uint64_t{4} << 20));
    Exported it(dir_.path(), make_zero_base(dirs_.layers, uint64_t{64} << 20), dirs_.work);
    const UniqueFd fd = open_file(it.file());
    std::mt19937_64 random(11);
    const Bytes chunk = random_bytes(random, 100'000);
    uint64_t written = 0;
    while (::pwrite(fd.get(), chunk.data(), chunk.size(), static_cast<off_t>(written)) > 0) written += chunk.size();
    check(errno == ENOSPC, "not the error of a full disk");
    check(written > uint64_t{3} << 20, "full too early");
    for (uint64_t offset = 0; offset < written; offset += chunk.size()) {
      check(read_all(fd.get(), offset, chunk.size()) == chunk, "written data is lost");
    }
    // The last write stopped at 100,000-byte chunk `written`: behind it nothing was ever acknowledged but zeros.
    check(read_all(fd.get(), written + 200'000, 4096) == Bytes(4096), "zeros are lost");
    check(!it.exported->failure(), "a full disk counts as a failure of the host");
    check(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1'000'000) == 0, "discard when full");
    write_all(fd.get(), uint64_t{32} << 20, chunk);
    check(read_all(fd.get(), uint64_t{32} << 20, chunk.size()) == chunk, "written after space came back");
    it.exported.reset();
    it.disk.reset();
    must(unmount(dirs_.work));
  });
}

TEST_F(FuseExportTest, ADamagedLayerIsAnErrorWithAReason) {
  in_own_namespace([&] {
    std::mt19937_64 random(13);
    auto base = make_base(dirs_.layers, random_bytes(random, uint64_t{1} << 20));
    const Path layer = snapshot::layer_data_path(dirs_.layers, base->map().layers()[0]);
    {
      const UniqueFd fd = open_file(layer);  // root may write although the mode is 0444
      const Bytes bad(1, read_all(fd.get(), 300'000, 1)[0] ^ std::byte{1});
      write_all(fd.get(), 300'000, bad);
    }
    Exported it(dir_.path(), base, dirs_.work);
    const UniqueFd fd = open_file(it.file());
    (void)read_all(fd.get(), 0, 4096);
    check(!must(wait_readable(it.exported->failed_fd(), Deadline::after(std::chrono::milliseconds(0)))), "too early");
    std::byte byte{};
    check(::pread(fd.get(), &byte, 1, 300'000) < 0 && errno == EIO, "damaged data was returned");
    check(must(wait_readable(it.exported->failed_fd(), Deadline::after(std::chrono::seconds(5)))), "nobody is told");
    check(it.exported->failure()->code == Code::kDataLoss, "reason: " + it.exported->failure()->message);
  });
}

// Reads the file again and again from when it is told to; says when the first read worked, and what ended the last.
[[noreturn]] void use_file(const Path& file, int go, int working, int ended) {
  ::alarm(60);
  char byte = 0;
  (void)!::read(go, &byte, 1);
  const UniqueFd fd(::open(file.c_str(), O_RDWR | O_CLOEXEC));
  std::byte block[kBlockSize] = {};
  for (bool first = true; ::pread(fd.get(), block, sizeof block, 0) > 0; first = false) {
    if (first) (void)!::write(working, "1", 1);
  }
  const int error = errno;
  (void)!::write(ended, &error, sizeof error);
  ::_exit(0);
}

// The process that serves a disk is killed: its namespace takes the mount along, and whoever reads the file gets an
// error.
TEST_F(FuseExportTest, KilledServerLeavesNothingAndFreesItsUsers) {
  const Path mount_point = dir_.path() / "mnt";
  int go[2];
  int working[2];
  int ended[2];
  for (int* pair : {go, working, ended}) ASSERT_EQ(::pipe2(pair, O_CLOEXEC), 0);
  const pid_t server = ::fork();
  if (server == 0) {
    ::alarm(60);
    must(enter_private_mount_namespace());
    // Forked before the mount: a copy of the connection in the user's hands would keep the file system alive.
    if (::fork() == 0) use_file(mount_point / "root.raw", go[0], working[1], ended[1]);
    const Exported it(dir_.path(), make_zero_base(dirs_.layers, uint64_t{1} << 20), dirs_.work);
    (void)!::write(go[1], "1", 1);
    for (;;) ::pause();
  }
  for (const int fd : {go[0], go[1], working[1], ended[1]}) ::close(fd);
  char byte = 0;
  EXPECT_EQ(::read(working[0], &byte, 1), 1);
  EXPECT_FALSE(is_mounted(mount_point));
  ::kill(server, SIGKILL);
  ::waitpid(server, nullptr, 0);
  int error = 0;
  EXPECT_EQ(::read(ended[0], &error, sizeof error), static_cast<ssize_t>(sizeof error));
  EXPECT_TRUE(error == ENOTCONN || error == ECONNABORTED) << error;
  EXPECT_FALSE(is_mounted(mount_point));
  EXPECT_TRUE(must(real_file_system().list(mount_point)).empty());
  ::close(working[0]);
  ::close(ended[0]);
}

}  // namespace
}  // namespace stasis::disk
