// The store against plain loops measured in the same run: look-up in block maps, capture of memory.
// usage: bench-store DIRECTORY   (a file system with 3 GiB free; a tmpfs, to measure the code and not the disk)
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/memory.h"
#include "measure.h"
#include "snapshot/capture.h"
#include "snapshot/store.h"
#include "store_bench.h"

namespace stasis::bench {
namespace {

using namespace snapshot;

constexpr uint64_t kMemory = uint64_t{512} << 20;

// 60 % of the blocks hold data, the rest zeros; with `seed` the content differs.
void fill(std::span<std::byte> memory, uint64_t seed) {
  Random random(seed);
  for (uint64_t at = 0; at < memory.size(); at += kBlockSize) {
    if (random.next() % 10 >= 6) continue;
    for (uint64_t i = 0; i < kBlockSize; i += 8) {
      const uint64_t word = random.next();
      std::memcpy(memory.data() + at + i, &word, sizeof word);
    }
  }
}

}  // namespace

void bench_capture(nlohmann::json& out, const Path& directory) {
  const Store store = must(Store::open(real_file_system(), directory / "store"));
  const UniqueFd memory_fd = must(create_memory_file("bench", kMemory));
  const Mapping memory = must(Mapping::shared(memory_fd.get(), kMemory));
  fill(memory.bytes(), 7);
  const std::vector<Range> everything{{0, kMemory}};
  const auto nothing = must(AddressSpace::open(store.fs(), store.layers_dir(), must(BlockMap::zeros(kMemory))));
  std::optional<CaptureResult> full;
  std::vector<std::byte> copy(kMemory);
  const Pair whole = in_turn(
      5,
      [&] {
        full = must(capture(store.fs(), store.layers_dir(), {memory_fd.get(), everything, {}}, *nothing));
      },
      [&] {
        uint64_t at_copy = 0;
        for (uint64_t at = 0; at < kMemory; at += kBlockSize) {
          const std::byte* block = memory.bytes().data() + at;
          if (block[0] == std::byte{0} && std::memcmp(block, block + 1, kBlockSize - 1) == 0) continue;
          std::memcpy(copy.data() + at_copy, block, kBlockSize);
          at_copy += kBlockSize;
        }
      });
  out["store.capture_full_gb_per_s"] = kMemory / whole.a / 1e9;
  out["store.capture_full_ratio"] = whole.ratio();

  const auto parent = must(AddressSpace::open(store.fs(), store.layers_dir(), full->map));
  Random random(3);
  for (uint64_t i = 0; i < kMemory / kBlockSize / 20; ++i) {
    memory.bytes()[random.next() % (kMemory / kBlockSize) * kBlockSize + 5] ^= std::byte{0x55};
  }
  std::vector<std::byte> before(kMemory);
  must(Result<int>(parent->read(0, before) ? 0 : 1));
  const Pair diff = in_turn(
      5,
      [&] {
        must(capture(store.fs(), store.layers_dir(), {memory_fd.get(), everything, {}}, *parent));
      },
      [&] {
        uint64_t at_copy = 0;
        for (uint64_t at = 0; at < kMemory; at += kBlockSize) {
          if (std::memcmp(memory.bytes().data() + at, before.data() + at, kBlockSize) == 0) continue;
          std::memcpy(copy.data() + at_copy, memory.bytes().data() + at, kBlockSize);
          at_copy += kBlockSize;
        }
      });
  out["store.capture_diff_gb_per_s"] = kMemory / diff.a / 1e9;
  out["store.capture_diff_ratio"] = diff.ratio();
}

}  // namespace stasis::bench

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: bench-store DIRECTORY\n";
    return 2;
  }
  nlohmann::json out;
  stasis::bench::bench_maps(out, argv[1]);
  if (!std::getenv("MAPONLY")) stasis::bench::bench_capture(out, argv[1]);
  std::cout << out.dump(2) << "\n";
  return 0;
}
