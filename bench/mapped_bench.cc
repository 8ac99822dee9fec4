// A mapped memory against one that a page server serves: the same 50 MiB, in 1,927 runs of a 1 GiB guest, are mapped
// and touched, or touched while the page server brings just these runs in ahead; first mapping to last touch, or
// handshake to last touch. The memory is in one layer, of two kinds, between which a real one lies:
// `touch`: the layer holds all of it, as a compaction leaves the memory of a guest that has used most of its own: one
// mapping, of which the runs are touched;
// `touch_scattered`: the layer holds the 1,927 runs and nothing else, and the rest is zeros: a mapping for each run.
// And what finding the written pages of a mapped guest costs, of a layer as a capture writes it and of one as a
// compaction does. How much a page fault maps, and what a scan pays for a page, is the file system's: DIRECTORY is to
// be on one that stores are on. usage: bench-mapped DIRECTORY
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <iostream>

#include "base/pagemap.h"
#include "pager/mapped_plan.h"
#include "pager_lab.h"
#include "snapshot/flatten.h"

namespace stasis::bench {
namespace {

using namespace snapshot;

constexpr int kRounds = 7;

void touch(const Mapping& guest, const std::vector<Range>& runs) {
  uint64_t sum = 0;
  for (const Range& run : runs) {
    for (uint64_t at = run.offset; at < run.end(); at += kBlockSize) {
      sum += static_cast<uint64_t>(*static_cast<volatile std::byte*>(&guest.bytes()[at]));
    }
  }
  if (sum != kWorkingSetBytes / kBlockSize * 0x5a) must(fail(Code::kDataLoss, "the memory is another one"));
}

pager::MappedPlan plan_of(const Content& memory, size_t extents) {
  auto plan = pager::plan_mapping(
      memory, [](LayerId) { return true; }, must(pager::mapping_limits()));
  if (plan.runs.size() != extents) must(fail(Code::kInternal, "not a mapping for each extent"));
  return plan;
}

// As the preloaded library does it.
Mapping map(const pager::MappedPlan& plan) {
  Mapping guest = must(Mapping::anonymous(kGuestMemory));
  (void)::madvise(guest.bytes().data(), kGuestMemory, MADV_NOHUGEPAGE);
  for (const pager::MappedRun& run : plan.runs) {
    const int fd = plan.layers[run.layer]->fd();
    std::byte* there = guest.bytes().data() + run.offset;
    if (run.copied) {
      must(real_file_system().read_at(fd, run.layer_offset, {there, run.length}));
    } else if (::mmap(there, run.length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd,
                      static_cast<off_t>(run.layer_offset)) == MAP_FAILED) {
      must(fail_errno(errno, "mmap"));
    }
  }
  return guest;
}

double touch_mapped(const pager::MappedPlan& plan, const std::vector<Range>& runs) {
  Mapping guest;  // unmapped outside
  return seconds_of([&] {
    guest = map(plan);
    touch(guest, runs);
  });
}

// From the handshake to the last touch.
double touch_served(const Path& socket, const Content& memory, const std::vector<Range>& runs) {
  const auto server = serve(socket, memory, runs);
  const UniqueFd ram = must(create_memory_file("bench-ram", kGuestMemory));
  const Mapping guest = must(Mapping::shared(ram.get(), kGuestMemory));
  const UserFaultFd uffd = must(UserFaultFd::create(false));
  must(uffd.register_missing({guest.address(), kGuestMemory}, false));
  const UniqueFd connection = must(connect_unix(socket));
  const std::string text = nlohmann::json::array({{{"base_host_virt_addr", guest.address()},
                                                   {"size", kGuestMemory},
                                                   {"offset", 0},
                                                   {"page_size", kBlockSize},
                                                   {"page_size_kib", kBlockSize}}})
                               .dump();
  const std::array fds{uffd.fd()};
  return seconds_of([&] {
    must(send_all(connection.get(), std::as_bytes(std::span(text)), fds));
    touch(guest, runs);
  });
}

// A restored guest of 1 GiB that has written one page of fifty; `touched`: what else of it is there.
double scan_ms(const pager::MappedPlan& plan, const std::vector<Range>& touched) {
  constexpr uint64_t kEvery = 50;
  const Mapping guest = map(plan);
  const auto look = [&](uint64_t at) { return *static_cast<volatile std::byte*>(&guest.bytes()[at]); };
  for (const Range& range : touched) {
    for (uint64_t at = range.offset; at < range.end(); at += kBlockSize) (void)look(at);
  }
  for (uint64_t at = 0; at < kGuestMemory; at += kEvery * kBlockSize) guest.bytes()[at] = std::byte{2};
  const UniqueFd pagemap = must(real_file_system().open_read("/proc/self/pagemap"));
  std::vector<double> times;
  times.reserve(kRounds);
  for (int round = 0; round < kRounds; ++round) {
    times.push_back(cpu_seconds_of([&] {
      const auto found = must(scan_private_pages(pagemap.get(), {guest.address(), kGuestMemory}));
      if (found.size() != (kGuestMemory / kBlockSize + kEvery - 1) / kEvery)
        must(fail(Code::kInternal, "the scan is wrong"));
    }));
  }
  return median(times) * 1000;
}

// The working set of a memory that holds `data` in one layer, by both ways in turn.
void bench_touch(nlohmann::json& out, const Path& directory, const std::vector<Range>& data, const std::string& name) {
  const std::vector<Range> runs = working_set();
  const auto memory = make_content(directory, kGuestMemory, data, snapshot::kHugePageSize);
  const auto plan = plan_of(memory, data.size());
  std::vector<double> mapped;
  std::vector<double> served;
  for (int round = 0; round < kRounds; ++round) {
    mapped.push_back(touch_mapped(plan, runs));
    served.push_back(touch_served(directory / "pages.sock", memory, runs));
  }
  out[name + "_mapped_ms"] = median(mapped) * 1000;
  out[name + "_uffd_ms"] = median(served) * 1000;
  out[name + "_ratio"] = median(mapped) / median(served);
  must(remove_tree(real_file_system(), directory / "layers"));
}

void bench_scan(nlohmann::json& out, const Path& directory, const std::vector<Range>& all) {
  const auto scan = [&](const std::string& name, uint64_t piece) {
    const auto plan = plan_of(make_content(directory, kGuestMemory, all, piece), all.size());
    out["capture.scan_" + name + "ms_per_gib"] = scan_ms(plan, working_set());
    out["capture.scan_" + name + "all_resident_ms_per_gib"] = scan_ms(plan, all);
    must(remove_tree(real_file_system(), directory / "layers"));
  };
  scan("", kFrameSize);
  scan("compacted_", kHugePageSize);
}

void run(const Path& directory) {
  nlohmann::json figures;
  const std::vector<Range> all{{0, kGuestMemory}};
  bench_touch(figures, directory, all, "restore.touch");
  bench_touch(figures, directory, working_set(), "restore.touch_scattered");
  bench_scan(figures, directory, all);
  std::cout << figures.dump() << "\n";
}

}  // namespace
}  // namespace stasis::bench

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: bench-mapped DIRECTORY\n";
    return 2;
  }
  stasis::bench::run(argv[1]);
  return 0;
}
