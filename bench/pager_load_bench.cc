// Much at once: a working set that is touched while it comes in ahead, and zeros.
#include <sched.h>

#include <array>

#include "pager_lab.h"

namespace stasis::bench {
namespace {

using namespace snapshot;

constexpr int kRounds = 7;

// A core of its own for each thread, where bench/run has left this process one for all of them.
class OnCores {
 public:
  explicit OnCores(int cores) {
    (void)::sched_getaffinity(0, sizeof before_, &before_);
    cpu_set_t wanted;
    CPU_ZERO(&wanted);
    for (int i = 0; i < cores; ++i) CPU_SET(i, &wanted);
    (void)::sched_setaffinity(0, sizeof wanted, &wanted);
  }
  ~OnCores() { (void)::sched_setaffinity(0, sizeof before_, &before_); }
  OnCores(const OnCores&) = delete;
  OnCores& operator=(const OnCores&) = delete;

 private:
  cpu_set_t before_;
};

// Seconds from the handshake to the last touch, of every page, runs in random order.
double touch_served(const Path& directory, const Content& content, const std::vector<Range>& set,
                    const std::vector<uint64_t>& order) {
  const Path socket = directory / "uffd.sock";
  FakeVmm vmm(kGuestMemory);
  const auto server = serve(socket, content, set);
  return seconds_of([&] {
    vmm.hand_over(socket);
    for (const uint64_t i : order) {
      for (uint64_t at = set[i].offset; at < set[i].end(); at += kBlockSize) vmm.touch(at);
    }
  });
}

// The same bytes by one UFFDIO_COPY a run, from memory that is warm, and touched.
double touch_copied(const std::vector<Range>& set, const std::vector<uint64_t>& order) {
  static const std::vector<std::byte> source(kWorkingSetBytes, std::byte{0x5a});
  const FakeVmm vmm(kGuestMemory);
  return seconds_of([&] {
    uint64_t from = 0;
    for (const Range& run : set) {
      (void)vmm.uffd().copy(vmm.address() + run.offset, std::span(source).subspan(from, run.length), false);
      from += run.length;
    }
    for (const uint64_t i : order) {
      for (uint64_t at = set[i].offset; at < set[i].end(); at += kBlockSize) vmm.touch(at);
    }
  });
}

}  // namespace

void bench_working_set(nlohmann::json& out, const Path& directory) {
  const auto set = working_set();
  const auto order = random_order(kWorkingSetRuns);
  const Content content = make_content(directory, kGuestMemory, set);
  for (const int cores : {1, 2}) {
    const OnCores on_cores(cores);
    std::vector<double> times, least;
    for (int round = 0; round < kRounds; ++round) {
      times.push_back(touch_served(directory, content, set, order));
      least.push_back(touch_copied(set, order));
    }
    const std::string name = cores == 1 ? "pager.working_set" : "pager.working_set_two_cores";
    out[name + "_ratio"] = median(times) / median(least);
    out[name + "_ms"] = median(times) * 1e3;
  }
}

// A guest that reads through memory which is zeros.
void bench_zeros(nlohmann::json& out, const Path& directory) {
  constexpr uint64_t kZeros = uint64_t{256} << 20;
  const Content content = make_content(directory, kZeros, {});
  const Path socket = directory / "uffd.sock";
  std::vector<double> times;
  for (int round = 0; round < kRounds; ++round) {
    FakeVmm vmm(kZeros);
    const auto server = serve(socket, content);
    vmm.hand_over(socket);
    must(server->await_handshake(Deadline::after(Milliseconds(10'000))));
    const double seconds = seconds_of([&] {
      for (uint64_t at = 0; at < kZeros; at += kBlockSize) vmm.touch(at);
    });
    times.push_back(seconds * 1e9 / static_cast<double>(kZeros / kBlockSize));
  }
  out["pager.zero_ns_per_page"] = median(times);
}

}  // namespace stasis::bench
