// Imports that break and are gone on with: nothing of two archives is mixed, nothing kept is lost without need, and
// nothing stays that nobody wants.
#include "snapshot/kept_import.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/clock.h"
#include "snapshot/testing/archived.h"

namespace stasis::snapshot {
namespace {

using testing::archived_guest;
using testing::Bytes;
using testing::FaultyStore;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

Kept kept_of(const Bytes& bytes) { return {bytes.size(), checksum(bytes)}; }

Bytes first(const Bytes& bytes, size_t count) { return {bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(count)}; }
Bytes behind(const Bytes& bytes, size_t count) { return {bytes.begin() + static_cast<ptrdiff_t>(count), bytes.end()}; }

class KeptImportTest : public ::testing::Test {
 protected:
  // Gives `bytes` and then fails, as when the sender has gone; or ends, if it is to.
  static ArchiveSource source_of(const Bytes& bytes, bool ends) {
    auto position = std::make_shared<size_t>(0);
    return [bytes, ends, position](std::span<std::byte> out) -> Result<size_t> {
      const size_t n = std::min({size_t{1000}, out.size(), bytes.size() - *position});
      if (n == 0 && !ends) return fail(Code::kCancelled, "the sender has gone");
      std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(*position), n, out.begin());
      *position += n;
      return n;
    };
  }
  Result<Manifest> import(const Bytes& bytes, const Kept& from, bool ends, SnapshotId id = SnapshotId::random()) {
    ImportOptions options;
    options.id = id;
    return import_kept_snapshot(into(), options, {stream_, from}, source_of(bytes, ends));
  }
  // The first bytes arrive, and then the sender is gone.
  void break_after(const Bytes& bytes, const Kept& from = {}) {
    const auto broken = import(bytes, from, false);
    ASSERT_FALSE(broken);
    EXPECT_EQ(broken.error().code, Code::kCancelled) << broken.error().message;
  }
  Result<Kept> kept() const { return find_kept_import(to_.healthy, stream_); }
  void expect_whole(SnapshotId id) {
    to_.expect_listed_snapshots_whole({{id, archived_guest().content}});
    ASSERT_TRUE(forget_kept_import(to_.healthy, stream_));
    ASSERT_TRUE(to_.healthy.collect(std::vector<BlockMap>{}));
    to_.expect_nothing_else();
  }
  const Store& into() { return faulty_ ? to_.store : to_.healthy; }

