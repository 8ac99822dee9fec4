#include "snapshot/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "base/poll.h"
#include "base/testing/faulty_file_system.h"
#include "snapshot/layer_sums.h"
#include "snapshot/testing/published.h"
#include "snapshot/verified.h"

namespace stasis::snapshot {
namespace {

using testing::block_of;
using testing::Bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

class VerifyTest : public testing::PublishTest {
 protected:
  Result<VerifyReport> verify(const std::vector<SnapshotId>& ids) {
    damages_.clear();
    options_.on_damage = [this](const Damage& damage) { damages_.push_back(damage); };
    return snapshot::verify(store_, ids, options_, &notes_);
  }
  Path data_of(LayerId id) { return layer_data_path(store_.layers_dir(), id); }

  VerifyOptions options_;
  VerifiedLayers notes_{store_};
  std::vector<Damage> damages_;
};

TEST_F(VerifyTest, WhatIsWholeIsCheckedOnceAndNoted) {
  const Manifest first = publish_first();
  memory_.write(0, block_of(1));
  const Manifest second = publish_next(first);
  VerifyProgress last;
  options_.on_progress = [&](const VerifyProgress& progress) {
    EXPECT_GE(progress.bytes, last.bytes);
    last = progress;
    return true;
  };
  const auto report = verify({first.id, second.id});
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->snapshots, 2U);
  EXPECT_EQ(report->layers, 2U);
  EXPECT_EQ(report->frames, 17U) << "sixteen of the first layer, which both need, and one of the second";
  EXPECT_EQ(report->damages, 0U);
  EXPECT_THAT(damages_, IsEmpty());
  EXPECT_EQ(last.bytes, last.total_bytes);
  EXPECT_EQ(report->bytes, last.bytes);
  const BlockMap map = map_of(second);
  for (const LayerId id : map.layers()) EXPECT_TRUE(notes_.holds(id));
}

TEST_F(VerifyTest, DamagedFramesAreAllNamedWithEveryoneWhoNeedsThem) {
  const Manifest first = publish_first();
  const LayerId layer = only_layer(first);
  ASSERT_TRUE(verify({first.id}));
  memory_.write(0, block_of(1));
  const Manifest second = publish_next(first);
  memory_.write(0, Bytes(1 << 20, std::byte{9}));
  const Manifest apart = publish_first();
  testing::damage_file(data_of(layer), 3 * kFrameSize + 5);
  testing::damage_file(data_of(layer), 15 * kFrameSize);
  EXPECT_FALSE(notes_.holds(layer)) << "its file has changed";
  const auto report = verify({first.id, second.id, apart.id});
  ASSERT_TRUE(report);
  EXPECT_EQ(report->damages, 2U);
  ASSERT_THAT(damages_, SizeIs(2));
  EXPECT_EQ(damages_[0].file, data_of(layer).string());
  EXPECT_EQ(damages_[0].frame, 3U);
  EXPECT_THAT(damages_[0].message, HasSubstr("frame 3"));
  EXPECT_THAT(damages_[0].snapshots, UnorderedElementsAre(first.id, second.id));
  EXPECT_EQ(damages_[1].frame, 15U);
  EXPECT_FALSE(notes_.holds(layer));
  EXPECT_TRUE(notes_.holds(only_layer(apart))) << "another's damage is not its own";
}

TEST_F(VerifyTest, MissingAndTornFilesAreDamage) {
  const Manifest first = publish_first();
  const LayerId layer = only_layer(first);
  std::filesystem::rename(data_of(layer), dir_.path() / "aside");
  ASSERT_TRUE(verify({first.id}));
  ASSERT_THAT(damages_, SizeIs(1));
  EXPECT_FALSE(damages_[0].frame);
  std::filesystem::rename(dir_.path() / "aside", data_of(layer));
  ASSERT_TRUE(verify({first.id}));
  EXPECT_THAT(damages_, IsEmpty());
  std::filesystem::resize_file(layer_sums_path(store_.layers_dir(), layer), 100);
  ASSERT_TRUE(verify({first.id}));
  EXPECT_THAT(damages_, SizeIs(1));
}

TEST_F(VerifyTest, PartsAreChecked) {
  const Manifest first = publish_first();
  const Path directory = store_.snapshot_dir(first.id);
  testing::damage_file(directory / "state", 999);
  testing::damage_file(directory / "memory.map", 90);
  ASSERT_TRUE(verify({first.id}));
  ASSERT_THAT(damages_, SizeIs(2));
  EXPECT_EQ(damages_[0].file, (directory / "state").string());
  EXPECT_EQ(damages_[1].file, (directory / "memory.map").string());
  EXPECT_THAT(damages_[1].snapshots, ElementsAre(first.id));
  testing::damage_file(directory / "manifest", 40);
  ASSERT_TRUE(verify({first.id}));
  ASSERT_THAT(damages_, SizeIs(1)) << "what it consists of is not known any more";
  EXPECT_EQ(damages_[0].file, (directory / "manifest").string());
}

TEST_F(VerifyTest, AMapThatPointsToNothingIsDamage) {
  const Manifest first = publish_first();
  const LayerId layer = only_layer(first);
  const Path sums_path = layer_sums_path(store_.layers_dir(), layer);
  LayerSums sums = LayerSums::decode(testing::read_whole_file(sums_path)).value();
  sums.frames.erase(sums.frames.begin() + 7);
  sums.checksums.erase(sums.checksums.begin() + 7);
  sums.data_bytes -= kFrameSize;
  testing::write_whole_file(sums_path, sums.encode());
  ASSERT_TRUE(verify({first.id}));
  ASSERT_THAT(damages_, SizeIs(1));
  EXPECT_EQ(damages_[0].frame, 7U);
  EXPECT_FALSE(notes_.holds(layer));
}

TEST_F(VerifyTest, WhatIsDeletedMeanwhileIsNotReported) {
  const Manifest first = publish_first();
  const Manifest second = publish_first();
  testing::damage_file(data_of(only_layer(first)), 0);
  bool removed = false;
  options_.on_progress = [&](const VerifyProgress&) {
    if (!std::exchange(removed, true)) {
      EXPECT_TRUE(store_.remove(first.id));
      EXPECT_EQ(collect().layers_removed, 1U);
    }
    return true;
  };
  const auto report = verify({first.id, second.id});
  ASSERT_TRUE(report);
  EXPECT_EQ(report->damages, 0U);
  EXPECT_EQ(verify({first.id}).error().code, Code::kNotFound);
}

TEST_F(VerifyTest, ItCanBeEnded) {
  const Manifest first = publish_first();
  int asked = 0;
  options_.on_progress = [&](const VerifyProgress&) { return ++asked < 5; };
  EXPECT_EQ(verify({first.id}).error().code, Code::kCancelled);
  EXPECT_EQ(asked, 5);
  EXPECT_FALSE(notes_.holds(only_layer(first))) << "it was not read to its end";
}

TEST_F(VerifyTest, AVerificationThatWasCancelledGoesOnBehindTheLastLayerThatItHadDone) {
  const Manifest first = publish_first();
  memory_.write(0, testing::block_of(9));
  const Manifest second = publish_next(first);
  const Event cancel = Event::create().value();
  std::vector<LayerId> done;
  options_.on_layer = [&](LayerId id) {
    done.push_back(id);
    cancel.set();
  };
  options_.limit = RateLimit(0, cancel.fd());
  const auto cut_off = verify({second.id});
  ASSERT_FALSE(cut_off);
  EXPECT_EQ(cut_off.error().code, Code::kCancelled);
  ASSERT_EQ(done.size(), 1U);

  options_.limit = RateLimit();
  options_.after = done[0];
  const auto rest = verify({second.id});
  ASSERT_TRUE(rest) << rest.error().message;
  EXPECT_EQ(rest->layers, 1U);
  const BlockMap map = map_of(second);
  EXPECT_THAT(done, ::testing::UnorderedElementsAreArray(map.layers().begin(), map.layers().end()));
}

class VerifiedTest : public VerifyTest {
 protected:
  VerifiedTest() : manifest_(publish_first()), layer_(only_layer(manifest_)) {}

