// What is below the handlers: tokens, methods, limits, connections, start and stop.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include "server/openapi.h"
#include "server/testing/harness.h"

namespace stasis::server::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class RestTransport : public ServerTest {
 protected:
  ServerOptions options() const override {
    ServerOptions options = ServerTest::options();
    options.max_connections = 8;
    return options;
  }
  std::string file(const std::string& name) const {
    const auto bytes = read_file(real_file_system(), options().state_dir / name, 1 << 20);
    return bytes ? std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size()) : "";
  }
  unsigned mode(const std::string& name) const {
    struct stat info {};
    return ::stat((options().state_dir / name).c_str(), &info) == 0 ? info.st_mode & 0777 : 0;
  }
};

TEST_F(RestTransport, OpenPathsNeedNoToken) {
  EXPECT_EQ(client().send_plain("GET", "/healthz", "", {}).body["status"], "ok");
  EXPECT_THAT(client().send_plain("GET", "/metrics", "", {}).text, HasSubstr("stasis_sandboxes{state=\"running\"} 0"));
  EXPECT_EQ(client().send_plain("GET", "/openapi.yaml", "", {}).text, kOpenApi);
  EXPECT_EQ(client().get("/healthz").status, 200u);
  EXPECT_EQ(client().get("/metrics").status, 200u);
  EXPECT_EQ(client().get("/openapi.yaml").status, 200u);
}

