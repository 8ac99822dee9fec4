// A large guest, and many guests: each VMM is a process of its own here, as VMMs are.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>

#include "base/testing/forwarding_file_system.h"
#include "base/unix_socket.h"
#include "pager_lab.h"

namespace stasis::bench {
namespace {

using namespace snapshot;

// Anonymous memory of this process, which is what a page server takes for itself: layers are files.
double anonymous_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word != "RssAnon:") continue;
    double kib = 0;
    status >> kib;
    return kib;
  }
  return 0;
}

// A VMM in a process of its own: touches what `body` says once start() was called, and reports the seconds.
class VmmProcess {
 public:
  explicit VmmProcess(const std::function<double()>& body) {
    auto sockets = must(unix_socket_pair());
    pid_ = ::fork();
    if (pid_ < 0) must(fail_errno(errno, "fork"));
    if (pid_ == 0) {
      sockets.first.reset();
      std::array<char, 1> go;
      if (::read(sockets.second.get(), go.data(), go.size()) != 1) ::_exit(1);
      const double seconds = body();
      ::_exit(::write(sockets.second.get(), &seconds, sizeof seconds) == sizeof seconds ? 0 : 1);
    }
    socket_ = std::move(sockets.first);
  }
  pid_t pid() const { return pid_; }
  void start() const { must(send_all(socket_.get(), std::as_bytes(std::span("g", 1)))); }
  // Negative if it failed.
  double await() const {
    double seconds = -1;
    const bool told = ::read(socket_.get(), &seconds, sizeof seconds) == sizeof seconds;
    int status = 0;
    (void)::waitpid(pid_, &status, 0);
    return told && status == 0 ? seconds : -1;
  }

 private:
  UniqueFd socket_;
  pid_t pid_ = -1;
};

// Writes of zeros leave the holes that are there: a layer of 16 GiB, with its checksums, that takes no room.
class KeepsHoles : public testing::ForwardingFileSystem {
 public:
  using ForwardingFileSystem::ForwardingFileSystem;
  Status write_at(int fd, uint64_t offset, std::span<const std::byte> data) override {
    const bool zeros = data.front() == std::byte{0} && std::memcmp(data.data(), &data[1], data.size() - 1) == 0;
    return zeros ? Status() : ForwardingFileSystem::write_at(fd, offset, data);
  }

 protected:
  std::optional<Error> before(const char* /*what*/) override { return std::nullopt; }
};

constexpr uint64_t kLarge = uint64_t{16} << 30;
constexpr uint64_t kRun = uint64_t{1} << 20;  // with data in all of it but its last page: 32,768 extents
constexpr uint64_t kPiece = uint64_t{64} << 20;

// Its layer and its map, as files.
void make_large(const Path& directory) {
  KeepsHoles fs(real_file_system());
  const Path layers = directory / "large";
  must(fs.make_directory(layers));
  const LayerId id = LayerId::random();
  auto writer = must(LayerWriter::create(fs, layers, id, kLarge));
  const std::vector<std::byte> frame(kFrameSize);
  std::vector<Change> changes;
  for (uint64_t run = 0; run < kLarge; run += kRun) {
    const Range data{run, kRun - kBlockSize};
    for (uint64_t at = run; at < data.end(); at += kFrameSize) {
      must(writer->write(at, std::span(frame).first(std::min(kFrameSize, data.end() - at))));
    }
    changes.push_back({data, false});
  }
  must(writer->finish());
  writer.reset();
  const BlockMap map = must(must(BlockMap::zeros(kLarge)).merge(id, changes));
  must(publish_file(real_file_system(), directory / "large.map", must(map.encode())));
}

