// A server in this process with a scripted agent, in a directory of their own.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>

#include "base/testing/eventually.h"
#include "base/testing/temp_dir.h"
#include "server/server.h"
#include "server/testing/rest_client.h"
#include "server/testing/scripted_agent.h"

namespace stasis::server::testing {

using stasis::testing::eventually;

class ServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    agent_ = std::make_unique<ScriptedAgent>(socket());
    start_server();
  }
  void TearDown() override {
    server_.reset();
    agent_.reset();
  }

  Path socket() const { return dir_.path() / "agent.sock"; }
  virtual ServerOptions options() const {
    ServerOptions options;
    options.state_dir = dir_.path() / "state";
    options.agent_socket = socket();
    options.reconciler.interval = std::chrono::hours(1);  // passes are made by the tests
    options.reconciler.unknown_grace = std::chrono::milliseconds(0);
    options.stop_patience = std::chrono::milliseconds(100);
    return options;
  }
  void start_server() {
    auto server = Server::start(options());
    ASSERT_TRUE(server) << server.error().message;
    server_ = std::move(*server);
    client_ = std::make_unique<RestClient>(server_->url(), server_->token());
  }
  RestClient& client() { return *client_; }

  std::string create(const Json& body = Json::object()) {
    const Answer answer = client().post("/v1/sandboxes", body);
    EXPECT_EQ(answer.status, 201u) << answer.text;
    return answer.status == 201 ? answer.body["id"] : "";
  }
  static std::string path(const std::string& id, const std::string& rest = "") { return "/v1/sandboxes/" + id + rest; }
  Answer pause(const std::string& id) { return client().post(path(id, "/pause")); }
  Answer resume(const std::string& id) { return client().post(path(id, "/resume")); }
  Json sandbox(const std::string& id) { return client().get(path(id)).body; }
  std::string state(const std::string& id) { return sandbox(id).value("state", "none"); }
  std::string reason(const std::string& id) { return sandbox(id).value("reason", "none"); }

  stasis::testing::TempDir dir_;
  std::unique_ptr<ScriptedAgent> agent_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<RestClient> client_;
};

}  // namespace stasis::server::testing
