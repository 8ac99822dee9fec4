// Compaction: bytes moved against bytes that must be moved. A guest of 1 GiB is captured, then changed and captured
// again for many generations; its last snapshot is compacted. Counted at the file system: bytes read that are stored
// (what a hole is read as is not stored), and bytes written.
// usage: bench-compact DIRECTORY   (a file system with 4 GiB free)
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/memory.h"
#include "base/testing/faulty_file_system.h"
#include "measure.h"
#include "must.h"
#include "snapshot/compact.h"

namespace stasis::bench {
namespace {

using namespace snapshot;

constexpr uint64_t kMemory = uint64_t{1} << 30;
constexpr uint64_t kBlocks = kMemory / kBlockSize;
constexpr int kGenerations = 20;

// Counts what is moved. Only the calls that move data are of interest; the rest goes through.
class CountingFileSystem final : public testing::FaultyFileSystem {
 public:
  Result<size_t> read_at(int fd, uint64_t offset, std::span<std::byte> out) override {
    STASIS_ASSIGN(const size_t n, FaultyFileSystem::read_at(fd, offset, out));
    // Not SEEK_HOLE, which passes over all data up to the next hole: of a dense layer, 2 ms for each read.
    for (uint64_t at = offset; counting && at < offset + n; at += kBlockSize) {
      if (::lseek(fd, static_cast<off_t>(at), SEEK_DATA) == static_cast<off_t>(at)) read += kBlockSize;
    }
    return n;
  }
  Status write_at(int fd, uint64_t offset, std::span<const std::byte> data) override {
    if (counting) written += data.size();
    return FaultyFileSystem::write_at(fd, offset, data);
  }
  bool counting = false;
  uint64_t read = 0;
  uint64_t written = 0;
};

void fill(std::span<std::byte> bytes, Random& random) {
  for (uint64_t i = 0; i < bytes.size(); i += 8) {
    const uint64_t word = random.next() | 1;
    std::memcpy(bytes.data() + i, &word, sizeof word);
  }
}

// `run_blocks`: how many blocks lie together in what a generation changes (2 % of the memory).
void bench(nlohmann::json& out, const Path& directory, uint64_t run_blocks, const std::string& name) {
  CountingFileSystem fs;
  const Store store = must(Store::open(fs, directory / name));
  UniqueFd memory_fd = must(create_memory_file("bench", kMemory));
  const Mapping memory = must(Mapping::shared(memory_fd.get(), kMemory));
  const MemorySource source = MemorySource::of_file(std::move(memory_fd));
  Random random(5);
  fill(memory.bytes().first(kMemory / 10 * 6 / kBlockSize * kBlockSize), random);
  BlockMap map = must(BlockMap::zeros(kMemory));
  std::vector<Range> candidates{{0, kMemory}};
  for (int generation = 0; generation < kGenerations; ++generation) {
    const auto base = must(AddressSpace::open(fs, store.layers_dir(), map));
    map = must(capture(fs, store.layers_dir(), {source, candidates, {}}, *base)).map;
    candidates.clear();
    std::vector<uint64_t> firsts;
    for (uint64_t i = 0; i < kBlocks / 50 / run_blocks; ++i) firsts.push_back(random.next() % (kBlocks / run_blocks));
    std::sort(firsts.begin(), firsts.end());
    firsts.erase(std::unique(firsts.begin(), firsts.end()), firsts.end());
    for (const uint64_t first : firsts) {
      candidates.push_back({first * run_blocks * kBlockSize, run_blocks * kBlockSize});
      fill(memory.bytes().subspan(candidates.back().offset, candidates.back().length), random);
    }
  }
  const SnapshotId id = SnapshotId::random();
  Manifest manifest;
  manifest.id = id;
  must(store.begin(id).map([](const Path&) {}));
  manifest.memory_map = must(store.write_map(id, "memory.map", map));
  must(store.publish(manifest));
  fs.counting = true;
  CompactResult result;
  const double seconds = seconds_of([&] { result = must(compact(store, id)); });
  const auto live = static_cast<double>(live_bytes(map));
  out["store.compact_ratio." + name] = static_cast<double>(fs.read + fs.written) / (2 * live);
  out["store.compact_mb_per_s." + name] = 2 * live / seconds / 1e6;
  out["store.compact_layers." + name] = result.layers_before;
}

}  // namespace
}  // namespace stasis::bench

int main(int argc, char** argv) {
  using namespace stasis::bench;
  if (argc != 2) {
    std::cerr << "usage: bench-compact DIRECTORY\n";
    return 2;
  }
  nlohmann::json out;
  bench(out, argv[1], 512, "runs");     // 2 MiB together
  bench(out, argv[1], 1, "scattered");  // single blocks
  out["store.compact_ratio"] = out["store.compact_ratio.runs"];
  std::cout << out.dump(2) << "\n";
  return 0;
}
