// QMP against a peer that says what the test wrote down.
#include "vmm/qemu/qmp.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "vmm/contract/result_matchers.h"

namespace stasis::vmm {
namespace {

using contract::value;
using nlohmann::json;
using testing::HasSubstr;

constexpr const char* kGreeting =
    R"({"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}})"
    "\n";
constexpr const char* kDone = R"({"return": {}})"
                              "\n";

Deadline soon() { return Deadline::after(Milliseconds(5000)); }
Deadline now() { return Deadline::after(Milliseconds(0)); }

class QmpTest : public testing::Test {
 protected:
  void SetUp() override {
    auto pair = unix_socket_pair();
    ASSERT_OK(pair);
    ours_ = std::move(pair->first);
    peer_ = std::move(pair->second);
  }

  // What the peer has sent by the time that it is read.
  void say(const std::string& text) { ASSERT_OK(send_all(peer_.get(), std::as_bytes(std::span(text)))); }
  // Everything that was sent to the peer until now.
  Received heard(std::string& text) {
    std::array<std::byte, 4096> bytes;
    Received received = value(receive_with_fds(peer_.get(), bytes));
    text.assign(reinterpret_cast<const char*>(bytes.data()), received.bytes);
    return received;
  }
  Result<Qmp> open() { return Qmp::open(std::move(ours_), soon()); }
  // An open one, of which the peer has read everything.
  Qmp opened() {
    say(std::string(kGreeting) + kDone);
    auto qmp = open();
    EXPECT_OK(qmp);
    std::string text;
    heard(text);
    EXPECT_EQ(json::parse(text)["execute"], "qmp_capabilities");
    return std::move(*qmp);
  }

  UniqueFd ours_;
  UniqueFd peer_;
};

TEST_F(QmpTest, GreetingTellsTheVersion) { EXPECT_EQ(opened().version(), "7.2.22"); }

TEST_F(QmpTest, WhatIsNoGreetingIsRefused) {
  for (const char* line : {R"({"QMP": 5})", R"({"QMP": []})", R"({"return": {}})", "[]", "no json",
                           R"({"QMP": {"version": {"qemu": {"major": "7", "minor": 2, "micro": 0}}}})"}) {
    SetUp();
    say(std::string(line) + "\n");
    EXPECT_FAILS(open(), Code::kInternal);
  }
}

TEST_F(QmpTest, ASecondCommandMayBeOnItsWayBeforeTheFirstIsAnswered) {
  Qmp qmp = opened();
  ASSERT_OK(qmp.send("getfd", {{"fdname", "state"}}));
  ASSERT_OK(qmp.send("migrate", {{"uri", "fd:state"}}));
  say(R"({"error": {"desc": "no descriptor"}})"
      "\n" +
      std::string(R"({"event": "MIGRATION"})"
                  "\n") +
      kDone);
  EXPECT_FAILS(qmp.answer_to("getfd", soon()), Code::kFailedPrecondition);
  EXPECT_OK(qmp.answer_to("migrate", soon()));
  EXPECT_OK(qmp.wait_event("MIGRATION", now()));
}

TEST_F(QmpTest, CommandCarriesItsArgumentsAndItsDescriptor) {
  Qmp qmp = opened();
  auto pipe = unix_socket_pair();
  ASSERT_OK(pipe);
  say(R"({"return": {"running": false}})"
      "\n");
  const json answer = value(qmp.execute("getfd", {{"fdname", "state"}}, soon(), pipe->first.get()));
  EXPECT_EQ(answer, json({{"running", false}}));
  std::string text;
  const Received received = heard(text);
  EXPECT_EQ(json::parse(text), json({{"execute", "getfd"}, {"arguments", {{"fdname", "state"}}}}));
  EXPECT_EQ(received.fds.size(), 1u);
}

TEST_F(QmpTest, ACommandWithoutArgumentsIsNothingButItsName) {
  Qmp qmp = opened();
  say(kDone);
  ASSERT_OK(qmp.execute("cont", json::object(), soon()));
  std::string text;
  heard(text);
  EXPECT_EQ(text, "{\"execute\":\"cont\"}\n");
}

TEST_F(QmpTest, AnErrorIsToldInQemusWords) {
  Qmp qmp = opened();
  say(R"({"error": {"class": "GenericError", "desc": "no such thing"}})"
      "\n");
  const auto answer = qmp.execute("cont", json::object(), soon());
  EXPECT_FAILS(answer, Code::kFailedPrecondition);
  EXPECT_THAT(answer.error().message, HasSubstr("cont: no such thing"));
  say(R"({"error": 5})"
      "\n");
  EXPECT_FAILS(qmp.execute("cont", json::object(), soon()), Code::kFailedPrecondition);
}

TEST_F(QmpTest, EventsInBetweenAreKeptInOrder) {
  Qmp qmp = opened();
  say(R"({"event": "MIGRATION", "data": {"status": "setup"}})"
      "\n"
      R"({"event": "STOP"})"
      "\n"
      R"({"event": "MIGRATION", "data": {"status": "active"}})"
      "\n"
      R"({"return": {}})"
      "\n"
      R"({"event": "MIGRATION", "data": {"status": "completed"}})"
      "\n");
  EXPECT_OK(qmp.execute("migrate", {{"uri", "fd:state"}}, soon()));
  for (const char* status : {"setup", "active", "completed"}) {
    EXPECT_EQ(text_member(value(qmp.wait_event("MIGRATION", soon())), {"data", "status"}), status);
  }
  EXPECT_FAILS(qmp.wait_event("MIGRATION", now()), Code::kDeadlineExceeded);
}

