// Packed layers on the memory of a real guest: the largest memory of a snapshot in STORE (a warm base will do) is
// copied into a raw and into a packed layer; space, speed of packing, and what reading one block costs in each, at
// random and in order. Everything is in the page cache, and verified before. Changes nothing in STORE. usage:
// bench-pack STORE DIRECTORY   (a file system with room for that memory twice)
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "measure.h"
#include "must.h"
#include "snapshot/compact.h"
#include "snapshot/flatten.h"
#include "snapshot/packed_layer.h"

namespace stasis::bench {
namespace {

using namespace snapshot;

constexpr size_t kReads = 20'000;

BlockMap largest_memory(const Store& store) {
  BlockMap largest;
  for (const SnapshotId id : must(store.list())) {
    const Manifest manifest = must(store.load(id));
    if (!manifest.memory_map) continue;
    BlockMap map = must(store.read_map(id, *manifest.memory_map));
    if (largest.size() == 0 || live_bytes(map) > live_bytes(largest)) largest = std::move(map);
  }
  return largest;
}

template <typename Writer>
double write_layer(FileSystem& fs, const Path& directory, LayerId id, const AddressSpace& space) {
  const auto writer = must(Writer::create(fs, directory, id, space.size()));
  RateLimit limit;
  Flattener flattener(space, limit, kHugePageSize);  // as a compaction writes its layers
  return seconds_of([&] {
    must(flattener.run(0,
                       [&](uint64_t offset, std::span<const std::byte> data) { return writer->write(offset, data); }));
    must(writer->finish().map([](const LayerInfo&) {}));
  });
}

double microseconds_of(Layer& layer, const std::vector<uint64_t>& offsets) {
  std::vector<std::byte> block(kBlockSize);
  const double seconds = seconds_of([&] {
    for (const uint64_t offset : offsets) must(layer.read(offset, block));
  });
  return seconds * 1e6 / static_cast<double>(offsets.size());
}

void bench(nlohmann::json& out, const Path& store_root, const Path& directory) {
  FileSystem& fs = real_file_system();
  const Store store = must(Store::open(fs, store_root));
  const BlockMap map = largest_memory(store);
  const auto space = must(AddressSpace::open(fs, store.layers_dir(), map));
  const LayerId raw_id = LayerId::random();
  const LayerId packed_id = LayerId::random();
  write_layer<LayerWriter>(fs, directory, raw_id, *space);  // reads, and verifies, everything before anything is timed
  const double pack_seconds = write_layer<PackedLayerWriter>(fs, directory, packed_id, *space);
  const auto live = static_cast<double>(live_bytes(map));
  const auto packed_bytes = static_cast<double>(must(fs.info(layer_packed_path(directory, packed_id))).size);

  std::vector<uint64_t> in_order;
  for (const Extent& extent : map.extents()) {
    for (uint64_t at = 0; !extent.is_zero() && at < extent.length; at += kBlockSize)
      in_order.push_back(extent.offset + at);
  }
  std::vector<uint64_t> at_random;
  Random random(3);
  for (size_t i = 0; i < kReads && !in_order.empty(); ++i)
    at_random.push_back(in_order[random.next() % in_order.size()]);
  const auto raw = must(Layer::open(fs, directory, raw_id));
  const auto packed = must(Layer::open(fs, directory, packed_id));
  must(raw->verify_all());
  must(packed->verify_all());
  out["pack.live_mib"] = live / (1 << 20);
  out["pack.ratio"] = packed_bytes / live;
  out["pack.mib_per_s"] = live / (1 << 20) / pack_seconds;
  out["pack.random_us.raw"] = microseconds_of(*raw, at_random);
  out["pack.random_us.packed"] = microseconds_of(*packed, at_random);
  out["pack.in_order_us.raw"] = microseconds_of(*raw, in_order);
  out["pack.in_order_us.packed"] = microseconds_of(*packed, in_order);
  for (const Path& path : {layer_data_path(directory, raw_id), layer_sums_path(directory, raw_id),
                           layer_packed_path(directory, packed_id)}) {
    must(fs.remove(path));
  }
}

}  // namespace
}  // namespace stasis::bench

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: bench-pack STORE DIRECTORY\n";
    return 2;
  }
  nlohmann::json out;
  stasis::bench::bench(out, argv[1], argv[2]);
  std::cout << out.dump(2) << "\n";
  return 0;
}