  const Bytes& whole_ = archived_guest().archive;
  FaultyStore to_;
  bool faulty_ = false;
  const Uuid stream_ = Uuid::random();
};

TEST_F(KeptImportTest, OneThatBrokeAnywhereIsGoneOnWith) {
  testing::Random random(11);
  std::vector<size_t> cuts{1, 71, 72, 73, whole_.size() - 1, whole_.size()};
  for (int i = 0; i < 20; ++i) cuts.push_back(testing::pick(random, 1, whole_.size()));
  for (const size_t cut : cuts) {
    SCOPED_TRACE("cut at " + std::to_string(cut) + " of " + std::to_string(whole_.size()));
    break_after(first(whole_, cut));
    ASSERT_EQ(kept().value(), kept_of(first(whole_, cut)));
    EXPECT_THAT(to_.healthy.list().value(), IsEmpty());
    // And once more: half of the rest.
    const size_t further = cut + (whole_.size() - cut) / 2;
    break_after(behind(first(whole_, further), cut), *kept());
    ASSERT_EQ(kept().value(), kept_of(first(whole_, further)));
    const SnapshotId id = SnapshotId::random();
    const auto manifest = import(behind(whole_, further), *kept(), true, id);
    ASSERT_TRUE(manifest) << manifest.error().message;
    EXPECT_EQ(kept().value(), kept_of(whole_)) << "the caller may refuse the snapshot yet";
    expect_whole(id);
    ASSERT_TRUE(to_.healthy.remove(id));
  }
}

// As a pipe does whose other end died: an archive that is cut off is refused, and what came of it is kept.
TEST_F(KeptImportTest, OneThatEndsTooEarlyIsRefusedAndKept) {
  const Bytes half = first(whole_, whole_.size() / 2);
  EXPECT_EQ(import(half, {}, true).error().code, Code::kDataLoss);
  EXPECT_EQ(kept().value(), kept_of(half));
}

TEST_F(KeptImportTest, WhatIsDamagedIsNotKept) {
  Bytes damaged = whole_;
  damaged[whole_.size() / 2] ^= std::byte{1};
  EXPECT_EQ(import(damaged, {}, true).error().code, Code::kDataLoss);
  EXPECT_EQ(kept().error().code, Code::kNotFound);
  EXPECT_EQ(import(Bytes(5000, std::byte{7}), {}, true).error().code, Code::kInvalidArgument);
  EXPECT_THAT(to_.files(), IsEmpty());
}

TEST_F(KeptImportTest, OnlyWhatIsKeptIsGoneOnWith) {
  const Bytes half = first(whole_, whole_.size() / 2);
  const Kept others = {half.size(), checksum(half) + 1};
  EXPECT_EQ(import(behind(whole_, half.size()), kept_of(half), true).error().code, Code::kFailedPrecondition);
  break_after(half);
  for (const Kept& wrong : {others, kept_of(first(half, 100)), kept_of(whole_)}) {
    const auto refused = import(behind(whole_, half.size()), wrong, true);
    EXPECT_EQ(refused.error().code, Code::kFailedPrecondition) << refused.error().message;
    EXPECT_EQ(kept().value(), kept_of(half));
  }
}

// Somebody begins again though something is kept, and breaks off: what was kept before is not less.
TEST_F(KeptImportTest, BeginningAgainLosesNothing) {
  const Bytes half = first(whole_, whole_.size() / 2);
  break_after(half);
  break_after(first(whole_, 1000));
  EXPECT_EQ(kept().value(), kept_of(half));
  const Bytes more = first(whole_, half.size() + 500);
  break_after(more);
  EXPECT_EQ(kept().value(), kept_of(more));
  // Another archive of the same name takes its place from where it differs.
  Bytes other = more;
  other.back() ^= std::byte{1};
  break_after(first(other, other.size()));
  EXPECT_EQ(kept().value(), kept_of(other));
  const SnapshotId id = SnapshotId::random();
  ASSERT_TRUE(import(whole_, {}, true, id));
  EXPECT_EQ(kept().value(), kept_of(whole_));
  expect_whole(id);
}

TEST_F(KeptImportTest, TwoAtOnceOneWins) {
  Result<Manifest> second = fail(Code::kUnknown, "");
  int other_streams = 0;
  Bytes bytes = whole_;
  size_t position = 0;
  const ArchiveSource source = [&](std::span<std::byte> out) -> Result<size_t> {
    if (position == 0) {
      second = import(whole_, {}, true);
      EXPECT_EQ(forget_kept_import(to_.healthy, stream_).error().code, Code::kAborted);
      const ImportOptions another{SnapshotId::random()};
      if (import_kept_snapshot(to_.healthy, another, {Uuid::random(), {}}, source_of(whole_, true))) ++other_streams;
    }
    const size_t n = std::min(out.size(), bytes.size() - position);
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(position), n, out.begin());
    position += n;
    return n;
  };
  const ImportOptions options{SnapshotId::random()};
  EXPECT_TRUE(import_kept_snapshot(to_.healthy, options, {stream_, {}}, source));
  EXPECT_EQ(second.error().code, Code::kAborted);
  EXPECT_THAT(second.error().message, HasSubstr("another import"));
  EXPECT_EQ(other_streams, 1);
}

TEST_F(KeptImportTest, ACollectionTakesWhatNobodyGoesOnWith) {
  break_after(first(whole_, 5000));
  const int64_t now = unix_time_ns();
  const int64_t age = std::chrono::nanoseconds(kKeptImportAge).count();
  const auto collect = [&](int64_t at) {
    return to_.healthy.collect(std::vector<BlockMap>{}, {.now_unix_ns = at})->removed.size();
  };
  EXPECT_EQ(collect(0), 0U);
  EXPECT_EQ(collect(now + age / 2), 0U);
  EXPECT_EQ(kept().value(), kept_of(first(whole_, 5000)));
  EXPECT_EQ(collect(now + 2 * age), 1U);
  EXPECT_EQ(kept().error().code, Code::kNotFound);
  // What an agent left that was killed before anything was synced.
  std::filesystem::create_directory(kept_imports_dir(to_.healthy) / stream_.text());
  testing::write_whole_file(kept_archive_path(to_.healthy, stream_), Bytes(100));
  EXPECT_EQ(kept().error().code, Code::kNotFound);
  EXPECT_EQ(collect(0), 1U);
  EXPECT_THAT(to_.files(), IsEmpty());
}

