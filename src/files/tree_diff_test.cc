#include "files/tree_diff.h"

#include <gmock/gmock.h>

#include "files/testing/ext_disk.h"

namespace stasis::files {
namespace {

using snapshot::testing::Bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class TreeDiffTest : public testing::ExtDiskTest {
 protected:
  TreeDiffTest() {
    write_file("tree/etc/hosts", "localhost");
    write_file("tree/etc/passwd", "root:x:0:0");
    write_file("tree/data/large", std::string(300'000, 'l'));
    write_file("tree/data/deep/er/file", "deep");
    write_file("new", "something new");
  }

  // Where the first block of a file lies.
  uint64_t offset_of(const Path& image, const std::string& file) {
    const auto space = disk(image);
    DiskImage view(*space);
    auto file_system = ExtFileSystem::open(view).value();
    uint32_t inode = kRootInode;
    for (const Path& name : Path(file).relative_path()) {
      const auto entries = file_system->list(inode).value();
      inode = std::find_if(entries.begin(), entries.end(), [&](const DirectoryEntry& entry) {
                return entry.name == name;
              })->inode;
    }
    return file_system->pieces(file_system->inode(inode).value()).value().at(0).disk_offset;
  }
  std::vector<std::string> after(const std::string& commands,
                                 const std::vector<std::string>& options = {"-t", "ext4"}) {
    const Path before = make("before", options);
    return lines(diff(before, changed(before, "after", commands)));
  }
};

struct Kind {
  const char* name;
  std::vector<std::string> options;
};

class EveryKindOfFileSystem : public TreeDiffTest, public ::testing::WithParamInterface<Kind> {};

TEST_P(EveryKindOfFileSystem, NamesExactlyWhatChanged) {
  const std::string commands = "write " + path("new").string() + " etc/new\n" +
                               "rm etc/passwd\n"
                               "write " +
                               path("new").string() + " etc/passwd\n" +
                               "rm data/deep/er/file\n"
                               "mkdir made\n"
                               "symlink made/link /etc/hosts\n"
                               "sif etc/hosts mode 0100600\n"
                               "sif data mode 040700\n"
                               "sif data uid 1000\n"
                               "ln data/large moved\n"
                               "unlink data/large\n";
  EXPECT_THAT(after(commands, GetParam().options),
              ElementsAre("metadata /data mode owner", "removed /data/deep/er/file", "metadata /etc/hosts mode",
                          "added /etc/new", "modified /etc/passwd content", "added /made", "added /made/link",
                          "renamed /moved from /data/large"));
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, EveryKindOfFileSystem,
    ::testing::Values(Kind{"ext2", {"-t", "ext2", "-b", "1024"}}, Kind{"ext3", {"-t", "ext3", "-b", "4096"}},
                      Kind{"ext4", {"-t", "ext4", "-b", "4096", "-I", "256"}},
                      Kind{"ext4Small", {"-t", "ext4", "-b", "1024", "-I", "128"}},
                      Kind{"plainExt4", {"-t", "ext4", "-O", "^metadata_csum,^64bit,^extent", "-b", "2048"}},
                      Kind{"inlineData", {"-t", "ext4", "-O", "inline_data", "-I", "256"}},
                      Kind{"clusters", {"-t", "ext4", "-O", "bigalloc", "-C", "16384"}}),
    [](const auto& test) { return test.param.name; });

TEST_F(TreeDiffTest, EqualDisksDoNotDiffer) {
  const Path image = make("before");
  EXPECT_THAT(lines(diff(image, image)), IsEmpty());
  const auto one = disk(image);
  const auto two = disk(image);  // nothing shared
  EXPECT_THAT(lines(diff_disks(*one, *two)), IsEmpty());
}

TEST_F(TreeDiffTest, ContentThatChangedUnderAnUnchangedInodeIsFound) {
  const Path before = make("before", {"-t", "ext4", "-b", "1024"});
  std::filesystem::copy_file(before, path("after"));
  poke(path("after"), offset_of(before, "data/large") + 200'000, "X");
  const auto report = diff(before, path("after"));
  EXPECT_THAT(lines(report), ElementsAre("modified /data/large content"));
  EXPECT_EQ(report->changes[0].size_now, 300'000U);
  EXPECT_EQ(report->counts[static_cast<size_t>(ChangeKind::kModified)], 1U);
}

TEST_F(TreeDiffTest, WhatLiesBehindTheEndOfAFileIsNoChange) {
  const Path before = make("before", {"-t", "ext4", "-b", "4096"});
  std::filesystem::copy_file(before, path("after"));
  poke(path("after"), offset_of(before, "etc/hosts") + 100, "X");
  EXPECT_THAT(lines(diff(before, path("after"))), IsEmpty());
}

TEST_F(TreeDiffTest, EqualContentInOtherBlocksIsEqual) {
  write_file("again", std::string(300'000, 'l'));
  EXPECT_THAT(after("write " + path("again").string() + " x\nrm data/large\nwrite " + path("again").string() +
                    " data/large\nsif data/large mode 0100644\n"),
              ElementsAre("added /x"));
}

TEST_F(TreeDiffTest, HolesAreZeros) {
  write_file("zeros", std::string(65536, '\0'));
  std::filesystem::create_directories(path("tree"));
  std::filesystem::copy_file(path("zeros"), path("tree/sparse"));
  const Path before = make("before");
  EXPECT_THAT(lines(diff(before, changed(before, "after", "fallocate sparse 0 15\n"))), IsEmpty());
  EXPECT_THAT(lines(diff(changed(before, "punched", "punch sparse 0 15\n"), before)), IsEmpty());
}

TEST_F(TreeDiffTest, ADirectoryThatMovedIsOneChangeAndWhatChangedInItAnother) {
  EXPECT_THAT(after("ln data elsewhere\nunlink data\n"), ElementsAre("renamed /elsewhere from /data"));
  EXPECT_THAT(after("ln data elsewhere\nunlink data\nsif elsewhere/large mode 0100600\nrm elsewhere/deep/er/file\n"),
              ElementsAre("removed /data/deep/er/file", "renamed /elsewhere from /data",
                          "metadata /elsewhere/large from /data/large mode"));
}

TEST_F(TreeDiffTest, AnInodeUsedAgainIsNoRename) {
  EXPECT_THAT(after("rm etc/passwd\nwrite " + path("new").string() + " reused\nsif reused generation 77\n"),
              ElementsAre("removed /etc/passwd", "added /reused"));
}

TEST_F(TreeDiffTest, AnotherTypeUnderTheSameName) {
  EXPECT_THAT(after("rm data/deep/er/file\nrmdir data/deep/er\nrmdir data/deep\nsymlink data/deep /etc\n"
                    "rm etc/hosts\nmkdir etc/hosts\nwrite " +
                    path("new").string() + " etc/hosts/in\nsif etc/hosts/in generation 5\n"),
              ElementsAre("type /data/deep", "removed /data/deep/er", "removed /data/deep/er/file", "type /etc/hosts",
                          "added /etc/hosts/in"));
}

TEST_F(TreeDiffTest, LinksDevicesAndAttributes) {
  const Path first = changed(make("empty"), "before",
                             "symlink short /a\nsymlink long /" + std::string(200, 'a') +
                                 "\nmknod device c 1 3\n"
                                 "ea_set etc/hosts user.one 1\nea_set data/large user.same same\n");
  EXPECT_THAT(lines(diff(first, changed(first, "after",
                                        "rm short\nsymlink short /b\nrm long\nsymlink long /" + std::string(200, 'b') +
                                            "\n"
                                            "rm device\nmknod device c 1 5\nea_set etc/hosts user.one 2\n"
                                            "sif etc/passwd flags 0x10\n"))),
              ElementsAre("modified /device content", "metadata /etc/hosts attributes",
                          "metadata /etc/passwd attributes", "modified /long content", "modified /short content"));
}

TEST_F(TreeDiffTest, NamesMayHoldAnyBytes) {
  write_file(std::string("tree/odd\n\x1b[31m\xff name"), "odd");
  const Path before = make("before");
  std::filesystem::remove_all(path("tree"));
  const auto report = diff(before, make("after"));
  ASSERT_TRUE(report) << report.error().message;
  const auto& changes = report->changes;
  EXPECT_TRUE(std::any_of(changes.begin(), changes.end(), [](const FileChange& change) {
    return change.path == "/odd\n\x1b[31m\xff name" && change.kind == ChangeKind::kRemoved;
  }));
}

TEST_F(TreeDiffTest, NoFileSystemIsSaid) {
  write_file("nothing", std::string(1 << 20, 'x'));
  const auto report = diff(make("before", {}, 1), path("nothing"));
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, Code::kFailedPrecondition);
  EXPECT_EQ(report.error().message, "the second snapshot's disk: it holds no ext2, ext3 or ext4 file system");
}

TEST_F(TreeDiffTest, DirectoriesThatGoRoundAreDamage) {
  const Path before = make("before");
  const auto report = diff(before, changed(before, "after", "ln data data/deep/again\n"));
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, Code::kDataLoss);
  EXPECT_THAT(report.error().message, HasSubstr("has two names"));
}

// Whatever a guest writes into its file system: an answer or an error, and no harm (the sanitizers look on in `make
// asan`).
TEST_F(TreeDiffTest, DamagedFileSystemsGiveAnAnswerOrAnError) {
  const Path before = make("before", {"-t", "ext4", "-b", "1024", "-O", "^metadata_csum"}, 2);
  const auto space = disk(before);
  const Bytes whole = snapshot::testing::read_whole_file(before);
  std::mt19937_64 random(7);
  int errors = 0;
  for (int round = 0; round < 60; ++round) {
    Bytes bytes = whole;
    for (int i = 0; i < 8; ++i) {
      const size_t at = round % 2 == 0 ? 1024 + random() % 1024 : random() % (400 * 1024);
      bytes[at] = static_cast<std::byte>(random());
    }
    snapshot::testing::write_whole_file(path("damaged"), bytes);
    const auto damaged = disk(path("damaged"), space.get());
    errors += diff_disks(*space, *damaged) ? 0 : 1;
  }
  EXPECT_GT(errors, 0);
}

}  // namespace
}  // namespace stasis::files