TEST_F(QmpTest, AnAnswerMayComeInPieces) {
  Qmp qmp = opened();
  std::thread peer([this] {
    for (const char c : std::string(R"({"return": {"a": "b\nc"}})"
                                    "\n")) {
      say(std::string(1, c));
    }
  });
  EXPECT_EQ(value(qmp.execute("query-status", json::object(), soon()))["a"], "b\nc");
  peer.join();
}

TEST_F(QmpTest, SilenceEndsWithTheDeadline) {
  Qmp qmp = opened();
  EXPECT_FAILS(qmp.execute("stop", json::object(), now()), Code::kDeadlineExceeded);
}

TEST_F(QmpTest, ALateAnswerIsNotThatOfTheNextCommand) {
  Qmp qmp = opened();
  EXPECT_FAILS(qmp.execute("query-status", json::object(), now()), Code::kDeadlineExceeded);
  say(std::string(R"({"return": {"x": 1}})"
                  "\n") +
      R"({"return": {"x": 2}})"
      "\n");
  EXPECT_EQ(value(qmp.execute("query-status", json::object(), soon()))["x"], 2);
  EXPECT_FAILS(qmp.execute("query-status", json::object(), now()), Code::kDeadlineExceeded) << "nothing is left";
}

TEST_F(QmpTest, ALateAnswerMayComeWhileAnEventIsWaitedFor) {
  Qmp qmp = opened();
  ASSERT_OK(qmp.send("stop", json::object()));
  ASSERT_OK(qmp.send("migrate", json::object()));
  EXPECT_FAILS(qmp.answer_to("stop", now()), Code::kDeadlineExceeded);
  say(kDone + std::string(R"({"error": {"desc": "no descriptor"}})"
                          "\n"));
  EXPECT_FAILS(qmp.answer_to("migrate", soon()), Code::kFailedPrecondition);

  EXPECT_FAILS(qmp.execute("stop", json::object(), now()), Code::kDeadlineExceeded);
  say(kDone + std::string(R"({"event": "MIGRATION"})"
                          "\n"));
  EXPECT_OK(qmp.wait_event("MIGRATION", soon()));
  say(R"({"return": {"x": 2}})"
      "\n");
  EXPECT_EQ(value(qmp.execute("cont", json::object(), soon()))["x"], 2) << "the late one has been counted";
}

TEST_F(QmpTest, WhatIsToldBetweenCommandsIsTaken) {
  Qmp qmp = opened();
  EXPECT_OK(qmp.take_events());
  EXPECT_FALSE(qmp.has_stopped());
  const std::string stop = R"({"event": "STOP"})"
                           "\n";
  say(R"({"event": "BLOCK_IO_ERROR"})"
      "\n" +
      stop + R"({"event": "E)");
  EXPECT_OK(qmp.take_events());
  EXPECT_TRUE(qmp.has_stopped());
  EXPECT_FALSE(value(wait_readable(qmp.fd(), now())));
  say(R"(ND"})"
      "\n" +
      std::string(kDone) + R"({"event": "RESUME"})" + "\n");
  EXPECT_OK(qmp.execute("cont", json::object(), soon()));
  EXPECT_OK(qmp.take_events());  // what came with the answer
  EXPECT_FALSE(qmp.has_stopped());
  peer_.reset();
  EXPECT_FAILS(qmp.take_events(), Code::kUnavailable);
}

TEST_F(QmpTest, EventsOfBeforeCanBeForgotten) {
  Qmp qmp = opened();
  say(R"({"event": "MIGRATION", "data": {"status": "completed"}})"
      "\n" +
      std::string(kDone));
  ASSERT_OK(qmp.execute("cont", json::object(), soon()));
  qmp.forget_events();
  EXPECT_FAILS(qmp.wait_event("MIGRATION", now()), Code::kDeadlineExceeded);
}

TEST_F(QmpTest, TheEndIsUnavailable) {
  Qmp qmp = opened();
  say(R"({"return": )");  // in the middle of an answer
  peer_.reset();
  EXPECT_FAILS(qmp.execute("stop", json::object(), soon()), Code::kUnavailable);
  EXPECT_FAILS(qmp.wait_event("MIGRATION", soon()), Code::kUnavailable);
}

TEST_F(QmpTest, AnEndlessLineIsGivenUp) {
  Qmp qmp = opened();
  std::thread peer([this] {
    const std::string piece(1 << 20, 'x');
    while (send_all(peer_.get(), std::as_bytes(std::span(piece)))) {
    }
  });
  EXPECT_FAILS(qmp.execute("stop", json::object(), soon()), Code::kInternal);
  { const Qmp closes = std::move(qmp); }
  peer.join();
}

TEST_F(QmpTest, EventsThatNobodyWantsAreForgotten) {
  Qmp qmp = opened();
  std::string events;
  for (int i = 0; i < 300; ++i) events += json({{"event", "E"}, {"data", {{"number", i}}}}).dump() + "\n";
  say(events + kDone);
  EXPECT_OK(qmp.execute("stop", json::object(), soon()));
  EXPECT_EQ(member(value(qmp.wait_event("E", now())), {"data", "number"}), 44) << "the last 256 are kept";
}

}  // namespace
}  // namespace stasis::vmm
