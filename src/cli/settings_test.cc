#include "cli/settings.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>

namespace stasis::cli {
namespace {

Environment variables(std::map<std::string, std::string> values) {
  return [values = std::move(values)](const char* name) {
    const auto found = values.find(name);
    return found == values.end() ? std::string() : found->second;
  };
}

class FindServer : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(state_); }
  void TearDown() override { std::filesystem::remove_all(state_); }
  void write(const std::string& name, const std::string& content) const { std::ofstream(state_ / name) << content; }

  const Path state_ = Path(testing::TempDir()) / ("cli-settings." + std::to_string(::getpid()));
};

TEST(Url, HostAndPort) {
  const auto plain = parse_url("http://127.0.0.1:7878");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->host, "127.0.0.1");
  EXPECT_EQ(plain->port, 7878);
  const auto ipv6 = parse_url("http://[::1]:80/");
  ASSERT_TRUE(ipv6);
  EXPECT_EQ(ipv6->host, "::1");
  EXPECT_EQ(parse_url("http://example").value().port, 80);
}

TEST(Url, RefusesWhatItCannotReach) {
  for (const char* bad : {"", "127.0.0.1:80", "https://host", "http://", "http://:80", "http://host:", "http://host:0",
                          "http://host:99999", "http://host:12x", "http://host/path", "http://user@host", "http://[::1",
                          "http://[::1]80", "http://a b"}) {
    const auto url = parse_url(bad);
    ASSERT_FALSE(url) << bad;
    EXPECT_EQ(url.error().code, Code::kInvalidArgument);
    EXPECT_FALSE(url.error().remedy.empty());
  }
}

TEST_F(FindServer, ReadsWhatTheLocalServerLeft) {
  write("server.json", R"({"url":"http://127.0.0.1:4321","pid":1})");
  write("api-token", "e2b_abc\n");
  const auto endpoint = find_server({.state_dir = state_}, variables({}));
  ASSERT_TRUE(endpoint);
  EXPECT_EQ(endpoint->port, 4321);
  EXPECT_EQ(endpoint->token, "e2b_abc");
}

TEST_F(FindServer, CommandLineBeatsEnvironmentBeatsState) {
  write("server.json", R"({"url":"http://127.0.0.1:1","pid":1})");
  const auto environment =
      variables({{"STASIS_URL", "http://127.0.0.1:2"}, {"STASIS_TOKEN", "two"}, {"STASIS_STATE_DIR", state_}});
  EXPECT_EQ(find_server({.url = "http://127.0.0.1:3", .token = "three"}, environment).value().port, 3);
  EXPECT_EQ(find_server({.url = "http://127.0.0.1:3", .token = "three"}, environment).value().token, "three");
  EXPECT_EQ(find_server({}, environment).value().port, 2);
  EXPECT_EQ(find_server({}, environment).value().token, "two");
  EXPECT_EQ(find_server({}, variables({{"STASIS_STATE_DIR", state_}})).value().port, 1);
}

TEST_F(FindServer, DoesNotGiveTheLocalTokenToAnotherMachine) {
  write("api-token", "secret");
  EXPECT_EQ(find_server({.url = "http://example.com", .state_dir = state_}, variables({})).value().token, "");
  EXPECT_EQ(find_server({.url = "http://localhost:1", .state_dir = state_}, variables({})).value().token, "secret");
}

TEST_F(FindServer, SaysHowToStartOneWhenThereIsNone) {
  const auto endpoint = find_server({.state_dir = state_}, variables({}));
  ASSERT_FALSE(endpoint);
  EXPECT_EQ(endpoint.error().code, Code::kUnavailable);
  EXPECT_NE(endpoint.error().remedy.find("stasis up"), std::string::npos);
}

TEST_F(FindServer, RefusesADamagedDescription) {
  for (const char* content : {"", "not json", "[]", R"({"pid":1})", R"({"url":7})"}) {
    write("server.json", content);
    const auto endpoint = find_server({.state_dir = state_}, variables({}));
    ASSERT_FALSE(endpoint) << content;
    EXPECT_EQ(endpoint.error().code, Code::kDataLoss) << content;
  }
}

TEST_F(FindServer, RefusesATokenThatWouldBreakOutOfItsHeader) {
  const auto endpoint =
      find_server({.url = "http://127.0.0.1:1", .token = "a\r\nX: y", .state_dir = state_}, variables({}));
  ASSERT_FALSE(endpoint);
  EXPECT_EQ(endpoint.error().code, Code::kInvalidArgument);
}

TEST(StateDirectory, DefaultsToVarLib) { EXPECT_EQ(state_directory({}, variables({})), "/var/lib/stasis"); }

}  // namespace
}  // namespace stasis::cli
