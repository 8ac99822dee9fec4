// cp: a file into a sandbox and out of it. The parts of it are in copy_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "cli/testing/call.h"

namespace stasis::cli {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class Copy : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(directory_); }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string path(const std::string& name) const { return (directory_ / name).string(); }
  const Path directory_ = Path(testing::TempDir()) / ("cli-copy." + std::to_string(::getpid()));
};

TEST_F(Copy, IntoASandbox) {
  const std::string data(700'000, 'd');
  std::ofstream(path("data.bin")) << data;
  const Call call(always({.body = R"({"bytes":700000})"}), {"cp", path("data.bin"), kId + ":/tmp/", "--user", "root"});
  EXPECT_EQ(call.status, 0) << call.err;
  EXPECT_EQ(call.requests.at(0).target, "/v1/sandboxes/" + kId + "/files/write?path=%2Ftmp%2Fdata.bin&user=root");
  EXPECT_EQ(call.requests.at(0).headers.at("content-type"), "application/octet-stream");
  EXPECT_EQ(call.requests.at(0).headers.at("content-length"), "700000");
  EXPECT_EQ(call.requests.at(0).body, data);
  EXPECT_EQ(json::parse(call.out)["bytes"], 700'000);
}

TEST_F(Copy, StandardInputIsSentInChunks) {
  Setting piped;
  piped.input = std::string(300'000, 'i');
  const Call call(always({}), {"cp", "-", kId + ":/tmp/x"}, piped);
  EXPECT_EQ(call.status, 0) << call.err;
  EXPECT_EQ(call.requests.at(0).headers.at("transfer-encoding"), "chunked");
  EXPECT_EQ(call.requests.at(0).body, piped.input);
}

TEST_F(Copy, AnEmptyFileIsCopiedToo) {
  std::ofstream(path("empty")).flush();
  const Call call(always({}), {"cp", path("empty"), kId + ":/tmp/x"});
  EXPECT_EQ(call.status, 0) << call.err;
  EXPECT_EQ(call.requests.at(0).body, "");
}

TEST_F(Copy, OutOfASandboxIntoADirectory) {
  const std::string data = std::string("bytes\0", 6) + std::string(600'000, 'z');
  const Call call(always({.body = data}), {"cp", kId + ":/var/log/x.log", directory_.string()}, kTerminal);
  EXPECT_EQ(call.status, 0) << call.err;
  EXPECT_EQ(call.requests.at(0).target, "/v1/sandboxes/" + kId + "/files/read?path=%2Fvar%2Flog%2Fx.log");
  EXPECT_EQ(call.requests.at(0).headers.at("accept"), "application/octet-stream");
  std::ostringstream copied;
  copied << std::ifstream(path("x.log"), std::ios::binary).rdbuf();
  EXPECT_EQ(copied.str(), data);
}

TEST_F(Copy, ToStandardOutputNothingButTheFile) {
  EXPECT_EQ(Call(always({.body = "content"}), {"cp", kId + ":/x", "-"}).out, "content");
}

TEST_F(Copy, AFailedDownloadLeavesNothing) {
  const Call missing(always(error_reply(404, "not_found")), {"cp", kId + ":/x", path("x")});
  EXPECT_EQ(missing.status, 1);
  EXPECT_EQ(json::parse(missing.err)["error"]["code"], "not_found");
  const Call cut(always({.body = "half", .cut_short = true}), {"cp", kId + ":/x", path("x")});
  EXPECT_EQ(cut.status, 1);
  EXPECT_TRUE(std::filesystem::is_empty(directory_));
}

TEST_F(Copy, RefusesWhatIsNoCopyOfOneFile) {
  EXPECT_EQ(Call(always({}), {"cp", "a", "b"}).status, 2);
  EXPECT_EQ(Call(always({}), {"cp", "x:/a", "y:/b"}).status, 2);
  EXPECT_EQ(Call(always({}), {"cp", kId + ":/dir/", "."}).status, 2);
  EXPECT_EQ(Call(always({}), {"cp", kId + ":", "."}).status, 2);
  const Call directory(always({}), {"cp", directory_.string(), kId + ":/tmp/x"});
  EXPECT_EQ(directory.status, 1);
  EXPECT_TRUE(directory.requests.empty());
  EXPECT_THAT(directory.err, HasSubstr("is a directory"));
}

}  // namespace
}  // namespace stasis::cli
