#include <gmock/gmock.h>

#include "base/base64.h"
#include "server/testing/harness.h"
#include "server/testing/openapi_check.h"

namespace stasis::server::testing {
namespace {

using ::testing::HasSubstr;

class RestExec : public ServerTest {
 protected:
  Answer exec(const std::string& id, const Json& body) { return client().post(path(id, "/exec"), body); }
};

TEST_F(RestExec, RunsAProgramOrAShellLine) {
  const std::string id = create();
  const Answer answer = exec(id, {{"command", {"echo", "a", "b"}},
                                  {"stdin", "in:"},
                                  {"env", {{"X", "1"}}},
                                  {"cwd", "/"},
                                  {"user", "root"},
                                  {"timeout_ms", 1000}});
  ASSERT_EQ(answer.status, 200u) << answer.text;
  EXPECT_EQ(answer.body["stdout"], "in:a\nb\n");
  EXPECT_EQ(answer.body["stderr"], "to standard error");
  EXPECT_EQ(answer.body["exit_code"], 2);
  EXPECT_EQ(answer.body["status"], "exited");
  EXPECT_EQ(answer.body["encoding"], "utf-8");
  EXPECT_EQ(exec(id, {{"command", "echo hello | wc"}}).body["stdout"], "-lc\necho hello | wc\n");
}

TEST_F(RestExec, BytesThatAreNoTextComeAsBase64) {
  const Answer answer = exec(create(), {{"command", {"raw"}}});
  ASSERT_EQ(answer.status, 200u) << answer.text;
  EXPECT_EQ(answer.body["encoding"], "base64");
  EXPECT_EQ(answer.body["stdout"], base64_encode("\xff\xfe"));
}

TEST_F(RestExec, TooMuchOutputIsAnErrorThatSaysWhatToDo) {
  const Answer answer = exec(create(), {{"command", {"flood"}}});
  EXPECT_EQ(answer.status, 507u);
  EXPECT_EQ(answer.error_code(), "resource_exhausted");
  EXPECT_THAT(std::string(answer.body["error"]["remedy"]), HasSubstr("stream"));
}

TEST_F(RestExec, BadRequests) {
  const std::string id = create();
  for (const Json& body :
       {Json::object(), Json{{"command", Json::array()}}, Json{{"command", {""}}}, Json{{"command", 7}},
        Json{{"command", {"a", 1}}}, Json{{"command", "x"}, {"cmd", "y"}}, Json{{"command", "x"}, {"env", {1}}}}) {
    EXPECT_EQ(exec(id, body).status, 400u) << body;
  }
}

TEST_F(RestExec, AClientThatGoesAwayEndsTheCommand) {
  const std::string id = create();
  const std::string body = Json{{"command", {"wait"}}}.dump();
  const std::string request = "POST " + path(id, "/exec") + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " +
                              server_->token() + "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
                              body;
  // Without the cancelled call the command would never end, and this would wait for ever.
  const std::string answer =
      client().raw_half_closed(request, [&] { EXPECT_TRUE(eventually([&] { return agent_->calls("Exec") == 1; })); });
  EXPECT_THAT(answer, HasSubstr("499"));
}

TEST_F(RestExec, StreamsEventsAsTheyCome) {
  const std::string id = create();
  StreamClient stream(client(), path(id, "/exec/stream"), {{"command", {"echo", "hi"}}});
  EXPECT_EQ(stream.status(), 101u);
  std::vector<Json> events;
  for (Json event = stream.next(); !event.is_null(); event = stream.next()) {
    EXPECT_EQ(schema_error("ExecEvent", event), "") << event;
    events.push_back(event);
  }
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0], (Json{{"type", "started"}, {"pid", 7}}));
  EXPECT_EQ(events[1], (Json{{"type", "stdout"}, {"data", base64_encode("hi\n")}}));
  EXPECT_EQ(events[2]["type"], "stderr");
  EXPECT_EQ(events[3], (Json{{"type", "exited"}, {"exit_code", 1}, {"status", "exited"}}));
}

TEST_F(RestExec, AStreamLargerThanAnyBufferComesWhole) {
  const std::string id = create();
  StreamClient stream(client(), path(id, "/exec/stream"), {{"command", {"flood"}}});
  size_t bytes = 0;
  while (bytes < (size_t{24} << 20)) {
    const Json event = stream.next();
    ASSERT_TRUE(event.is_object());
    if (event["type"] == "stdout") bytes += base64_decode(std::string(event["data"]))->size();
  }
  stream.drop();
  EXPECT_EQ(exec(id, {{"command", {"echo"}}}).status, 200u);
}

TEST_F(RestExec, AClosedStreamEndsTheCommand) {
  const std::string id = create();
  {
    StreamClient stream(client(), path(id, "/exec/stream"), {{"command", {"wait"}}});
    EXPECT_EQ(stream.next()["type"], "started");
    stream.drop();
  }
  // The command ends by nothing but the cancelled call: the server's stop waits for its thread.
  server_->stop();
  EXPECT_EQ(agent_->calls("Exec"), 1);
}

TEST_F(RestExec, WrongStreamsAreTold) {
  const std::string id = create();
  StreamClient bad(client(), path(id, "/exec/stream"), {{"cmd", "x"}});
  const Json event = bad.next();
  EXPECT_EQ(event["type"], "error");
  EXPECT_EQ(event["error"]["code"], "invalid_argument");
  EXPECT_EQ(schema_error("ExecEvent", event), "");
  EXPECT_TRUE(bad.next().is_null());
  StreamClient unknown(client(), path("nosuchsandbox0000000", "/exec/stream"), {{"command", "x"}});
  EXPECT_EQ(unknown.status(), 404u);
  EXPECT_EQ(client().get(path(id, "/exec/stream")).status, 400u);
  agent_->fail_calls("Exec", {Code::kNotFound, "no such program", ""});
  StreamClient failed(client(), path(id, "/exec/stream"), {{"command", {"nope"}}});
  EXPECT_EQ(failed.next()["error"]["code"], "not_found");
}

}  // namespace
}  // namespace stasis::server::testing
