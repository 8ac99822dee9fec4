// The threads that the agent keeps for its store: scrubbing and compaction, each with its thread.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <future>

#include "agent/compactor.h"
#include "agent/scrubber.h"
#include "base/clock.h"
#include "snapshot/testing/published.h"

namespace stasis::agent {
namespace {

using snapshot::Manifest;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class ScrubberTest : public snapshot::testing::PublishTest {
 protected:
  // A scrubber that begins at once; its first pass has ended when this returns.
  std::unique_ptr<Scrubber> scrub() {
    std::promise<void> passed;
    ScrubOptions options;
    options.bytes_per_second = 0;
    options.settle = Milliseconds(0);
    options.on_pass = [&] { passed.set_value(); };
    auto scrubber = Scrubber::start(store_, file_, options).value();
    passed.get_future().wait();
    return scrubber;
  }
  // As if the last pass had been long ago.
  void make_due() { write("{\"started_unix_ms\": 1, \"finished_unix_ms\": 2, \"under_way\": false", ""); }
  void write(const std::string& head, const std::string& done) {
    std::ofstream(file_) << head << ", \"bytes\": 0, \"done\": \"" << (done.empty() ? Uuid().text() : done)
                         << "\", \"damaged\": [], \"damaged_before\": [\"old\"]}";
  }
  Path data_of(snapshot::LayerId id) const { return layer_data_path(store_.layers_dir(), id); }

  const Path file_ = dir_.path() / "scrub.json";
};

TEST_F(ScrubberTest, APassFindsTheDamagedFrameAndTheNextOneThatItHasGone) {
  const Manifest manifest = publish_first();
  const Path damaged = data_of(only_layer(manifest));
  snapshot::testing::damage_file(damaged, 70'000);
  const ScrubStatus found = scrub()->status();
  EXPECT_THAT(found.damaged_before, ElementsAre(damaged.string()));
  EXPECT_THAT(found.damaged, IsEmpty());
  EXPECT_FALSE(found.under_way);
  EXPECT_GE(found.bytes, 1U << 20);
  EXPECT_GE(found.finished_unix_ms, found.started_unix_ms);
  EXPECT_TRUE(std::filesystem::exists(damaged)) << "nothing is removed";
  EXPECT_TRUE(store_.load(manifest.id));

  snapshot::testing::damage_file(damaged, 70'000);  // flips it back
  make_due();
  EXPECT_THAT(scrub()->status().damaged_before, IsEmpty());
}

TEST_F(ScrubberTest, APassThatWasCutOffGoesOnBehindTheLayerThatItHadDone) {
  const Manifest manifest = publish_first();
  snapshot::testing::damage_file(data_of(only_layer(manifest)), 70'000);
  const int64_t begun = unix_time_ms() - 3'600'000;  // so that the next pass is days away
  write("{\"started_unix_ms\": " + std::to_string(begun) + ", \"finished_unix_ms\": 0, \"under_way\": true",
        only_layer(manifest).text());
  const ScrubStatus status = scrub()->status();
  EXPECT_EQ(status.started_unix_ms, begun) << "it is the same pass";
  EXPECT_THAT(status.damaged_before, IsEmpty()) << "the layer was behind it";
  EXPECT_LT(status.bytes, 1U << 20);
}

TEST_F(ScrubberTest, StoppedInTheMiddleItKeepsWhereItIs) {
  publish_first();
  ScrubOptions options;
  options.bytes_per_second = 1;  // a part is read at once, and then nothing for a long time
  options.settle = Milliseconds(0);
  auto scrubber = Scrubber::start(store_, file_, options).value();
  while (scrubber->status().bytes == 0) std::this_thread::yield();
  scrubber.reset();
  EXPECT_THAT(snapshot::testing::read_whole_file(file_).size(), ::testing::Gt(0U));
  const ScrubStatus status = scrub()->status();
  EXPECT_FALSE(status.under_way);
  EXPECT_GE(status.bytes, 1U << 20);
}

TEST_F(ScrubberTest, AFileThatIsNonsenseCostsAPassFromTheBeginning) {
  const Manifest manifest = publish_first();
  std::ofstream(file_) << "{\"under_way\": \"perhaps\"}";
  EXPECT_GE(scrub()->status().bytes, 1U << 20);
}

using CompactorTest = snapshot::testing::PublishTest;

TEST_F(CompactorTest, TheThreadCompactsWhatIsStartedOften) {
  const Manifest first = publish_first();
  memory_.write(0, snapshot::testing::block_of(9));
  const Manifest second = publish_next(first);
  ASSERT_EQ(map_of(second).layers().size(), 2U);

  std::promise<void> compacted;
  const auto roots = []() -> Result<std::vector<snapshot::BlockMap>> { return std::vector<snapshot::BlockMap>(); };
  const auto compactor =
      Compactor::start(store_, roots, [&] { compacted.set_value(); }, {0, Milliseconds(1), 0}).value();
  for (uint64_t i = 0; i < snapshot::kStartedOften; ++i) compactor->count_start(second.id);
  compacted.get_future().wait();
  EXPECT_EQ(map_of(store_.load(second.id).value()).layers().size(), 1U);
  EXPECT_EQ(snapshot::testing::read_all(*open(map_of(store_.load(second.id).value()))), memory_.content);
}

}  // namespace
}  // namespace stasis::agent
