#include "pager_lab.h"

#include <unistd.h>

#include <array>
#include <numeric>
#include <thread>

#include "base/poll.h"
#include "base/unix_socket.h"

namespace stasis::bench {

using namespace snapshot;

std::vector<Range> working_set() {
  std::vector<Range> runs;
  const uint64_t pages = kWorkingSetBytes / kBlockSize;
  const uint64_t every = kGuestMemory / kWorkingSetRuns / kBlockSize;
  for (uint64_t i = 0; i < kWorkingSetRuns; ++i) {
    const uint64_t length = pages * (i + 1) / kWorkingSetRuns - pages * i / kWorkingSetRuns;
    const uint64_t first = every * i + i % (kFrameSize / kBlockSize);
    runs.push_back({first * kBlockSize, length * kBlockSize});
  }
  return runs;
}

Content make_content(const Path& directory, uint64_t size, std::span<const Range> runs, uint64_t piece) {
  FileSystem& fs = real_file_system();
  const Path layers = directory / "layers";
  must(fs.make_directory(layers));
  const LayerId id = LayerId::random();
  auto writer = must(LayerWriter::create(fs, layers, id, size));
  std::vector<Change> changes;
  for (const Range& run : runs) {
    for (uint64_t at = run.offset; at < run.end(); at += piece) {
      must(writer->write(at, std::vector<std::byte>(std::min(piece, run.end() - at), std::byte{0x5a})));
    }
    changes.push_back({run, false});
  }
  must(writer->finish());
  auto content = must(AddressSpace::open(fs, layers, must(must(BlockMap::zeros(size)).merge(id, changes))));
  if (!runs.empty()) must(content->layer(id)->verify_all());
  return content;
}

FakeVmm::FakeVmm(uint64_t size) : memory_(must(Mapping::anonymous(size))), uffd_(must(UserFaultFd::create(false))) {
  must(uffd_.register_missing({memory_.address(), size}, false));
}

void FakeVmm::hand_over(const Path& socket) {
  socket_ = must(connect_unix(socket));
  const std::string text = nlohmann::json::array({{{"base_host_virt_addr", memory_.address()},
                                                   {"size", memory_.bytes().size()},
                                                   {"offset", 0},
                                                   {"page_size", kBlockSize}}})
                               .dump();
  const std::array fds{uffd_.fd()};
  must(send_all(socket_.get(), std::as_bytes(std::span(text)), fds));
}

std::unique_ptr<pager::PageServer> serve(const Path& socket, const Content& content, std::vector<Range> prefetch) {
  pager::PageServerOptions options;
  options.on_failure = [](const Error& error) { must(fail(Error(error))); };
  options.prefetch = std::move(prefetch);
  auto server = must(pager::PageServer::start(socket, content, std::move(options)));
  must(server->expect_peer(::getpid()));
  return server;
}

void with_minimal_loop(const FakeVmm& vmm, std::span<const std::byte> source, const std::function<void()>& body) {
  const Event stop = must(Event::create());
  std::thread server([&] {
    std::array<FaultEvent, 1> event;
    const std::array fds{vmm.uffd().fd(), stop.fd()};
    for (;;) {
      const auto ready = must(wait_any(fds, Deadline::never()));
      if (ready[1]) return;
      if (must(vmm.uffd().read_events(event)) != 1) continue;
      const uint64_t page = event[0].address & ~(kBlockSize - 1);
      const uint64_t offset = (page - vmm.address()) % source.size();
      (void)vmm.uffd().copy(page, source.subspan(offset, kBlockSize), false);
    }
  });
  body();
  stop.set();
  server.join();
}

std::vector<uint64_t> random_order(uint64_t count) {
  std::vector<uint64_t> order(count);
  std::iota(order.begin(), order.end(), uint64_t{0});
  Random random(11);
  for (uint64_t i = count - 1; i > 0; --i) std::swap(order[i], order[random.next() % (i + 1)]);
  return order;
}

}  // namespace stasis::bench
