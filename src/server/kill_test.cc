// A server that is killed (SIGKILL, a process of its own) in the middle of each operation: the next one settles it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <optional>

#include "base/log.h"
#include "base/process.h"
#include "server/testing/harness.h"

namespace stasis::server::testing {
namespace {

using Point = ScriptedAgent::Point;

class KillTest : public ::testing::Test {
 protected:
  void SetUp() override {
    agent_ = std::make_unique<ScriptedAgent>(dir_.path() / "agent.sock");
    start();
  }
  void TearDown() override {
    if (server_) server_->kill_and_wait();
  }

  void start() {
    SpawnOptions options;
    options.argv = {"/proc/self/exe", "--serve", (dir_.path() / "state").string(),
                    (dir_.path() / "agent.sock").string()};
    options.die_with_parent = true;
    auto server = spawn(options);
    ASSERT_TRUE(server) << server.error().message;
    server_ = std::move(*server);
    ASSERT_TRUE(eventually([&] { return announced(); }));
    const std::string token = text("api-token");
    client_ = std::make_unique<RestClient>(std::string(Json::parse(text("server.json"))["url"]),
                                           token.substr(0, token.find('\n')));
  }
  std::string text(const std::string& name) {
    const auto bytes = read_file(real_file_system(), dir_.path() / "state" / name, 1 << 20);
    return bytes ? std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size()) : "";
  }
  bool announced() {
    const Json announcement = Json::parse(text("server.json"), nullptr, false);
    return announcement.is_object() && announcement.value("pid", 0) == server_->pid();
  }

  // Kills the server while the agent holds `call` of `request`, lets the agent finish, and starts the server again.
  void kill_during(const std::string& call, Point point, const std::function<void()>& request) {
    agent_->hold(call, point);
    std::thread thread(request);
    EXPECT_TRUE(agent_->wait_held(call));
    server_->kill_and_wait();
    thread.join();
    agent_->release(call);
    start();
  }
  std::string create() { return client_->post("/v1/sandboxes").body["id"]; }
  static std::string path(const std::string& id, const std::string& rest = "") { return "/v1/sandboxes/" + id + rest; }
  bool becomes(const std::string& id, const std::string& state) {
    return eventually([&] { return client_->get(path(id)).body.value("state", "") == state; });
  }

