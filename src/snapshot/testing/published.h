// A store with snapshots in it: a guest's memory of 1 MiB, published whenever a test wants it.
#pragma once

#include "snapshot/testing/fixtures.h"

namespace stasis::snapshot::testing {

class PublishTest : public StoreTest {
 protected:
  PublishTest() { memory_.write(0, Bytes(1 << 20, std::byte{7})); }

  // Publishes what memory_ is now, above `base`.
  Manifest publish(const BlockMap& base, SnapshotId parent = {}) {
    const auto captured = take(memory_, {memory_.whole()}, *open(base));
    Manifest manifest;
    manifest.id = SnapshotId::random();
    manifest.parent = parent;
    const auto directory = store_.begin(manifest.id);
    EXPECT_TRUE(directory) << directory.error().message;
    write_whole_file(*directory / "state", Bytes(1000, std::byte{1}));
    manifest.vm_state = store_.describe_part(manifest.id, "state").value();
    manifest.memory_map = store_.write_map(manifest.id, "memory.map", captured->map).value();
    const Status published = store_.publish(manifest);
    EXPECT_TRUE(published) << published.error().message;
    return manifest;
  }
  Manifest publish_first() { return publish(BlockMap::zeros(1 << 20).value()); }
  Manifest publish_next(const Manifest& parent) { return publish(map_of(parent), parent.id); }
  BlockMap map_of(const Manifest& manifest) { return store_.read_map(manifest.id, *manifest.memory_map).value(); }
  // The layer that a snapshot wrote, `parent` having the others.
  LayerId new_layer(const Manifest& manifest, const std::vector<LayerId>& others) {
    const BlockMap map = map_of(manifest);
    for (const LayerId id : map.layers()) {
      if (std::find(others.begin(), others.end(), id) == others.end()) return id;
    }
    return {};
  }
  LayerId only_layer(const Manifest& manifest) { return new_layer(manifest, {}); }
  CollectStats collect(const std::vector<BlockMap>& roots = {}, const CollectOptions& options = {}) {
    const auto stats = store_.collect(roots, options);
    EXPECT_TRUE(stats) << stats.error().message;
    return stats.value_or(CollectStats{});
  }

  Memory memory_{1 << 20};
};

}  // namespace stasis::snapshot::testing
