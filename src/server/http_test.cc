#include "server/http.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/metrics.h"
#include "server/records.h"

namespace stasis::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

HttpRequest parse(std::string_view target) {
  HttpRequest request;
  EXPECT_TRUE(parse_target(target, request)) << target;
  return request;
}

TEST(TargetTest, IsSplitThenDecoded) {
  EXPECT_THAT(parse("/v1/sandboxes/a%2Fb").segments, ElementsAre("v1", "sandboxes", "a/b"));
  EXPECT_THAT(parse("/v1/..%2f..").segments, ElementsAre("v1", "../.."));
  EXPECT_TRUE(parse("/").segments.empty());
  const HttpRequest request = parse("/v1/x?path=%2Ftmp%2Fa+b&user=&metadata.k=v%3D1&flag");
  EXPECT_EQ(request.query.at("path"), "/tmp/a b");
  EXPECT_EQ(request.query.at("user"), "");
  EXPECT_EQ(request.query.at("metadata.k"), "v=1");
  EXPECT_EQ(request.query.at("flag"), "");
}

TEST(TargetTest, WhatIsNotWellFormedIsRefused) {
  for (const char* bad : {"", "v1", "*", "/%", "/%4", "/%zz", "/a%00b", "/x?a=%", "/x?a=1&a=2"}) {
    HttpRequest request;
    EXPECT_FALSE(parse_target(bad, request)) << bad;
  }
}

TEST(ErrorTest, EveryCodeHasAStatusAndTheWordOfBase) {
  EXPECT_EQ(http_status(Code::kNotFound), 404u);
  EXPECT_EQ(http_status(Code::kAborted), 409u);
  EXPECT_EQ(http_status(Code::kResourceExhausted), 507u);
  for (int code = 1; code <= 16; ++code) EXPECT_GE(http_status(static_cast<Code>(code)), 400u);
  const HttpResponse response = error_response({Code::kNotFound, "bytes \xff", "do"});
  const Json body = Json::parse(response.body);
  EXPECT_EQ(body["error"]["code"], "not_found");
  EXPECT_EQ(body["error"]["remedy"], "do");
}

TEST(MetricsTest, CountsByRouteAndStatus) {
  Metrics metrics;
  metrics.observe("GET", "/healthz", 200, 0.02);
  metrics.observe("GET", "/healthz", 200, 2);
  metrics.observe("BREW", "none", 404, 0.001);
  const std::string text = metrics.text({{State::kRunning, 3}});
  EXPECT_THAT(text, HasSubstr("stasis_sandboxes{state=\"running\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("stasis_sandboxes{state=\"paused\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("stasis_http_requests_total{method=\"GET\",route=\"/healthz\",status=\"200\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("stasis_http_requests_total{method=\"other\",route=\"none\",status=\"404\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("stasis_http_request_seconds_bucket{method=\"GET\",route=\"/healthz\",le=\"0.05\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("stasis_http_request_seconds_bucket{method=\"GET\",route=\"/healthz\",le=\"+Inf\"} 2\n"));
}

}  // namespace
}  // namespace stasis::server
