// A hostile archive: an import refuses it and leaves nothing, or makes a snapshot that reads whole.
#include <algorithm>
#include <cstdlib>

#include "base/testing/temp_dir.h"
#include "snapshot/archive.h"

using namespace stasis;
using namespace stasis::snapshot;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const stasis::testing::TempDir directory;
  static const Store store = Store::open(real_file_system(), directory.path() / "store").value();
  std::span<const uint8_t> rest(data, size);
  const ArchiveSource source = [&](std::span<std::byte> out) -> Result<size_t> {
    const size_t n = std::min(out.size(), rest.size());
    std::copy_n(std::as_bytes(rest).begin(), n, out.begin());
    rest = rest.subspan(n);
    return n;
  };
  ImportOptions options;
  options.id = SnapshotId::random();
  const auto manifest = import_snapshot(store, options, source);
  if (manifest) {
    for (const auto& part : {manifest->memory_map, manifest->disk_map}) {
      auto space = AddressSpace::open(store.fs(), store.layers_dir(), store.read_map(options.id, *part).value());
      if (!space) std::abort();
      for (const LayerId id : (*space)->map().layers()) {
        if (!(*space)->layer(id)->verify_all()) std::abort();
      }
    }
    if (!store.remove(options.id)) std::abort();
  }
  if (!store.collect(std::vector<BlockMap>{})) std::abort();
  if (!store.fs().list(store.layers_dir())->empty() || !store.list()->empty()) std::abort();
  return 0;
}
