#include "files/journal.h"

#include <gmock/gmock.h>

#include <set>

#include "files/testing/ext_disk.h"
#include "files/testing/journal_builder.h"

namespace stasis::files {
namespace {

using snapshot::testing::Bytes;
using ::testing::ElementsAre;
using testing::filled;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::JournalBuilder;
using testing::kJournalBlock;
using ::testing::Pair;

MATCHER_P(Replays, block, "") { return arg == (ReplayedBlock{static_cast<uint64_t>(block), false}); }

TEST(JournalTest, WhatWasCommittedIsReplayedAndTheLatestCounts) {
  JournalBuilder journal;
  journal.descriptor(1, {{100, filled(1)}, {200, filled(2)}}).commit(1).descriptor(2, {{100, filled(3)}}).commit(2);
  EXPECT_THAT(journal.read().value(), ElementsAre(Pair(100, Replays(6)), Pair(200, Replays(3))));
}

TEST(JournalTest, AnEmptyOneSaysNothing) {
  JournalBuilder journal;
  journal.descriptor(1, {{100, filled(1)}}).commit(1);
  journal.set_superblock(0x1C, 0);
  EXPECT_THAT(journal.read().value(), IsEmpty());
}

TEST(JournalTest, ATransactionWithoutItsCommitIsNotThere) {
  JournalBuilder journal;
  journal.descriptor(1, {{100, filled(1)}}).commit(1).descriptor(2, {{200, filled(2)}});
  EXPECT_THAT(journal.read().value(), ElementsAre(Pair(100, Replays(2))));
}

TEST(JournalTest, ATornCommitEndsIt) {
  JournalBuilder journal;
  journal.descriptor(1, {{100, filled(1)}})
      .commit(1)
      .descriptor(2, {{200, filled(2)}})
      .commit(2)
      .descriptor(3, {{300, filled(3)}})
      .commit(3);
  journal.block(6)[0x30] ^= std::byte{1};
  EXPECT_THAT(journal.read().value(), ElementsAre(Pair(100, Replays(2))));
}

TEST(JournalTest, WhatIsLeftOfOlderTransactionsIsNotReplayed) {
  JournalBuilder journal(32, 7);
  journal.descriptor(7, {{100, filled(1)}}).commit(7).descriptor(4, {{200, filled(2)}}).commit(4);
  EXPECT_THAT(journal.read().value(), ElementsAre(Pair(100, Replays(2))));
}

TEST(JournalTest, ItGoesRound) {
  JournalBuilder journal(8, 1, 6);
  journal.descriptor(1, {{100, filled(1)}, {200, filled(2)}}).commit(1);
  EXPECT_THAT(journal.read().value(), ElementsAre(Pair(100, Replays(7)), Pair(200, Replays(1))));
}

TEST(JournalTest, NumbersOfTransactionsGoRoundToo) {
  JournalBuilder journal(32, UINT32_MAX);
  journal.descriptor(UINT32_MAX, {{100, filled(1)}, {200, filled(1)}}).commit(UINT32_MAX);
  journal.revoke(0, {100}).descriptor(0, {{300, filled(2)}}).commit(0);
  EXPECT_THAT(journal.read().value(), ElementsAre(Pair(200, Replays(3)), Pair(300, Replays(7))));
}

TEST(JournalTest, RevokedIsWhatWasWrittenUntilThen) {
  JournalBuilder journal;
  journal.descriptor(1, {{100, filled(1)}, {200, filled(1)}}).commit(1);
  journal.revoke(2, {100, 200}).descriptor(2, {{300, filled(1)}}).commit(2);
  journal.descriptor(3, {{200, filled(2)}}).commit(3);
  EXPECT_THAT(journal.read().value(), ElementsAre(Pair(200, Replays(10)), Pair(300, Replays(7))));
}

TEST(JournalTest, ARevocationThatWasNotCommittedRevokesNothing) {
  JournalBuilder journal;
  journal.descriptor(1, {{100, filled(1)}}).commit(1).revoke(2, {100});
  EXPECT_THAT(journal.read().value(), ElementsAre(Pair(100, Replays(2))));
}

TEST(JournalTest, BlockNumbersHave64Bits) {
  JournalBuilder journal;
  const uint64_t block = (uint64_t{5} << 32) + 7;
  journal.descriptor(1, {{block, filled(1)}}).commit(1);
  EXPECT_THAT(journal.read(block + 1).value(), ElementsAre(Pair(block, Replays(2))));
  EXPECT_EQ(journal.read(block).error().code, Code::kDataLoss);
}

TEST(JournalTest, AnEscapedBlockIsSaid) {
  JournalBuilder journal;
  journal.descriptor(1, {{100, filled(0), 1}}).commit(1);
  EXPECT_THAT(journal.read().value(), ElementsAre(Pair(100, ReplayedBlock{2, true})));
}

TEST(JournalTest, ADamagedBlockOfAWholeTransactionIsDataLoss) {
  for (const uint64_t block : {1U, 2U, 4U}) {  // descriptor, data, revocation
    JournalBuilder journal;
    journal.descriptor(1, {{100, filled(1)}}).commit(1).revoke(2, {300}).commit(2);
    journal.block(block)[500] ^= std::byte{1};
    EXPECT_EQ(journal.read().error().code, Code::kDataLoss) << block;
  }
}

TEST(JournalTest, ASuperblockThatCannotBeIsDataLoss) {
  const std::pair<size_t, uint32_t> wrong[] = {{0, 1},    {4, 2},     {0x0C, 4096}, {0x10, 33},  {0x10, 0},
                                               {0x14, 0}, {0x14, 32}, {0x1C, 32},   {0x1C, ~0U}, {0x28, 1 | 8 | 16}};
  for (const auto& [at, value] : wrong) {
    JournalBuilder journal;
    journal.descriptor(1, {{100, filled(1)}}).commit(1);
    journal.set_superblock(at, value);
    const auto read = journal.read();
    ASSERT_FALSE(read) << at << " " << value;
    EXPECT_EQ(read.error().code, Code::kDataLoss) << at << " " << value;
  }
  JournalBuilder journal;
  journal.block(0)[0x40] ^= std::byte{1};
  EXPECT_THAT(journal.read().error().message, HasSubstr("wrong checksum"));
}

TEST(JournalTest, WhatThisCodeDoesNotKnowIsNotGuessed) {
  for (const uint32_t feature : {32U, 64U, 1U << 31}) {
    JournalBuilder journal;
    journal.set_superblock(0x28, 1 | 2 | 16 | feature);
    EXPECT_EQ(journal.read().error().code, Code::kUnimplemented) << feature;
  }
}

TEST(JournalTest, ARevocationLongerThanItsBlockIsDataLoss) {
  JournalBuilder journal;
  journal.revoke(1, {100}).commit(1);
  put_be32(journal.block(1), 12, 1 << 20);
  journal.seal(journal.block(1), kJournalBlock - 4);
  EXPECT_EQ(journal.read().error().code, Code::kDataLoss);
}

TEST(JournalTest, OneThatIsFullOfDescriptorsEnds) {
  JournalBuilder journal(32);
  for (int i = 0; i < 31; ++i) {
    journal.descriptor(1, {{100, filled(1)}});
  }
  EXPECT_THAT(journal.read().value(), IsEmpty());
}

TEST(JournalTest, TheCorpusOfTheFuzzTargetIsOfJournalsThatSaySomething) {
  for (const auto& entry : std::filesystem::directory_iterator(STASIS_JOURNAL_CORPUS)) {
    const Bytes bytes = snapshot::testing::read_whole_file(entry.path());
    const JournalSource source{kJournalBlock, bytes.size() / kJournalBlock,
                               [&](uint64_t block, std::span<std::byte> out) -> Status {
                                 std::memcpy(out.data(), bytes.data() + block * kJournalBlock, out.size());
                                 return {};
                               }};
    const auto replay = read_journal(source, 8192);
    ASSERT_TRUE(replay) << entry.path() << ": " << replay.error().message;
    EXPECT_EQ(replay->size(), 4U) << entry.path();
  }
}

// What debugfs writes into a journal, replayed here and by e2fsck.
struct Kind {
  const char* name;
  std::vector<std::string> options;
  std::string open;
};

class AsE2fsck : public testing::ExtDiskTest, public ::testing::WithParamInterface<Kind> {};

TEST_P(AsE2fsck, EveryBlockIsTheSame) {
  std::mt19937_64 random(1);
  for (const std::string name : {"one", "two"}) {
    const Bytes bytes = snapshot::testing::random_bytes(random, 16384);
    write_file(name, std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  }
  write_file("escaped", "\xC0\x3B\x39\x98" + std::string(4096, 'e'));
  const std::string one = path("one").string();
  const std::string two = path("two").string();
  const std::string script = "jo " + GetParam().open + "\njw -b 1500-1503 " + one + "\njw -b 1600,1502 " + two +
                             "\njw -r 1500\njw -b 1700 " + path("escaped").string() +
                             "\njw -b 1601-1603 -r 1600,1602 " + one + "\njw -b 1602 " + two + "\njc\n";
  const Path image = changed(make("image", GetParam().options, 16), "journal", script);
  const auto space = disk(image);
  DiskImage view(*space);
  const auto file_system = ExtFileSystem::open(view);
  ASSERT_TRUE(file_system) << file_system.error().message;
  Bytes ours(view.size());
  ASSERT_TRUE(view.read(0, ours));
  const Bytes unreplayed = snapshot::testing::read_all(*space);
  ASSERT_LE(run({"e2fsck", "-fy", "-E", "journal_only", image.string()}), 1);
  const Bytes theirs = snapshot::testing::read_whole_file(image);
  std::set<size_t> differ;
  std::set<size_t> replayed;
  for (size_t at = 0; at < ours.size(); ++at) {
    if (ours[at] != theirs[at]) differ.insert(at / 1024);
    if (ours[at] != unreplayed[at]) replayed.insert(at / 1024);
  }
  EXPECT_GE(replayed.size(), 5U);
  // e2fsck notes that it was there: in the superblock, and in the journal's.
  EXPECT_LE(differ.size(), 2U);
  EXPECT_EQ(differ.count(1), 1U);
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, AsE2fsck,
    ::testing::Values(
        Kind{"plain", {"-t", "ext3", "-b", "1024", "-J", "size=4"}, ""},
        Kind{"checksumOfTransactions",
             {"-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^64bit", "-J", "size=4"},
             "-c"},
        Kind{"version2", {"-t", "ext4", "-b", "4096", "-O", "metadata_csum,^64bit", "-J", "size=4"}, "-c -v 2"},
        Kind{"version2Wide", {"-t", "ext4", "-b", "1024", "-O", "metadata_csum,64bit", "-J", "size=4"}, "-c -v 2"},
        Kind{"version3", {"-t", "ext4", "-b", "4096", "-O", "metadata_csum,^64bit", "-J", "size=4"}, "-c -v 3"},
        Kind{"version3Wide", {"-t", "ext4", "-b", "1024", "-O", "metadata_csum,64bit", "-J", "size=4"}, "-c -v 3"},
        Kind{"wide", {"-t", "ext4", "-b", "2048", "-O", "^metadata_csum,64bit", "-J", "size=4"}, ""}),
    [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace stasis::files
