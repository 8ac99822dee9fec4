// Block maps: look-up, parsing, merging, size in memory, each beside the plainest code that does the same.
#include <malloc.h>

#include <cstring>
#include <fstream>

#include "base/table_allocator.h"
#include "measure.h"
#include "snapshot/block_map.h"
#include "snapshot/crc32c.h"
#include "store_bench.h"

namespace stasis::bench {
namespace {

using namespace snapshot;

constexpr uint64_t kMany = uint64_t{1} << 20;

// Extents of 1 to 8 blocks, of two layers and of zeros in turn.
BlockMap map_with(uint64_t extents) {
  std::vector<Extent> list;
  const LayerId layers[3] = {LayerId::random(), LayerId::random(), LayerId{}};
  Random random(extents);
  uint64_t at = 0;
  for (uint64_t i = 0; i < extents; ++i) {
    const uint64_t length = (1 + random.next() % 8) * kBlockSize;
    list.push_back({at, length, layers[i % 3], i % 3 == 2 ? 0 : at});
    at += length;
  }
  return must(BlockMap::from_extents({at, 0, Uuid::random(), {}}, list));
}

// Random look-ups, one after the other: where the next one looks is known only when this one has been answered, as with
// page faults. The loop is std::upper_bound over the starts alone.
void bench_lookup(nlohmann::json& out, const BlockMap& map, const std::string& name) {
  constexpr size_t kLookups = 20'000;
  std::vector<uint64_t> starts;
  for (const Extent& extent : map.extents()) starts.push_back(extent.offset);
  std::vector<uint64_t> offsets(kLookups);
  Random random(1);
  for (uint64_t& offset : offsets) offset = random.next() % map.size();
  // 0, and the compiler cannot know it: ties a look-up to the one before.
  const auto nothing_of = [](uint64_t value) {
    asm volatile("" : "+r"(value));
    return value >> 63;
  };
  const Pair times = in_turn(
      31,
      [&] {
        uint64_t before = 0;
        for (const uint64_t offset : offsets) before = map.find(offset ^ nothing_of(before)).layer_offset;
        keep(before);
      },
      [&] {
        uint64_t before = 0;
        for (const uint64_t offset : offsets) {
          before = *std::prev(std::upper_bound(starts.begin(), starts.end(), offset ^ nothing_of(before)));
        }
        keep(before);
      });
  out["store.lookup_ns." + name] = times.a / kLookups * 1e9;
  out["store.lookup_plain_ns." + name] = times.b / kLookups * 1e9;
  out["store.lookup_ratio." + name] = times.ratio();
}

uint64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t total = 0;
  uint64_t resident = 0;
  statm >> total >> resident;
  return resident * 4096;
}

// What a map that was read costs in memory that is there, and on disk.
void bench_size(nlohmann::json& out, std::span<const std::byte> encoded) {
  const uint64_t before = resident_bytes();
  const BlockMap map = must(BlockMap::decode(encoded));
  const uint64_t after = resident_bytes();
  out["store.map_bytes_per_extent"] = static_cast<double>(after - before) / static_cast<double>(kMany);
  out["store.map_file_bytes_per_extent"] = static_cast<double>(encoded.size()) / static_cast<double>(kMany);
}

BlockMap read_map(FileSystem& fs, const Path& file) {
  const UniqueFd fd = must(fs.open_read(file));
  uint64_t position = 0;
  return must(BlockMap::read(must(fs.info(file)).size, [&](std::span<std::byte> out) -> Status {
    position += must(fs.read_at(fd.get(), position, out));
    return {};
  }));
}

// From the file to a map, against reading the file and checksumming it; both in memory that the process has already.
// The second figure is of maps whose memory comes from the kernel each time: that depends on the host under this
// machine (taking 12 MiB was measured to cost anything from 0.6 ms to 26).
void bench_parse(nlohmann::json& out, const Path& file) {
  FileSystem& fs = real_file_system();
  std::vector<std::byte, TableAllocator<std::byte>> buffer(must(fs.info(file)).size);
  const auto plain = [&] {
    const UniqueFd fd = must(fs.open_read(file));
    must(fs.read_at(fd.get(), 0, buffer));
    keep(crc32c(buffer));
  };
  const auto parse = [&] { keep(read_map(fs, file)); };
  ::mallopt(M_MMAP_THRESHOLD, 32 << 20);  // tables come from the heap,
  ::mallopt(M_TRIM_THRESHOLD, 1 << 30);   // which keeps what they give back
  parse(), plain();
  const Pair times = in_turn(21, parse, plain);
  out["store.parse_ms"] = times.a * 1e3;
  out["store.parse_plain_ms"] = times.b * 1e3;
  out["store.parse_ratio"] = times.ratio();
  const auto fresh = all_in_turn(21, {{parse, [] { ::malloc_trim(0); }}, {plain}});
  out["store.parse_fresh_ms"] = fresh[0] * 1e3;
  out["store.parse_fresh_ratio"] = fresh[0] / fresh[1];
}

struct PlainEntry {  // as small as an entry of a block map
  uint32_t first_block;
  uint32_t layer;
  uint32_t layer_block;
  PlainEntry from(uint64_t block) const {
    const auto first = static_cast<uint32_t>(block);
    return {first, layer, layer == 0 ? 0 : layer_block + (first - first_block)};
  }
};

// 10,000 changes over 1 Mi extents: two sorted lists, one pass, everything copied into a new table of the same kind of
// entries, element by element. No checks, no joining of neighbours, no index, no list of layers.
std::vector<PlainEntry> plain_merge(const std::vector<PlainEntry>& old, uint64_t blocks,
                                    const std::vector<Change>& changes) {
  std::vector<PlainEntry> merged;
  merged.reserve(old.size() + 2 * changes.size());
  size_t next = 0;  // change
  uint64_t covered = 0;
  for (size_t i = 0; i < old.size(); ++i) {
    const uint64_t end = i + 1 < old.size() ? old[i + 1].first_block : blocks;
    uint64_t at = std::max<uint64_t>(old[i].first_block, covered);
    while (next < changes.size() && changes[next].range.offset / kBlockSize < end) {
      const Change& change = changes[next++];
      const auto first = static_cast<uint32_t>(change.range.offset / kBlockSize);
      if (first > at) merged.push_back(old[i].from(at));
      merged.push_back({first, change.zero ? 0U : 9U, change.zero ? 0U : first});
      at = covered = change.range.end() / kBlockSize;
    }
    if (at < end) merged.push_back(old[i].from(at));
  }
  return merged;
}

void bench_merge(nlohmann::json& out, const BlockMap& map) {
  std::vector<Change> changes;
  Random random(5);
  const uint64_t blocks = map.size() / kBlockSize;
  for (uint64_t i = 0; i < 10'000; ++i) {
    const uint64_t slot = blocks / 10'000;
    const uint64_t length = 1 + random.next() % 4;
    const uint64_t first = i * slot + random.next() % (slot - length);
    changes.push_back({{first * kBlockSize, length * kBlockSize}, random.next() % 4 == 0});
  }
  std::vector<PlainEntry> plain;
  for (const Extent& extent : map.extents()) {
    plain.push_back({static_cast<uint32_t>(extent.offset / kBlockSize), extent.is_zero() ? 0U : 1U,
                     static_cast<uint32_t>(extent.layer_offset / kBlockSize)});
  }
  const LayerId layer = LayerId::random();
  const Pair times = in_turn(
      21, [&] { keep(must(map.merge(layer, changes))); }, [&] { keep(plain_merge(plain, blocks, changes)); });
  out["store.merge_ms"] = times.a * 1e3;
  out["store.merge_plain_ms"] = times.b * 1e3;
  out["store.merge_ratio"] = times.ratio();
}

}  // namespace

void bench_maps(nlohmann::json& out, const Path& directory) {
  bench_lookup(out, must(BlockMap::zeros(uint64_t{1} << 30)), "one");
  bench_lookup(out, map_with(1 << 10), "1k");
  bench_lookup(out, map_with(1 << 16), "64k");
  const BlockMap many = map_with(kMany);
  bench_lookup(out, many, "1m");
  const auto encoded = must(many.encode());
  bench_size(out, encoded);
  const Path file = directory / "many.map";
  must(publish_file(real_file_system(), file, encoded));
  bench_parse(out, file);
  bench_merge(out, many);
}

}  // namespace stasis::bench
