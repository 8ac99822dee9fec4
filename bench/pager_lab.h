// What the benches of the page server share: a layer's content, a VMM as the page server sees one, and the least that
// serves a fault.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "base/memory.h"
#include "base/userfaultfd.h"
#include "measure.h"
#include "must.h"
#include "pager/page_server.h"

namespace stasis::bench {

using Content = std::shared_ptr<snapshot::AddressSpace>;

// A memory of `size` bytes with data in `runs` (sorted, disjoint), in a layer of its own below `directory`: verified,
// and its file in the page cache. Written in pieces of `piece` bytes.
Content make_content(const Path& directory, uint64_t size, std::span<const Range> runs,
                     uint64_t piece = snapshot::kFrameSize);

// What is measured with: 50 MiB of a guest of 1 GiB, in runs of 6 or 7 pages that are spread over it. They begin at
// every page of 64 KiB alike, so that one in three lies in two of what the kernel maps, and a frame is, at once.
inline constexpr uint64_t kGuestMemory = uint64_t{1} << 30;
inline constexpr uint64_t kWorkingSetBytes = uint64_t{50} << 20;
inline constexpr uint64_t kWorkingSetRuns = 1927;
std::vector<Range> working_set();

// Guest memory, registered with a userfaultfd. Nobody serves it before hand_over().
class FakeVmm {
 public:
  explicit FakeVmm(uint64_t size);
  // To the page server that listens there and expects this process.
  void hand_over(const Path& socket);
  const UserFaultFd& uffd() const { return uffd_; }
  uint64_t address() const { return memory_.address(); }
  std::span<std::byte> bytes() const { return memory_.bytes(); }
  void touch(uint64_t offset) const { (void)*static_cast<volatile std::byte*>(&memory_.bytes()[offset]); }

 private:
  Mapping memory_;
  UserFaultFd uffd_;
  UniqueFd socket_;
};

// A page server for this process's VMM. A failure of it ends the bench.
std::unique_ptr<pager::PageServer> serve(const Path& socket, const Content& content, std::vector<Range> prefetch = {});

// Runs `body` while a thread answers the VMM's faults with one read and one copy each, from memory that is warm: each
// page from its own place in `source`, which is as large as the VMM's memory; or all of them from the one that it is,
// which no cache loses.
void with_minimal_loop(const FakeVmm& vmm, std::span<const std::byte> source, const std::function<void()>& body);

// 0 to count - 1, in an order that is random and always the same.
std::vector<uint64_t> random_order(uint64_t count);

// The parts of bench-pager. Each adds its figures.
void bench_faults(nlohmann::json& out, const Path& directory);       // pager_bench.cc
void bench_working_set(nlohmann::json& out, const Path& directory);  // pager_load_bench.cc
void bench_zeros(nlohmann::json& out, const Path& directory);
void bench_own_memory(nlohmann::json& out, const Path& directory);  // pager_scale_bench.cc
void bench_many_vms(nlohmann::json& out, const Path& directory);

}  // namespace stasis::bench
