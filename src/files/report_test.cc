#include "files/report.h"

#include <gtest/gtest.h>

#include "files/change_list.h"

namespace stasis::files {
namespace {

FileChange added(const std::string& path) {
  return {ChangeKind::kAdded, FileType::kNone, FileType::kFile, 0, 0, 1, path, {}};
}

Report sample() {
  ChangeList list;
  list.add({ChangeKind::kRenamed, FileType::kFile, FileType::kFile, kContentChanged, 5, 6, "/z\xff\n", "/a"});
  list.add({ChangeKind::kRemoved, FileType::kSocket, FileType::kNone, 0, 7, 0, "/gone", {}});
  list.add({ChangeKind::kType, FileType::kDirectory, FileType::kFile, 0, 1, UINT64_MAX, "/type", {}});
  list.add(added("/b"));
  return std::move(list).take();
}

TEST(ReportTest, WhatIsEncodedIsDecoded) {
  const Report report = sample();
  EXPECT_EQ(report.changes.front().path, "/b");
  EXPECT_EQ(report.total(), 4U);
  EXPECT_EQ(decode(encode(report)).value(), report);
  EXPECT_EQ(decode(encode(Report{})).value(), Report{});
  const auto error = decode(encode(fail(Code::kDataLoss, std::string(10'000, 'e'))));
  EXPECT_EQ(error.error().code, Code::kDataLoss);
  EXPECT_EQ(error.error().message, std::string(4096, 'e'));
  EXPECT_EQ(decode(encode(fail(Code::kDataLoss, "a\x1b[31m\xff"))).error().message, "a?[31m?");
}

TEST(ReportTest, EveryCutAndEveryAdditionIsRefused) {
  for (auto bytes : {encode(sample()), encode(fail(Code::kDataLoss, "message"))}) {
    for (size_t length = 0; length < bytes.size(); ++length) {
      EXPECT_EQ(decode(std::span(bytes).first(length)).error().code, Code::kInternal) << length;
    }
    bytes.push_back(std::byte{0});
    EXPECT_EQ(decode(bytes).error().code, Code::kInternal);
  }
}

TEST(ReportTest, WhatNobodyWouldSayIsRefused) {
  const auto refused = [](const FileChange& change) {
    Report report;
    report.counts.fill(1);
    report.changes = {change};
    return !decode(encode(report));
  };
  EXPECT_FALSE(refused(added("/a")));
  EXPECT_TRUE(refused(added("a"))) << "not absolute";
  EXPECT_TRUE(refused(added(std::string("/a\0b", 4))));
  EXPECT_TRUE(refused(added("/" + std::string(kMaxPath, 'a'))));
  EXPECT_TRUE(refused({ChangeKind::kAdded, FileType::kFile, FileType::kFile, 0, 0, 0, "/a", {}})) << "it was there";
  EXPECT_TRUE(refused({ChangeKind::kRenamed, FileType::kFile, FileType::kFile, 0, 0, 0, "/a", {}})) << "from where?";
  EXPECT_TRUE(refused({ChangeKind::kModified, FileType::kFile, FileType::kFile, 16, 0, 0, "/a", {}}));
  Report twice;
  twice.counts.fill(2);
  twice.changes = {added("/a"), added("/a")};
  EXPECT_FALSE(decode(encode(twice)));
  Report more;
  more.changes = {added("/a")};
  EXPECT_FALSE(decode(encode(more))) << "more than it counts";
}

TEST(ReportTest, TheFirstPathsAreKept) {
  ChangeList list;
  for (int i = 12'000; i-- > 0;) list.add(added("/" + std::to_string(100'000 + i)));
  const Report report = std::move(list).take();
  EXPECT_EQ(report.total(), 12'000U);
  EXPECT_EQ(report.changes.size(), kMaxChangesTold);
  EXPECT_EQ(report.changes.back().path, "/109999");
  ChangeList long_paths;
  for (int i = 0; i < 1000; ++i) long_paths.add(added("/" + std::to_string(1000 + i) + std::string(4000, 'x')));
  const Report cut = std::move(long_paths).take();
  EXPECT_EQ(cut.total(), 1000U);
  EXPECT_EQ(cut.changes.size(), kMaxPathBytes / 4005);
  EXPECT_TRUE(decode(encode(cut)));
}

}  // namespace
}  // namespace stasis::files