  // Changes a byte, at another time than the last change: the kernel's clock for files moves in steps.
  void damage_later(uint64_t offset) {
    const std::string before = notes_.identity(layer_).value();
    do {
      testing::damage_file(data_of(layer_), offset);
      testing::damage_file(data_of(layer_), offset);
    } while (notes_.identity(layer_).value() == before);
    testing::damage_file(data_of(layer_), offset);
  }

  const Manifest manifest_;
  const LayerId layer_;
};

TEST_F(VerifiedTest, ANoteIsVoidAfterABoot) {
  const VerifiedLayers before(store_, "the boot before");
  ASSERT_TRUE(before.note(layer_, before.identity(layer_).value()));
  EXPECT_TRUE(before.holds(layer_));
  EXPECT_FALSE(notes_.holds(layer_));
}

TEST_F(VerifiedTest, ANoteIsVoidWhenTheFileIsAnotherThoughItLooksTheSame) {
  ASSERT_TRUE(verify({manifest_.id}));
  ASSERT_TRUE(notes_.holds(layer_));
  const auto time = std::filesystem::last_write_time(data_of(layer_));
  damage_later(100);
  std::filesystem::last_write_time(data_of(layer_), time);
  EXPECT_FALSE(notes_.holds(layer_));
}

TEST_F(VerifiedTest, WhatChangesWhileItIsReadIsNotNoted) {
  const std::string before = notes_.identity(layer_).value();
  damage_later(100);
  EXPECT_EQ(notes_.note(layer_, before).error().code, Code::kAborted);
  EXPECT_FALSE(notes_.holds(layer_));
}

TEST_F(VerifiedTest, ATornNoteSaysNothing) {
  ASSERT_TRUE(verify({manifest_.id}));
  const Path note = store_.root() / kVerifiedDirectory / layer_.text();
  const auto whole = testing::read_whole_file(note);
  for (size_t length = 0; length < whole.size(); ++length) {
    testing::write_whole_file(note, Bytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(length)));
    ASSERT_FALSE(notes_.holds(layer_)) << length;
  }
  EXPECT_FALSE(notes_.holds(LayerId::random()));
}