TEST_F(RestTransport, MetricsTellWhatThePageServersOfTheHostHaveDone) {
  const std::string text = client().send_plain("GET", "/metrics", "", {}).text;
  EXPECT_THAT(text, HasSubstr("stasis_host_agent_up 1\n"));
  EXPECT_THAT(text, HasSubstr("stasis_pager_faults_total{kind=\"read\",cause=\"absent\",outcome=\"copied\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("stasis_pager_fault_seconds_bucket{le=\"0.000002\"} 0\n"
                              "stasis_pager_fault_seconds_bucket{le=\"0.000004\"} 2\n"
                              "stasis_pager_fault_seconds_bucket{le=\"0.000008\"} 2\n"
                              "stasis_pager_fault_seconds_bucket{le=\"+Inf\"} 3\n"
                              "stasis_pager_fault_seconds_sum 0.000030000\n"
                              "stasis_pager_fault_seconds_count 3\n"));
  EXPECT_THAT(text, HasSubstr("stasis_pager_pages_total{how=\"around\",source=\"layers\"} 45\n"));
  EXPECT_THAT(text, HasSubstr("stasis_pager_bytes_total{source=\"zeros\"} 4096\n"
                              "stasis_pager_bytes_total{source=\"layers\"} 8192\n"));
  EXPECT_THAT(text, HasSubstr("stasis_pager_prefetch_left_bytes 12288\n"));
  EXPECT_THAT(text, HasSubstr("stasis_pager_load_left_bytes 4096\n"));
  agent_->stop();
  const std::string alone = client().send_plain("GET", "/metrics", "", {}).text;
  EXPECT_THAT(alone, HasSubstr("stasis_host_agent_up 0\n"));
  EXPECT_THAT(alone, HasSubstr("stasis_sandboxes{state=\"running\"} 0"));
}

TEST_F(RestTransport, EverythingElseDoes) {
  const std::string token = server_->token();
  const std::vector<Headers> wrong = {{},
                                      {{"Authorization", "Bearer "}},
                                      {{"Authorization", "Bearer " + token + "x"}},
                                      {{"Authorization", token}},
                                      {{"Authorization", "Basic " + token}},
                                      {{"X-API-KEY", "e2b_0000000000000000000000000000000000000000"}}};
  for (const Headers& headers : wrong) {
    for (const char* target : {"/v1/sandboxes", "/v1/nosuch", "/v1", "/v1/sandboxes/x/exec/stream"}) {
      const Answer answer = client().send_plain("GET", target, "", headers);
      EXPECT_EQ(answer.status, 401u) << target;
      EXPECT_EQ(answer.error_code(), "unauthenticated");
    }
  }
  EXPECT_EQ(client().send_plain("GET", "/v1/sandboxes", "", {{"X-API-KEY", token}}).status, 200u);
}

TEST_F(RestTransport, UnknownPathsAndWrongMethods) {
  EXPECT_EQ(client().get("/nosuch").status, 404u);
  EXPECT_EQ(client().get("/v1/sandboxes/x/y/z").status, 404u);
  const Answer answer = client().send("PUT", "/v1/sandboxes", "{}");
  EXPECT_EQ(answer.status, 405u);
  EXPECT_EQ(answer.headers.at("allow"), "GET, POST");
  EXPECT_EQ(client().get("/v1/snapshots/%zz").status, 400u);
}

TEST_F(RestTransport, LimitsAndBrokenRequests) {
  EXPECT_EQ(client().send("POST", "/v1/sandboxes", "{\"vcpus\":").status, 400u);
  EXPECT_EQ(client().send("POST", "/v1/sandboxes", "[]").status, 400u);
  EXPECT_EQ(client().send("POST", "/v1/sandboxes", std::string(2 << 20, ' ')).status, 413u);
  EXPECT_THAT(client().raw("NONSENSE\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(client().raw("GET / HTTP/1.1\r\nX: " + std::string(size_t{64} * 1024, 'x') + "\r\n\r\n"),
              StartsWith("HTTP/1.1 431"));
  EXPECT_EQ(client().get("/healthz").status, 200u);
}

TEST_F(RestTransport, AConnectionServesManyRequests) {
  const std::string request = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
  const std::string last = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
  const std::string answers = client().raw(request + request + last);
  size_t count = 0;
  for (size_t at = answers.find("200 OK"); at != std::string::npos; at = answers.find("200 OK", at + 1)) ++count;
  EXPECT_EQ(count, 3u);
}

TEST_F(RestTransport, AsksForABodyThatWaitsToBeAsked) {
  const std::string answer = client().raw(
      "POST /v1/sandboxes HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nX-API-KEY: " +
      server_->token() + "\r\nContent-Length: 2\r\n\r\n{}");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created"));
}

TEST_F(RestTransport, TooManyConnectionsAreToldSo) {
  agent_->hold("CreateSandbox");
  std::vector<std::thread> threads;
  threads.reserve(8);
  for (int i = 0; i < 8; ++i) threads.emplace_back([&] { EXPECT_EQ(client().post("/v1/sandboxes").status, 201u); });
  EXPECT_TRUE(eventually([&] { return agent_->calls("CreateSandbox") == 8; }));
  EXPECT_EQ(client().send_plain("GET", "/healthz", "", {}).status, 503u);
  agent_->release("CreateSandbox");
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(eventually([&] { return client().send_plain("GET", "/healthz", "", {}).status == 200; }));
}

TEST_F(RestTransport, TokenAndAnnouncementAreFiles) {
  EXPECT_EQ(file("api-token"), server_->token() + "\n");
  EXPECT_EQ(server_->token().size(), 44u);
  EXPECT_THAT(server_->token(), StartsWith("e2b_"));
  EXPECT_EQ(mode("api-token"), 0600u);
  EXPECT_EQ(mode("server.json"), 0600u);
  EXPECT_EQ(Json::parse(file("server.json"))["url"], server_->url());
  EXPECT_EQ(Json::parse(file("server.json"))["pid"], ::getpid());
  const std::string token = server_->token();
  server_.reset();
  EXPECT_EQ(file("server.json"), "");
  start_server();
  EXPECT_EQ(server_->token(), token);
}

TEST_F(RestTransport, TwoServersDoNotShareADirectory) {
  const auto second = Server::start(options());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::kFailedPrecondition);
  EXPECT_NE(second.error().remedy, "");
  EXPECT_NE(file("server.json"), "") << "the first one's announcement stays";
}

TEST_F(RestTransport, ATakenPortIsTold) {
  ServerOptions other = options();
  other.state_dir = dir_.path() / "other";
  other.port = client().port();
  const auto second = Server::start(other);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::kAlreadyExists);
  other.port = 0;
  other.listen_address = "nowhere";
  EXPECT_EQ(Server::start(other).error().code, Code::kInvalidArgument);
}

TEST_F(RestTransport, StopClosesIdleConnectionsAtOnce) {
  std::thread idle([&] { (void)client().raw("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); });
  EXPECT_TRUE(eventually([&] {
    return client().send_plain("GET", "/metrics", "", {}).text.find("route=\"/healthz\",status=\"200\"} 1") !=
           std::string::npos;
  }));
  server_->stop();
  idle.join();
}

TEST_F(RestTransport, StartsWithoutAnAgent) {
  server_.reset();
  agent_->stop();
  start_server();
  EXPECT_EQ(client().get("/healthz").status, 200u);
  EXPECT_EQ(client().post("/v1/sandboxes", {{"template", "other"}}).status, 503u);
  agent_->start();
  EXPECT_TRUE(eventually([&] { return client().post("/v1/sandboxes").status == 201; }));
}

}  // namespace
}  // namespace stasis::server::testing