TEST_F(KeptImportTest, NoMoreAreKeptThanMayBe) {
  for (size_t i = 0; i < kMaxKeptImports; ++i) {
    EXPECT_FALSE(no_place_for_import(to_.healthy));
    const ImportOptions options{SnapshotId::random()};
    EXPECT_FALSE(import_kept_snapshot(to_.healthy, options, {Uuid::random(), {}}, source_of(first(whole_, 99), false)));
  }
  EXPECT_TRUE(no_place_for_import(to_.healthy));
  EXPECT_THAT(to_.files(), SizeIs(2 * kMaxKeptImports));
  break_after(first(whole_, 5000));
  EXPECT_EQ(kept().error().code, Code::kNotFound);
  EXPECT_THAT(to_.files(), SizeIs(2 * kMaxKeptImports)) << "those of others stay";
  const SnapshotId id = SnapshotId::random();
  EXPECT_TRUE(import(whole_, {}, true, id)) << "it is imported all the same";
}

// What the device did to the bytes is told as such, and they go: else no attempt would ever succeed.
TEST_F(KeptImportTest, WhatWasKeptAndIsDamagedIsTold) {
  const Bytes half = first(whole_, whole_.size() / 2);
  for (const size_t at : {size_t{200}, half.size() - 1}) {
    break_after(half);
    testing::damage_file(kept_archive_path(to_.healthy, stream_), at);
    const auto refused = import(behind(whole_, half.size()), kept_of(half), true);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::kDataLoss);
    EXPECT_THAT(refused.error().message, HasSubstr("what was kept"));
    EXPECT_EQ(kept().error().code, Code::kNotFound);
  }
  break_after(half);
  testing::damage_file(kept_archive_path(to_.healthy, stream_).replace_filename("kept"), 20);
  EXPECT_EQ(kept().error().code, Code::kNotFound);
  const SnapshotId id = SnapshotId::random();
  EXPECT_TRUE(import(whole_, {}, true, id));
  expect_whole(id);
}

// Keeping fails: the import does not.
TEST_F(KeptImportTest, AFullDeviceTakesWhatIsKeptFirst) {
  // The calls before the archive's first byte is kept are those of its directory.
  uint64_t kept_lost = 0;
  uint64_t imported = 0;
  faulty_ = true;
  bool fired = true;
  for (uint64_t n = 1; fired && !HasFailure(); ++n) {
    SCOPED_TRACE("call " + std::to_string(n));
    to_.faulty.fail_at(n, ENOSPC, ::stasis::testing::FaultyFileSystem::Mode::kOnce);
    const SnapshotId id = SnapshotId::random();
    const auto manifest = import(whole_, {}, true, id);
    fired = to_.faulty.fired();
    to_.faulty.heal();
    if (!manifest) {
      EXPECT_EQ(manifest.error().code, Code::kResourceExhausted);
      EXPECT_THAT(manifest.error().message, HasSubstr("injected"));
    }
    if (manifest) ++imported;
    if (manifest && !kept()) ++kept_lost;
    const Kept left = kept().value_or(Kept());
    EXPECT_TRUE(left.bytes == 0 || left == kept_of(first(whole_, left.bytes)));
    if (manifest) {
      ASSERT_TRUE(to_.healthy.remove(id));
    }
    ASSERT_TRUE(forget_kept_import(to_.healthy, stream_));
    ASSERT_TRUE(to_.healthy.collect(std::vector<BlockMap>{}));
    EXPECT_THAT(to_.files(), IsEmpty());
  }
  EXPECT_GT(kept_lost, 5U);
  EXPECT_GT(imported, kept_lost);
}

// Written by the first version; every later one reads it, or begins again.
TEST_F(KeptImportTest, TheFileOfVersion1) {
  const Path directory = kept_imports_dir(to_.healthy) / stream_.text();
  std::filesystem::create_directories(directory);
  testing::write_whole_file(directory / "archive", Bytes(100));
  const std::string_view magic = "STASISKI";
  const auto magic_bytes = std::as_bytes(std::span(magic));
  Bytes file(magic_bytes.begin(), magic_bytes.end());
  const auto number = [&](uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) file.push_back(static_cast<std::byte>(value >> (8 * i)));
  };
  number(1, 4);
  number(0, 4);
  number(64, 8);
  number(0x1122334455667788, 8);
  number(0x6fd5f6be, 4);
  testing::write_whole_file(directory / "kept", file);
  const auto kept = find_kept_import(to_.healthy, stream_);
  ASSERT_TRUE(kept) << kept.error().message;
  EXPECT_EQ(*kept, (Kept{64, 0x1122334455667788}));
}

}  // namespace
}  // namespace stasis::snapshot
