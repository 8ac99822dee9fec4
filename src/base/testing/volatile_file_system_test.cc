#include "base/testing/volatile_file_system.h"

#include <gtest/gtest.h>

#include <set>

#include "base/testing/temp_dir.h"

namespace stasis::testing {
namespace {

// Outcomes of a power cut over many seeds: each is what the directory holds afterwards, name -> content.
using Outcome = std::map<std::string, std::string>;

class VolatileFileSystemTest : public ::testing::Test {
 protected:
  static void write(FileSystem& fs, int fd, uint64_t offset, std::string_view text) {
    ASSERT_TRUE(fs.write_at(fd, offset, std::as_bytes(std::span(text))));
  }
  static Outcome look(const Path& root) {
    Outcome outcome;
    for (const auto& found : std::filesystem::recursive_directory_iterator(root)) {
      std::string text;
      if (found.is_regular_file()) {
        const auto bytes = read_file(real_file_system(), found.path(), 1 << 20).value();
        for (const std::byte byte : bytes) text += static_cast<char>(byte);
      }
      outcome[found.path().lexically_relative(root)] = text;
    }
    return outcome;
  }
  // What may be there after `body` and a power cut.
  template <typename Body>
  static std::set<Outcome> outcomes(Body body) {
    std::set<Outcome> seen;
    for (uint64_t seed = 0; seed < 200; ++seed) {
      const TempDir dir;
      VolatileFileSystem fs(dir.path());
      body(static_cast<FileSystem&>(fs), dir.path());
      std::mt19937_64 random(seed);
      fs.lose_power(random);
      seen.insert(look(dir.path()));
    }
    return seen;
  }
};

TEST_F(VolatileFileSystemTest, APublishedFileIsThereWhole) {
  EXPECT_EQ(outcomes([](FileSystem& fs, const Path& dir) { ASSERT_TRUE(publish_file(fs, dir / "a", "text")); }),
            (std::set<Outcome>{{{"a", "text"}}}));
}

TEST_F(VolatileFileSystemTest, WithoutAnySyncEverythingIsPossible) {
  const auto seen = outcomes([](FileSystem& fs, const Path& dir) {
    const UniqueFd fd = fs.create(dir / "a").value();
    write(fs, fd.get(), 0, "text");
  });
  EXPECT_EQ(seen, (std::set<Outcome>{
                      {}, {{"a", ""}}, {{"a", "text"}}, {{"a", std::string(4, '\0')}}, {{"a", "\xdb\xdb\xdb\xdb"}}}));
}

TEST_F(VolatileFileSystemTest, WhatAFailedSyncHasDroppedIsDurableOnlyIfItIsWrittenAgain) {
  const auto seen = outcomes([](FileSystem& fs, const Path& dir) {
    ASSERT_TRUE(publish_file(fs, dir / "a", std::string(2 * kSector, 'o')));
    const UniqueFd fd = fs.open_write(dir / "a").value();
    write(fs, fd.get(), 0, std::string(2 * kSector, 'n'));
    dynamic_cast<VolatileFileSystem&>(fs).fail_next_sync();
    ASSERT_FALSE(fs.sync(fd.get()));
    write(fs, fd.get(), 0, std::string(kSector, 'n'));
    ASSERT_TRUE(fs.sync(fs.open_read(dir / "a").value().get()));
    ASSERT_EQ(look(dir)["a"], std::string(2 * kSector, 'n')) << "read without a power cut";
  });
  EXPECT_EQ(seen, (std::set<Outcome>{{{"a", std::string(kSector, 'n') + std::string(kSector, 'o')}}}));
}

TEST_F(VolatileFileSystemTest, ARenameThatIsNotSyncedLeavesEitherNameOrBothOrNone) {
  const auto seen = outcomes([](FileSystem& fs, const Path& dir) {
    ASSERT_TRUE(publish_file(fs, dir / "a", "text"));
    ASSERT_TRUE(fs.rename(dir / "a", dir / "b"));
  });
  EXPECT_EQ(seen, (std::set<Outcome>{{{"a", "text"}}, {{"b", "text"}}, {{"a", "text"}, {"b", "text"}}, {}}));
}

TEST_F(VolatileFileSystemTest, ARemovalIsDurableWithItsDirectory) {
  const auto remove = [](FileSystem& fs, const Path& dir) {
    ASSERT_TRUE(publish_file(fs, dir / "a", "text"));
    ASSERT_TRUE(fs.remove(dir / "a"));
  };
  EXPECT_EQ(outcomes(remove), (std::set<Outcome>{{{"a", "text"}}, {}}));
  const auto synced = outcomes([&](FileSystem& fs, const Path& dir) {
    remove(fs, dir);
    ASSERT_TRUE(fs.sync_directory(dir));
  });
  EXPECT_EQ(synced, (std::set<Outcome>{{}}));
}

TEST_F(VolatileFileSystemTest, ADirectoryNeedsItsParentsSync) {
  const auto make = [](FileSystem& fs, const Path& dir) {
    ASSERT_TRUE(fs.make_directory(dir / "d"));
    ASSERT_TRUE(publish_file(fs, dir / "d" / "a", "text"));
  };
  EXPECT_EQ(outcomes(make), (std::set<Outcome>{{}, {{"d", ""}, {"d/a", "text"}}}));
  const auto synced = outcomes([&](FileSystem& fs, const Path& dir) {
    make(fs, dir);
    ASSERT_TRUE(fs.sync_directory(dir));
  });
  EXPECT_EQ(synced, (std::set<Outcome>{{{"d", ""}, {"d/a", "text"}}}));
}

TEST_F(VolatileFileSystemTest, WritesAreTornAtSectors) {
  const std::string old(3 * kSector, 'o');
  const std::string fresh(3 * kSector, 'n');
  const auto seen = outcomes([&](FileSystem& fs, const Path& dir) {
    ASSERT_TRUE(publish_file(fs, dir / "a", old));
    const UniqueFd fd = fs.open_write(dir / "a").value();
    write(fs, fd.get(), 0, fresh);
  });
  // Three sectors, each old or new.
  EXPECT_EQ(seen.size(), 8U);
  for (const Outcome& outcome : seen) {
    const std::string& text = outcome.at("a");
    ASSERT_EQ(text.size(), old.size());
    for (size_t at = 0; at < text.size(); at += kSector) {
      EXPECT_EQ(text.substr(at, kSector), std::string(kSector, text[at]));
    }
  }
}

TEST_F(VolatileFileSystemTest, SizesAndHolesAreLostToo) {
  const std::string old(2 * kSector, 'o');
  const auto seen = outcomes([&](FileSystem& fs, const Path& dir) {
    ASSERT_TRUE(publish_file(fs, dir / "a", old));
    const UniqueFd fd = fs.open_write(dir / "a").value();
    ASSERT_TRUE(fs.punch_hole(fd.get(), {0, kSector}));
    ASSERT_TRUE(fs.truncate(fd.get(), kSector));
  });
  std::set<std::string> contents;
  for (const Outcome& outcome : seen) contents.insert(outcome.at("a"));
  const std::string hole(kSector, '\0');
  EXPECT_TRUE(contents.contains(old));
  EXPECT_TRUE(contents.contains(hole));
  EXPECT_TRUE(contents.contains(hole + std::string(kSector, 'o')));
  EXPECT_TRUE(contents.contains(std::string(kSector, 'o')));
}

TEST_F(VolatileFileSystemTest, WhatIsSyncedThroughAnotherDescriptorOrWrittenPastTheSeamCountsToo) {
  const auto write_past = [](FileSystem& fs, const Path& dir) {
    const UniqueFd fd = fs.create(dir / "a").value();
    ASSERT_TRUE(fs.sync_directory(dir));
    write(real_file_system(), fd.get(), 0, "past");
  };
  EXPECT_EQ(outcomes(write_past).count({{"a", "past"}}), 1U);
  EXPECT_EQ(outcomes(write_past).count({{"a", ""}}), 1U);
  const auto synced = outcomes([&](FileSystem& fs, const Path& dir) {
    write_past(fs, dir);
    const UniqueFd other = fs.open_read(dir / "a").value();
    ASSERT_TRUE(fs.sync(other.get()));
  });
  EXPECT_EQ(synced, (std::set<Outcome>{{{"a", "past"}}}));
}

TEST_F(VolatileFileSystemTest, AfterAPowerCutItGoesOnFromWhatIsThere) {
  const TempDir dir;
  VolatileFileSystem fs(dir.path());
  std::mt19937_64 random(1);
  ASSERT_TRUE(publish_file(fs, dir.path() / "a", "text"));
  for (int i = 0; i < 20; ++i) {
    fs.lose_power(random);
    ASSERT_EQ(look(dir.path()), (Outcome{{"a", "text"}}));
    const UniqueFd fd = fs.open_write(dir.path() / "a").value();
    ASSERT_TRUE(fs.rename(dir.path() / "a", dir.path() / "b"));
    ASSERT_TRUE(fs.sync_directory(dir.path()));
    ASSERT_TRUE(fs.rename(dir.path() / "b", dir.path() / "a"));
    ASSERT_TRUE(fs.sync_directory(dir.path()));
  }
}

}  // namespace
}  // namespace stasis::testing
