#include <gmock/gmock.h>

#include "server/testing/harness.h"

namespace stasis::server::testing {
namespace {

class RestRetention : public ServerTest {
 protected:
  Answer put(const std::string& scope, const std::string& target, const Json& body) {
    return client().send("PUT", "/v1/retention/" + scope + "/" + target, body.dump(),
                         {{"content-type", "application/json"}});
  }
  void snapshot(const std::string& id, const std::string& name) {
    const Answer answer = client().post("/v1/snapshots", {{"sandbox_id", id}, {"name", name}});
    ASSERT_EQ(answer.status, 201u) << answer.text;
    EXPECT_EQ(answer.body["template"], "base");
  }
  bool exists(const std::string& name) { return client().get("/v1/snapshots/" + name).status == 200u; }
};

TEST_F(RestRetention, PoliciesAreSetListedAndRemoved) {
  const std::string id = create();
  const Answer set = put("sandbox", id, {{"keep_last", 2}});
  ASSERT_EQ(set.status, 200u) << set.text;
  EXPECT_EQ(set.body, (Json{{"scope", "sandbox"}, {"target", id}, {"keep_last", 2}, {"max_age_sec", nullptr}}));
  EXPECT_EQ(put("sandbox", id, {{"max_age_sec", 60}}).body["keep_last"], nullptr) << "the new one replaces the old";
  EXPECT_EQ(put("template", "base", {{"keep_last", 5}, {"max_age_sec", 60}}).status, 200u);
  EXPECT_EQ(client().get("/v1/retention").body["policies"].size(), 2u);
  EXPECT_EQ(client().remove("/v1/retention/sandbox/" + id).status, 204u);
  EXPECT_EQ(client().remove("/v1/retention/sandbox/" + id).status, 404u);
  EXPECT_EQ(client().get("/v1/retention").body["policies"].size(), 1u);
}

TEST_F(RestRetention, WhatMakesNoSenseIsRefused) {
  const std::string id = create();
  for (const Json& body : {Json::object(), Json{{"keep_last", 0}}, Json{{"keep_last", -1}}, Json{{"max_age_sec", "1d"}},
                           Json{{"keep", 1}}}) {
    EXPECT_EQ(put("sandbox", id, body).status, 400u) << body;
  }
  EXPECT_EQ(put("sandbox", "nosuchsandbox0000000", {{"keep_last", 1}}).status, 404u);
  EXPECT_EQ(put("template", "nosuch", {{"keep_last", 1}}).status, 404u);
  EXPECT_EQ(put("host", "here", {{"keep_last", 1}}).status, 400u);
  EXPECT_EQ(client().get("/v1/retention").body["policies"].size(), 0u);
}

TEST_F(RestRetention, TheOldestGoesUnlessACloneUsesIt) {
  const std::string id = create();
  for (const char* name : {"one", "two", "three"}) snapshot(id, name);
  const std::string clone = create({{"template", "one"}});
  ASSERT_EQ(put("sandbox", id, {{"keep_last", 1}}).status, 200u);
  ASSERT_TRUE(eventually([&] { return !exists("two"); })) << "without waiting for the next pass";
  EXPECT_TRUE(exists("one"));
  EXPECT_TRUE(exists("three"));
  EXPECT_EQ(state(clone), "running");
  ASSERT_TRUE(server_->reconcile());
  EXPECT_EQ(agent_->snapshots().size(), 2u);

  snapshot(id, "zfour");
  ASSERT_TRUE(eventually([&] { return !exists("three"); }));
  ASSERT_EQ(client().remove(path(clone)).status, 204u);
  ASSERT_TRUE(server_->reconcile());
  EXPECT_FALSE(exists("one"));
  EXPECT_TRUE(exists("zfour"));
  EXPECT_EQ(agent_->snapshots().size(), 1u);
}

}  // namespace
}  // namespace stasis::server::testing