  stasis::testing::TempDir dir_;
  std::unique_ptr<ScriptedAgent> agent_;
  std::optional<Process> server_;
  std::unique_ptr<RestClient> client_;
};

TEST_F(KillTest, InACreate) {
  const Headers key = {{"Idempotency-Key", "k"}};
  kill_during("CreateSandbox", Point::kAfter, [&] { EXPECT_EQ(client_->post("/v1/sandboxes", {}, key).status, 0u); });
  EXPECT_TRUE(eventually([&] { return client_->post("/v1/sandboxes", {}, key).status == 200; }));
  EXPECT_EQ(agent_->sandbox_count(), 1u);
}

TEST_F(KillTest, InAPauseThatSucceeds) {
  const std::string id = create();
  kill_during("PauseSandbox", Point::kAfter, [&] { EXPECT_EQ(client_->post(path(id, "/pause")).status, 0u); });
  ASSERT_TRUE(becomes(id, "paused"));
  EXPECT_EQ(client_->post(path(id, "/resume")).status, 200u);
}

TEST_F(KillTest, InAPauseThatFails) {
  const std::string id = create();
  agent_->fail_calls("PauseSandbox", {Code::kResourceExhausted, "disk full", ""});
  kill_during("PauseSandbox", Point::kBefore, [&] { EXPECT_EQ(client_->post(path(id, "/pause")).status, 0u); });
  ASSERT_TRUE(becomes(id, "running"));
  EXPECT_EQ(client_->post(path(id, "/pause")).status, 200u);
  EXPECT_EQ(agent_->snapshots().size(), 1u);
}

TEST_F(KillTest, InAResumeThatSucceeds) {
  const std::string id = create();
  ASSERT_EQ(client_->post(path(id, "/pause")).status, 200u);
  kill_during("ResumeSandbox", Point::kAfter, [&] { EXPECT_EQ(client_->post(path(id, "/resume")).status, 0u); });
  EXPECT_TRUE(becomes(id, "running"));
  EXPECT_EQ(agent_->snapshots().size(), 1u) << "the only snapshot must not be deleted by a resume";
}

TEST_F(KillTest, InAResumeThatFails) {
  const std::string id = create();
  ASSERT_EQ(client_->post(path(id, "/pause")).status, 200u);
  agent_->fail_calls("ResumeSandbox", {Code::kInternal, "no", ""});
  kill_during("ResumeSandbox", Point::kBefore, [&] { EXPECT_EQ(client_->post(path(id, "/resume")).status, 0u); });
  ASSERT_TRUE(becomes(id, "paused"));
  EXPECT_EQ(client_->post(path(id, "/resume")).status, 200u);
}

TEST_F(KillTest, InADestroy) {
  const std::string id = create();
  kill_during("DestroySandbox", Point::kBefore, [&] { EXPECT_EQ(client_->remove(path(id)).status, 0u); });
  EXPECT_TRUE(becomes(id, "stopped"));
  EXPECT_FALSE(agent_->has_sandbox(id));
}

TEST_F(KillTest, InASnapshot) {
  const std::string id = create();
  kill_during("CreateSnapshot", Point::kAfter, [&] {
    EXPECT_EQ(client_->post("/v1/snapshots", {{"sandbox_id", id}, {"name", "warm"}}).status, 0u);
  });
  EXPECT_TRUE(becomes(id, "running"));
  EXPECT_TRUE(eventually([&] { return agent_->snapshots().empty(); })) << "nobody will ever name it";
  EXPECT_EQ(client_->get("/v1/snapshots/warm").status, 404u);
}

TEST_F(KillTest, InASnapshotThatIsThereOnlyAfterTheNextServerHasAskedForIt) {
  const std::string id = create();
  agent_->hold("CreateSnapshot", Point::kBefore);
  std::thread thread([&] {
    EXPECT_EQ(client_->post("/v1/snapshots", {{"sandbox_id", id}, {"name", "warm"}}).status, 0u);
  });
  EXPECT_TRUE(agent_->wait_held("CreateSnapshot"));
  server_->kill_and_wait();
  thread.join();
  start();
  ASSERT_TRUE(eventually([&] { return agent_->calls("DeleteSnapshot") > 0; }));
  agent_->hold("DeleteSnapshot", Point::kAfter);  // where only one that has deleted something comes
  agent_->release("CreateSnapshot");
  EXPECT_TRUE(agent_->wait_held("DeleteSnapshot")) << "nobody will ever name it";
  agent_->release("DeleteSnapshot");
  EXPECT_TRUE(agent_->snapshots().empty());
}

TEST_F(KillTest, ACreateThatTheHostBeginsAfterItWasGivenUpIsEnded) {
  agent_->hold("CreateSandbox", Point::kBefore);
  std::thread thread([&] { EXPECT_EQ(client_->post("/v1/sandboxes").status, 0u); });
  EXPECT_TRUE(agent_->wait_held("CreateSandbox"));
  server_->kill_and_wait();
  thread.join();
  start();
  EXPECT_TRUE(eventually([&] { return client_->get("/v1/sandboxes?state=stopped").body["sandboxes"].size() == 1; }));
  agent_->release("CreateSandbox");
  EXPECT_TRUE(eventually([&] { return agent_->calls("DestroySandbox") > 0 && agent_->sandbox_count() == 0; }));
}

TEST_F(KillTest, BetweenOperations) {
  const std::string running = create();
  const std::string paused = create();
  ASSERT_EQ(client_->post(path(paused, "/pause")).status, 200u);
  server_->kill_and_wait();
  start();
  EXPECT_EQ(client_->get(path(running)).body["state"], "running");
  EXPECT_EQ(client_->get(path(paused)).body["state"], "paused");
  EXPECT_EQ(client_->post(path(paused, "/resume")).status, 200u);
}

TEST_F(KillTest, ASignalStopsItCleanly) {
  const std::string id = create();
  server_->signal(SIGTERM);
  const auto status = server_->wait(Deadline::after(std::chrono::seconds(10)));
  ASSERT_TRUE(status && *status);
  EXPECT_TRUE((*status)->success()) << (*status)->text();
  EXPECT_EQ(text("server.json"), "");
  EXPECT_TRUE(agent_->has_sandbox(id));
}

}  // namespace

int serve(char** arguments) {
  ServerOptions options;
  options.state_dir = arguments[2];
  options.agent_socket = arguments[3];
  options.reconciler.interval = std::chrono::milliseconds(50);
  options.reconciler.unknown_grace = std::chrono::milliseconds(100);
  const Status done = run_server(options);
  if (!done) spdlog::error("{}", done.error().message);
  return done ? 0 : 1;
}

}  // namespace stasis::server::testing

int main(int argc, char** argv) {
  if (argc == 4 && std::string_view(argv[1]) == "--serve") return stasis::server::testing::serve(argv);
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
