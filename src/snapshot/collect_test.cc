// Collection as `stasis store gc` shows it: a dry run and a real one agree, and young rubbish waits. And the usage that
// `stasis store df` shows, which must add up with it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "snapshot/holders.h"
#include "snapshot/testing/published.h"

namespace stasis::snapshot {
namespace {

using testing::block_of;
using testing::Bytes;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class CollectTest : public testing::PublishTest {
 protected:
  // Rubbish of every kind.
  void litter() {
    testing::write_whole_file(*store_.begin(SnapshotId::random()) / "state", Bytes(10'000, std::byte{1}));
    testing::write_whole_file(store_.layers_dir() / (LayerId::random().text() + ".raw.tmp"), block_of(1));
    ASSERT_TRUE(store_.remove(publish_first().id));
  }
  std::vector<std::string> all_files() {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(store_.root()))
      names.push_back(entry.path());
    return names;
  }
  const HolderUsage& usage_of(const StoreUsage& usage, const std::string& id) {
    const auto found = std::find_if(usage.holders.begin(), usage.holders.end(),
                                    [&](const HolderUsage& one) { return one.holder.id == id; });
    EXPECT_NE(found, usage.holders.end());
    return *found;
  }
};

TEST_F(CollectTest, ADryRunRemovesNothingAndSaysWhatWouldGo) {
  const Manifest kept = publish_first();
  litter();
  const auto before = all_files();
  const CollectStats planned = collect({}, {.dry_run = true});
  EXPECT_EQ(all_files(), before);
  EXPECT_EQ(planned.snapshots_swept, 1U);
  EXPECT_EQ(planned.files_swept, 1U);
  EXPECT_EQ(planned.layers_removed, 1U);
  EXPECT_THAT(planned.removed, SizeIs(4)) << "a directory, a temporary file, a layer and its checksums";
  uint64_t bytes = 0;
  for (const auto& removed : planned.removed) {
    EXPECT_TRUE(std::filesystem::exists(store_.root() / removed.file)) << removed.file;
    bytes += removed.bytes;
  }
  EXPECT_EQ(bytes, planned.bytes_freed);
  EXPECT_GE(bytes, (1U << 20) + 10'000);

  const CollectStats done = collect();
  EXPECT_EQ(done.bytes_freed, planned.bytes_freed);
  EXPECT_EQ(done.layers_removed, planned.layers_removed);
  for (const auto& removed : planned.removed) EXPECT_FALSE(std::filesystem::exists(store_.root() / removed.file));
  EXPECT_TRUE(open(map_of(kept)));
  EXPECT_THAT(collect({}, {.dry_run = true}).removed, IsEmpty());
}

TEST_F(CollectTest, YoungRubbishWaits) {
  litter();
  int64_t newest = 0;
  for (const std::string& name : all_files()) newest = std::max(newest, fs_.info(name)->modified_unix_ns);
  CollectOptions options;
  options.grace = std::chrono::seconds(60);
  options.now_unix_ns = newest + 1'000'000'000;
  const CollectStats early = collect({}, options);
  EXPECT_THAT(early.removed, IsEmpty());
  EXPECT_EQ(early.bytes_freed, 0U);
  EXPECT_EQ(early.files_kept, 4U);
  EXPECT_THAT(layer_files(), SizeIs(3));
  options.now_unix_ns = newest + 60'000'000'000;
  const CollectStats late = collect({}, options);
  EXPECT_THAT(late.removed, SizeIs(4));
  EXPECT_EQ(late.files_kept, 0U);
  EXPECT_THAT(layer_files(), IsEmpty());
}

TEST_F(CollectTest, UsageTellsOwnFromShared) {
  const Manifest first = publish_first();
  memory_.write(0, block_of(1));
  const Manifest second = publish_next(first);
  const BlockMap map = map_of(second);
  const auto usage = measure_usage(store_, {});
  ASSERT_TRUE(usage) << usage.error().message;
  ASSERT_THAT(usage->holders, SizeIs(2));
  EXPECT_EQ(usage->layers, 2U);
  const HolderUsage& one = usage_of(*usage, first.id.text());
  const HolderUsage& two = usage_of(*usage, second.id.text());
  EXPECT_EQ(one.own_bytes, one.holder.part_bytes) << "its only layer is the second's too";
  EXPECT_GE(one.shared_bytes, 1U << 20);
  EXPECT_EQ(two.shared_bytes, one.shared_bytes);
  EXPECT_GT(two.own_bytes, two.holder.part_bytes);
  EXPECT_LT(two.own_bytes, 1U << 20);
  EXPECT_EQ(two.holder.parent, first.id);

  // Deleting one gives back what was its own.
  ASSERT_TRUE(store_.remove(second.id));
  EXPECT_EQ(collect().bytes_freed, two.own_bytes - two.holder.part_bytes);
  const auto after = measure_usage(store_, {});
  EXPECT_EQ(after->holders.at(0).shared_bytes, 0U);
  EXPECT_EQ(after->holders.at(0).own_bytes, one.own_bytes + one.shared_bytes);
  EXPECT_LE(after->holders.at(0).own_bytes, after->total_bytes);
}

TEST_F(CollectTest, SandboxesHoldLayersToo) {
  const Manifest first = publish_first();
  const std::vector<SandboxMaps> sandboxes{{"box", {map_of(first)}}};
  const auto usage = measure_usage(store_, sandboxes);
  ASSERT_TRUE(usage);
  const HolderUsage& box = usage_of(*usage, "box");
  EXPECT_EQ(box.holder.kind, Holder::Kind::kSandbox);
  EXPECT_EQ(box.own_bytes, 0U);
  EXPECT_EQ(box.shared_bytes, usage_of(*usage, first.id.text()).shared_bytes);
  EXPECT_GE(box.shared_bytes, 1U << 20);
}

TEST_F(CollectTest, ADamagedSnapshotIsListedWithWhy) {
  const Manifest first = publish_first();
  testing::damage_file(store_.snapshot_dir(first.id) / "manifest", 40);
  const auto usage = measure_usage(store_, {});
  ASSERT_TRUE(usage);
  EXPECT_NE(usage_of(*usage, first.id.text()).holder.damage, "");
}

}  // namespace
}  // namespace stasis::snapshot
