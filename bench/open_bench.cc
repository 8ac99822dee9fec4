// A store of 10,000 snapshots, seen by a process that has just started: opened, listed, every manifest read; and a
// collection that finds nothing to do, which reads every block map as well.
// usage: bench-open DIRECTORY   (200 MiB)
#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "measure.h"
#include "must.h"
#include "snapshot/store.h"

namespace stasis::bench {
namespace {

using namespace snapshot;

constexpr int kSnapshots = 10'000;
constexpr uint64_t kMemory = uint64_t{256} << 20;
constexpr uint64_t kChanges = 200;  // extents of one block that each snapshot has of its own

// A layer that holds next to nothing: opening a store looks at names and tables only.
LayerId make_layer(const Store& store) {
  const LayerId id = LayerId::random();
  auto writer = must(LayerWriter::create(store.fs(), store.layers_dir(), id, kMemory));
  must(writer->write(0, std::vector<std::byte>(kBlockSize, std::byte{1})));
  must(writer->finish());
  return id;
}

void make_store(const Path& directory) {
  const Store store = must(Store::open(real_file_system(), directory));
  const std::vector<Change> whole{{{0, kMemory}, false}};
  const BlockMap base = must(must(BlockMap::zeros(kMemory)).merge(make_layer(store), whole));
  for (int i = 0; i < kSnapshots; ++i) {
    Manifest manifest;
    manifest.id = SnapshotId::random();
    manifest.machine = {2, kMemory >> 20};
    must(store.begin(manifest.id).map([](const Path&) {}));
    std::vector<Change> changes;
    for (uint64_t at = 0; at < kMemory; at += kMemory / kChanges / kBlockSize * kBlockSize) {
      changes.push_back({{at, kBlockSize}, false});
    }
    const BlockMap map = must(base.merge(make_layer(store), changes));
    manifest.memory_map = must(store.write_map(manifest.id, "memory.map", map));
    must(store.publish(manifest));
  }
}

size_t open_and_load(const Path& directory) {
  const Store store = must(Store::open(real_file_system(), directory));
  std::vector<Manifest> manifests;
  for (const SnapshotId id : must(store.list())) manifests.push_back(must(store.load(id)));
  return manifests.size();
}

}  // namespace
}  // namespace stasis::bench

int main(int argc, char** argv) {
  using namespace stasis;
  using namespace stasis::bench;
  if (argc != 2) {
    std::cerr << "usage: bench-open DIRECTORY\n";
    return 2;
  }
  const Path directory = Path(argv[1]) / "store";
  // By another process: this one's heap and caches have seen nothing of it.
  const pid_t maker = ::fork();
  if (maker < 0) must(fail_errno(errno, "fork"));
  if (maker == 0) {
    make_store(directory);
    ::_exit(0);
  }
  int status = 0;
  if (::waitpid(maker, &status, 0) != maker || status != 0) return 1;
  nlohmann::json out;
  size_t found = 0;
  out["store.open_ms"] = cpu_seconds_of([&] { found = open_and_load(directory); }) * 1e3;
  if (found != kSnapshots) must(fail(Code::kInternal, std::to_string(found) + " snapshots found"));
  const snapshot::Store store = must(snapshot::Store::open(real_file_system(), directory));
  out["store.open_collect_ms"] = cpu_seconds_of([&] { must(store.collect({}).map([](const auto&) {})); }) * 1e3;
  std::cout << out.dump(2) << "\n";
  return 0;
}