// It says nothing of the store: neither is anything told as damaged, nor what was known of a layer forgotten.
TEST_F(VerifiedTest, AHostWithoutDescriptorsOrMemoryIsNoDamage) {
  ASSERT_TRUE(verify({manifest_.id}));
  ::stasis::testing::FaultyFileSystem faulty;
  const Store store = Store::attach(faulty, store_.root());
  const VerifiedLayers notes(store);
  for (uint64_t call = 1, fired = 1; fired; ++call) {
    faulty.fail_at(call, call % 2 == 0 ? EMFILE : ENOMEM);
    const auto report = snapshot::verify(store, std::vector{manifest_.id}, options_, &notes);
    fired = faulty.fired();
    faulty.heal();
    ASSERT_TRUE(report || report.error().code == Code::kResourceExhausted) << report.error().message;
    ASSERT_THAT(damages_, IsEmpty()) << "call " << call << ": " << damages_[0].message;
    ASSERT_TRUE(!report || report->layers == 1) << "call " << call << ": it has passed over a layer";
    ASSERT_TRUE(notes_.holds(layer_)) << "call " << call;
  }
}

TEST_F(VerifiedTest, NotesGoWithTheirLayers) {
  const Manifest other = publish_first();
  ASSERT_TRUE(verify({manifest_.id, other.id}));
  testing::write_whole_file(store_.root() / kVerifiedDirectory / "half.tmp", Bytes(3));
  ASSERT_TRUE(store_.remove(manifest_.id));
  collect();
  EXPECT_THAT(fs_.list(store_.root() / kVerifiedDirectory).value(), ElementsAre(only_layer(other).text()));
  EXPECT_TRUE(notes_.holds(only_layer(other)));
}

}  // namespace
}  // namespace stasis::snapshot
