// Page faults through the page server against a minimal loop (read one event, one UFFDIO_COPY from warm memory),
// measured in the same run. Both serve one fault after another to a thread that touches pages in random order, one page
// a frame. usage: bench-pager DIRECTORY
#include <unistd.h>

#include <array>
#include <atomic>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/memory.h"
#include "base/poll.h"
#include "base/userfaultfd.h"
#include "measure.h"
#include "pager/page_server.h"

namespace stasis::bench {
namespace {

using namespace snapshot;

constexpr uint64_t kFrames = 2048;
constexpr uint64_t kMemory = kFrames * kFrameSize;  // 128 MiB

template <typename T>
T must(Result<T> result) {
  if (result) return std::move(*result);
  std::cerr << "bench-pager: " << result.error().message << "\n";
  std::exit(1);
}
void must(Status status) {
  if (status) return;
  std::cerr << "bench-pager: " << status.error().message << "\n";
  std::exit(1);
}

std::shared_ptr<AddressSpace> make_memory(const Path& directory) {
  FileSystem& fs = real_file_system();
  const Path layers = directory / "layers";
  must(fs.make_directory(layers));
  const LayerId id = LayerId::random();
  auto writer = must(LayerWriter::create(fs, layers, id, kMemory));
  std::vector<std::byte> frame(kFrameSize, std::byte{0x5a});
  for (uint64_t i = 0; i < kFrames; ++i) must(writer->write(i * kFrameSize, frame));
  must(writer->finish());
  const std::array changes{Change{{0, kMemory}, false}};
  auto memory = must(AddressSpace::open(fs, layers, must(must(BlockMap::zeros(kMemory)).merge(id, changes))));
  must(memory->layer(id)->verify_all());  // warm: frames verified, file in the page cache
  return memory;
}

std::vector<uint64_t> random_frames() {
  std::vector<uint64_t> order(kFrames);
  for (uint64_t i = 0; i < kFrames; ++i) order[i] = i;
  Random random(11);
  for (uint64_t i = kFrames - 1; i > 0; --i) std::swap(order[i], order[random.next() % (i + 1)]);
  return order;
}

// Microseconds of each touch.
std::vector<double> touch(const Mapping& memory, const std::vector<uint64_t>& order, uint64_t pages_per_frame) {
  std::vector<double> times;
  for (const uint64_t frame : order) {
    for (uint64_t page = 0; page < pages_per_frame; ++page) {
      const volatile std::byte* at = memory.bytes().data() + frame * kFrameSize + page * kBlockSize;
      times.push_back(seconds_of([&] { (void)*at; }) * 1e6);
    }
  }
  return times;
}

// The whole page server. `pages_per_frame` 16 touches everything in order within a frame.
std::vector<double> through_server(const Path& directory, const std::shared_ptr<AddressSpace>& content,
                                   uint64_t pages_per_frame) {
  const Mapping memory = must(Mapping::anonymous(kMemory));
  const UserFaultFd uffd = must(UserFaultFd::create(false));
  must(uffd.register_missing({memory.address(), kMemory}, false));
  const auto server = must(pager::PageServer::start(directory / "uffd.sock", content, {}));
  server->expect_peer(::getpid());
  const UniqueFd socket = must(connect_unix(directory / "uffd.sock"));
  const std::string text =
      nlohmann::json::array(
          {{{"base_host_virt_addr", memory.address()}, {"size", kMemory}, {"offset", 0}, {"page_size", 4096}}})
          .dump();
  const std::array fds{uffd.fd()};
  must(send_all(socket.get(), std::as_bytes(std::span(text)), fds));
  return touch(memory, random_frames(), pages_per_frame);
}

// The least that serves a fault: one read, one copy, from memory that is warm.
std::vector<double> through_minimal_loop() {
  const Mapping memory = must(Mapping::anonymous(kMemory));
  const UserFaultFd uffd = must(UserFaultFd::create(false));
  must(uffd.register_missing({memory.address(), kMemory}, false));
  const Event stop = must(Event::create());
  std::thread server([&] {
    const std::vector<std::byte> page(kBlockSize, std::byte{0x5a});
    std::array<FaultEvent, 1> event;
    const std::array fds{uffd.fd(), stop.fd()};
    for (;;) {
      const auto ready = must(wait_any(fds, Deadline::never()));
      if (ready[1]) return;
      if (must(uffd.read_events(event)) == 1) (void)uffd.copy(event[0].address & ~(kBlockSize - 1), page, false);
    }
  });
  std::vector<double> times = touch(memory, random_frames(), 1);
  stop.set();
  server.join();
  return times;
}

double sum(const std::vector<double>& values) {
  double total = 0;
  for (const double value : values) total += value;
  return total;
}

}  // namespace
}  // namespace stasis::bench

int main(int argc, char** argv) {
  using namespace stasis::bench;
  if (argc != 2) {
    std::cerr << "usage: bench-pager DIRECTORY\n";
    return 2;
  }
  const stasis::Path directory = argv[1];
  const auto content = make_memory(directory);
  std::vector<double> server;
  std::vector<double> minimal;
  std::vector<double> sequential;
  for (int run = 0; run < 5; ++run) {
    server.push_back(median(through_server(directory, content, 1)));
    minimal.push_back(median(through_minimal_loop()));
    sequential.push_back(sum(through_server(directory, content, 16)) / (kFrames * 16));
  }
  nlohmann::json out;
  out["pager.fault_p50_us"] = median(server);
  out["pager.fault_p50_ratio"] = median(server) / median(minimal);
  out["pager.minimal_fault_p50_us"] = median(minimal);
  out["pager.around_us_per_page"] = median(sequential);
  std::cout << out.dump(2) << "\n";
  return 0;
}
