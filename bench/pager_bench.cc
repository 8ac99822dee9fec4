// The page server against a minimal loop (read one event, one UFFDIO_COPY from warm memory), measured in the same run.
// Pinned to one core by bench/run; what is measured on two says so. usage: bench-pager DIRECTORY
#include "base/testing/count_heap.h"
#include "pager_lab.h"

namespace stasis::bench {
namespace {

using namespace snapshot;

constexpr uint64_t kFrames = 2048;
constexpr uint64_t kMemory = kFrames * kFrameSize;  // 128 MiB
constexpr uint64_t kFramePages = kFrameSize / kBlockSize;
constexpr int kRounds = 5;

// Microseconds of each touch: of the first page of each frame, frames in random order.
std::vector<double> touch_apart(const FakeVmm& vmm) {
  std::vector<double> times;
  times.reserve(kFrames);
  for (const uint64_t frame : random_order(kFrames)) {
    times.push_back(seconds_of([&] { vmm.touch(frame * kFrameSize); }) * 1e6);
  }
  return times;
}

// Microseconds a page, of every page of the memory in random order.
double touch_all(const FakeVmm& vmm, const std::vector<uint64_t>& order) {
  const double seconds = seconds_of([&] {
    for (const uint64_t page : order) vmm.touch(page * kBlockSize);
  });
  return seconds * 1e6 / static_cast<double>(order.size());
}

// The same, frames in random order, and each frame from its start to its end.
double touch_frames(const FakeVmm& vmm, const std::vector<uint64_t>& frames) {
  const double seconds = seconds_of([&] {
    for (const uint64_t frame : frames) {
      for (uint64_t page = 0; page < kFramePages; ++page) vmm.touch(frame * kFrameSize + page * kBlockSize);
    }
  });
  return seconds * 1e6 / static_cast<double>(frames.size() * kFramePages);
}

// With the whole page server behind it.
template <typename Touch>
auto served(const Path& directory, const Content& content, Touch touch) {
  const Path socket = directory / "uffd.sock";
  FakeVmm vmm(kMemory);
  const auto server = serve(socket, content);
  vmm.hand_over(socket);
  must(server->await_handshake(Deadline::after(Milliseconds(10'000))));
  return touch(vmm);
}

template <typename Touch>
auto minimal(std::span<const std::byte> source, Touch touch) {
  const FakeVmm vmm(kMemory);
  decltype(touch(vmm)) result{};
  with_minimal_loop(vmm, source, [&] { result = touch(vmm); });
  return result;
}

// What faults take from the heap once the first ones have been served.
double allocations_per_fault(const FakeVmm& vmm) {
  const auto order = random_order(kFrames);
  constexpr size_t kWarm = 64;
  for (size_t i = 0; i < kWarm; ++i) vmm.touch(order[i] * kFrameSize);
  const size_t before = testing::heap_allocations;
  for (size_t i = kWarm; i < kFrames; ++i) vmm.touch(order[i] * kFrameSize);
  return static_cast<double>(testing::heap_allocations - before) / static_cast<double>(kFrames - kWarm);
}

}  // namespace

void bench_faults(nlohmann::json& out, const Path& directory) {
  const std::array whole{Range{0, kMemory}};
  const Content content = make_content(directory, kMemory, whole);
  const auto frames = random_order(kFrames);
  const auto pages = random_order(kMemory / kBlockSize);
  const std::vector<std::byte> memory(kMemory, std::byte{0x5a});
  const auto one_page = std::span(memory).first(kBlockSize);
  std::vector<double> fault, least, least_own, around, random, least_random;
  for (int round = 0; round < kRounds; ++round) {
    fault.push_back(median(served(directory, content, touch_apart)));
    least.push_back(median(minimal(one_page, touch_apart)));
    least_own.push_back(median(minimal(memory, touch_apart)));
    around.push_back(served(directory, content, [&](const FakeVmm& vmm) { return touch_frames(vmm, frames); }));
    random.push_back(served(directory, content, [&](const FakeVmm& vmm) { return touch_all(vmm, pages); }));
    least_random.push_back(minimal(one_page, [&](const FakeVmm& vmm) { return touch_all(vmm, pages); }));
  }
  out["pager.fault_p50_us"] = median(fault);
  out["pager.minimal_fault_p50_us"] = median(least);
  out["pager.fault_p50_ratio"] = median(fault) / median(least);
  // Against a loop that copies what we copy, a page that no cache has: most of what the ratio above is more than 1.
  out["pager.fault_p50_own_pages_ratio"] = median(fault) / median(least_own);
  out["pager.around_us_per_page"] = median(around);
  out["pager.random_throughput_ratio"] = median(random) / median(least_random);
  out["pager.allocs_per_fault"] = served(directory, content, allocations_per_fault);
}

}  // namespace stasis::bench

int main(int argc, char** argv) {
  using namespace stasis::bench;
  if (argc != 2) {
    std::cerr << "usage: bench-pager DIRECTORY\n";
    return 2;
  }
  const stasis::Path directory = argv[1];
  nlohmann::json out;
  bench_faults(out, directory);
  bench_working_set(out, directory);
  bench_zeros(out, directory);
  bench_own_memory(out, directory);
  bench_many_vms(out, directory);
  std::cout << out.dump(2) << "\n";
  return 0;
}
