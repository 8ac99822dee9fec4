#include "guest/settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "guest/fake_exchange.h"
#include "guest/test_directory.h"
#include "guest/text.h"

namespace stasis::guest {
namespace {

using testing::ElementsAre;

class SettingsTest : public testing::Test {
 protected:
  TestDirectory directory_;
  UserDatabase users_{
      directory_.write("passwd",
                       "root:x:0:0:root:/root:/bin/bash\n"
                       "# comment\n"
                       "broken:x:abc:0::/:/bin/sh\n"
                       "user:x:1000:1001:User,,,:/home/user:/bin/bash\n"
                       "short:x:5\n"),
      directory_.write("group", "root:x:0:\nusers:x:1001:\nwheel:x:10:root,user\naudio:x:29:user\nx\n")};
  Settings settings_{users_};
};

TEST_F(SettingsTest, UsersComeFromTheFiles) {
  auto user = users_.find("user");
  ASSERT_TRUE(user);
  EXPECT_EQ(user->uid, 1000U);
  EXPECT_EQ(user->home, "/home/user");
  EXPECT_THAT(user->groups, ElementsAre(1001, 10, 29));
  EXPECT_FALSE(users_.find("broken"));
  EXPECT_FALSE(users_.find("short"));
  EXPECT_FALSE(users_.find(""));
  EXPECT_EQ(users_.user_name(1000), "user");
  EXPECT_EQ(users_.user_name(4242), "4242");
  EXPECT_EQ(users_.group_name(29), "audio");
}

TEST_F(SettingsTest, TheRequestNamesItsUser) {
  FakeExchange exchange;
  EXPECT_EQ(settings_.user_of(exchange)->name, "root");
  settings_.set_default_user("user");
  EXPECT_EQ(settings_.user_of(exchange)->name, "user");
  exchange.request_headers["Authorization"] = "Basic " + base64_encode("root:");
  EXPECT_EQ(settings_.user_of(exchange)->name, "root");
  for (const std::string& header :
       {"Basic " + base64_encode("nobody-here:"), std::string("Basic ***"), std::string("Bearer x")}) {
    exchange.request_headers["Authorization"] = header;
    auto user = settings_.user_of(exchange);
    ASSERT_FALSE(user) << header;
    EXPECT_EQ(user.error().code, Code::kUnauthenticated);
  }
}

TEST_F(SettingsTest, PathsStartAtTheHome) {
  User user = *users_.find("user");
  EXPECT_EQ(settings_.resolve_path(user, ""), "/home/user");
  EXPECT_EQ(settings_.resolve_path(user, "~"), "/home/user");
  EXPECT_EQ(settings_.resolve_path(user, "~/a/"), "/home/user/a");
  EXPECT_EQ(settings_.resolve_path(user, "a/../b"), "/home/user/b");
  EXPECT_EQ(settings_.resolve_path(user, "/etc//x/."), "/etc/x");
  EXPECT_EQ(settings_.resolve_path(user, "/"), "/");
  settings_.set_default_workdir("/srv");
  EXPECT_EQ(settings_.resolve_path(user, ""), "/srv");
  EXPECT_EQ(settings_.resolve_path(user, "a"), "/home/user/a");
}

TEST_F(SettingsTest, ATokenIsReplacedOnlyByWhoKnowsIt) {
  EXPECT_TRUE(settings_.token_matches(""));
  EXPECT_TRUE(settings_.replace_token("first", {""}));
  EXPECT_FALSE(settings_.token_matches(""));
  EXPECT_TRUE(settings_.token_matches("first"));
  EXPECT_FALSE(settings_.replace_token("second", {"", "wrong"}));
  EXPECT_TRUE(settings_.token_matches("first"));
  EXPECT_TRUE(settings_.replace_token("second", {"", "first"}));
  EXPECT_TRUE(settings_.token_matches("second"));
  EXPECT_TRUE(settings_.replace_token(std::nullopt, {"second"}));
  EXPECT_EQ(settings_.token(), "second");
}

// Computed with: python3 -c "import hashlib,base64; print(base64.b64encode(hashlib.sha256(TEXT).digest()))"
TEST_F(SettingsTest, SignaturesAreThoseOfTheClients) {
  EXPECT_EQ(url_signature("/a.txt", "read", "user", "secret", std::nullopt),
            "v1_DdfqpyaGB/gEOu2fB8n1+r7HTcboze3UZESyaoVPNUE");
  EXPECT_EQ(url_signature("/a.txt", "write", "", "secret", 1700000000),
            "v1_bS3d2RKVGh2vRordGglmFWky7LsOXYb2m3Q78Qt3QlU");
}

}  // namespace
}  // namespace stasis::guest
