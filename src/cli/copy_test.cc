#include "cli/copy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "cli/local_file.h"

namespace stasis::cli {
namespace {

namespace fs = std::filesystem;

TEST(ParsePlace, TellsSandboxesFromThisMachine) {
  const auto remote = parse_place("abc123:/tmp/a:b");
  ASSERT_TRUE(remote);
  EXPECT_EQ(remote->sandbox, "abc123");
  EXPECT_EQ(remote->path, "/tmp/a:b");
  for (const char* local : {"file", "./a:b", "/x/a:b", "-", ":file"}) {
    const auto place = parse_place(local);
    ASSERT_TRUE(place) << local;
    EXPECT_FALSE(place->remote()) << local;
    EXPECT_EQ(place->path, local);
  }
}

TEST(ParsePlace, RefusesEmptyPaths) {
  EXPECT_FALSE(parse_place(""));
  EXPECT_FALSE(parse_place("abc123:"));
}

TEST(PathIn, AppendsTheNameToDirectories) {
  EXPECT_EQ(path_in("/tmp/", "dir/data.csv", false), "/tmp/data.csv");
  EXPECT_EQ(path_in("here", "dir/data.csv", true), "here/data.csv");
  EXPECT_EQ(path_in("/tmp/x", "dir/data.csv", false), "/tmp/x");
}

class LocalFiles : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(directory_); }
  void TearDown() override { fs::remove_all(directory_); }
  std::string content(const std::string& name) const {
    std::ostringstream text;
    text << std::ifstream(directory_ / name).rdbuf();
    return text.str();
  }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory_)) names.push_back(entry.path().filename());
    return names;
  }

  const Path directory_ = Path(testing::TempDir()) / ("cli-files." + std::to_string(::getpid()));
};

TEST_F(LocalFiles, AReaderGivesTheWholeFile) {
  std::string data(600'000, 'x');
  data[599'999] = 'y';
  std::ofstream(directory_ / "f") << data;
  auto reader = LocalReader::open(directory_ / "f");
  ASSERT_TRUE(reader);
  EXPECT_EQ(reader->size(), 600'000U);
  std::string read;
  while (true) {
    const auto piece = reader->next();
    ASSERT_TRUE(piece);
    if (piece->empty()) break;
    read.append(piece->data(), piece->size());
  }
  EXPECT_EQ(read, data);
}

TEST_F(LocalFiles, AReaderNoticesAFileThatShrinks) {
  std::ofstream(directory_ / "f") << std::string(600'000, 'x');
  auto reader = LocalReader::open(directory_ / "f");
  ASSERT_TRUE(reader);
  fs::resize_file(directory_ / "f", 10);
  Result<std::span<const char>> piece = reader->next();
  while (piece && !piece->empty()) piece = reader->next();
  ASSERT_FALSE(piece);
  EXPECT_EQ(piece.error().code, Code::kAborted);
}

TEST_F(LocalFiles, AReaderRefusesDirectoriesAndMissingFiles) {
  EXPECT_EQ(LocalReader::open(directory_).error().code, Code::kInvalidArgument);
  EXPECT_EQ(LocalReader::open(directory_ / "missing").error().code, Code::kNotFound);
}

TEST_F(LocalFiles, AWriterReplacesTheTargetAtTheEndOnly) {
  std::ofstream(directory_ / "f") << "old";
  fs::permissions(directory_ / "f", fs::perms(0751));
  {
    auto writer = LocalWriter::open(directory_ / "f");
    ASSERT_TRUE(writer);
    ASSERT_TRUE(writer->write("new"));
    EXPECT_EQ(content("f"), "old");
    ASSERT_TRUE(writer->commit());
  }
  EXPECT_EQ(content("f"), "new");
  EXPECT_EQ(fs::status(directory_ / "f").permissions(), fs::perms(0751));
  EXPECT_THAT(names(), testing::ElementsAre("f"));
}

TEST_F(LocalFiles, AWriterThatIsGivenUpLeavesNothing) {
  {
    auto writer = LocalWriter::open(directory_ / "f");
    ASSERT_TRUE(writer);
    ASSERT_TRUE(writer->write("half"));
  }
  EXPECT_TRUE(names().empty());
}

TEST_F(LocalFiles, AWriterFollowsSymbolicLinks) {
  std::ofstream(directory_ / "real") << "old";
  fs::create_symlink("real", directory_ / "link");
  auto writer = LocalWriter::open(directory_ / "link");
  ASSERT_TRUE(writer);
  ASSERT_TRUE(writer->write("new"));
  ASSERT_TRUE(writer->commit());
  EXPECT_TRUE(fs::is_symlink(directory_ / "link"));
  EXPECT_EQ(content("real"), "new");
}

TEST_F(LocalFiles, AWriterNeverReplacesADevice) {
  fs::create_symlink("/dev/null", directory_ / "null");
  auto writer = LocalWriter::open(directory_ / "null");
  ASSERT_TRUE(writer);
  ASSERT_TRUE(writer->write("gone"));
  ASSERT_TRUE(writer->commit());
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_THAT(names(), testing::ElementsAre("null"));
}

TEST_F(LocalFiles, AWriterSaysWhenTheDiskIsFull) {
  auto writer = LocalWriter::open("/dev/full");
  ASSERT_TRUE(writer);
  Status status = writer->write(std::string(1 << 20, 'x'));
  if (status) status = writer->commit();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Code::kResourceExhausted);
}

}  // namespace
}  // namespace stasis::cli