// Touches everything, and lets go of what it has touched: the guest's memory is not what is measured, and this machine
// may not have that much. So too of what reading has put into the layer's holes.
double touch_large(const Path& socket, const Path& layers) {
  FakeVmm vmm(kLarge);
  vmm.hand_over(socket);
  UniqueFd layer;
  for (const std::string& name : must(real_file_system().list(layers))) {
    if (name.ends_with(".raw")) layer = UniqueFd(::open((layers / name).c_str(), O_RDWR | O_CLOEXEC));
  }
  return seconds_of([&] {
    for (uint64_t piece = 0; piece < kLarge; piece += kPiece) {
      for (uint64_t at = piece; at < piece + kPiece; at += kBlockSize) vmm.touch(at);
      must(discard_anonymous(vmm.bytes().subspan(piece, kPiece)));
      must(real_file_system().punch_hole(layer.get(), {piece, kPiece}));
    }
  });
}

}  // namespace

void bench_own_memory(nlohmann::json& out, const Path& directory) {
  const Path socket = directory / "large.sock";
  const VmmProcess vmm([&] { return touch_large(socket, directory / "large"); });
  // By another process: what making it needs is not what serving it needs.
  const VmmProcess maker([&] {
    make_large(directory);
    return 0.0;
  });
  maker.start();
  if (maker.await() < 0) must(fail(Code::kInternal, "the large guest's layer could not be made"));
  FileSystem& fs = real_file_system();
  const double before = anonymous_kib();
  BlockMap map = must(BlockMap::decode(must(read_file(fs, directory / "large.map", uint64_t{16} << 20))));
  const Content content = must(AddressSpace::open(fs, directory / "large", std::move(map)));
  pager::PageServerOptions options;
  options.on_failure = [](const Error& error) { must(fail(Error(error))); };
  options.record_for = Milliseconds(3'000);
  const auto server = must(pager::PageServer::start(socket, content, std::move(options)));
  must(server->expect_peer(vmm.pid()));
  vmm.start();
  const double seconds = vmm.await();
  if (seconds < 0) must(fail(Code::kInternal, "the large guest has failed"));
  const auto stats = server->stats();
  if (stats.pages_by_fault + stats.pages_around + stats.pages_zero < stats.total_pages) {
    must(fail(Code::kInternal, "the large guest was not touched all over"));
  }
  out["pager.private_mib"] = (anonymous_kib() - before) / 1024;
  out["pager.large_guest_s"] = seconds;
}

void bench_many_vms(nlohmann::json& out, const Path& directory) {
  constexpr uint64_t kVms = 100;
  constexpr uint64_t kSmall = uint64_t{4} << 20;
  const std::array whole{Range{0, kSmall}};
  const Content content = make_content(directory, kSmall, whole);
  const auto order = random_order(kSmall / kBlockSize);
  const auto socket = [&](uint64_t i) { return directory / ("vm" + std::to_string(i) + ".sock"); };
  std::vector<VmmProcess> vms;
  for (uint64_t i = 0; i < kVms; ++i) {
    vms.emplace_back([&, i] {
      FakeVmm vmm(kSmall);
      return seconds_of([&] {
        vmm.hand_over(socket(i));
        for (const uint64_t page : order) vmm.touch(page * kBlockSize);
      });
    });
  }
  std::vector<std::unique_ptr<pager::PageServer>> servers;
  for (uint64_t i = 0; i < kVms; ++i) {
    pager::PageServerOptions options;
    options.on_failure = [](const Error& error) { must(fail(Error(error))); };
    servers.push_back(must(pager::PageServer::start(socket(i), content, std::move(options))));
    must(servers.back()->expect_peer(vms[i].pid()));
  }
  for (const VmmProcess& vm : vms) vm.start();
  std::vector<double> times;
  for (const VmmProcess& vm : vms) {
    if (const double seconds = vm.await(); seconds >= 0) times.push_back(seconds);
  }
  if (times.empty()) must(fail(Code::kInternal, "no guest of many has ended well"));
  out["pager.vms"] = times.size();
  out["pager.vms_median_ms"] = median(times) * 1e3;
  out["pager.vms_slowest_ratio"] = *std::ranges::max_element(times) / median(times);
}

}  // namespace stasis::bench
