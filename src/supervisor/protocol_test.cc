#include "supervisor/protocol.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/testing/temp_dir.h"
#include "base/unix_socket.h"
#include "supervisor/client.h"

namespace stasis::supervisor {
namespace {

using ::testing::HasSubstr;

TEST(ProtocolTest, EveryMessageLeadsBack) {
  SandboxConfig config{"abc", "/store", snapshot::SnapshotId::random(), {2, 512}, 1 << 30, "qemu", "mapped"};
  const auto config_back = config_from_json(to_json(config));
  ASSERT_TRUE(config_back);
  EXPECT_EQ(to_json(*config_back), to_json(config));

  StateReply state;
  state.sandbox_id = "abc";
  state.state = "running";
  state.faults = uint64_t{1} << 40;
  EXPECT_EQ(to_json(*state_from_json(to_json(state))), to_json(state));

  SnapshotReply reply{snapshot::SnapshotId::random(), {1, 2, 3, 4}, {5, 6, 7, 8}, 9, 10};
  EXPECT_EQ(to_json(*snapshot_from_json(to_json(reply))), to_json(reply));

  ExitRecord record{false, "vmm exited", {Code::kUnavailable, "signal 9", "look at the log"}};
  const auto record_back = exit_from_json(to_json(record));
  ASSERT_TRUE(record_back);
  EXPECT_EQ(record_back->error.code, Code::kUnavailable);
  EXPECT_EQ(record_back->error.remedy, "look at the log");
}

TEST(ProtocolTest, WhatAnOlderVersionDoesNotSayIsEmpty) {
  nlohmann::json config = to_json(SandboxConfig{});
  config.erase("restore");
  EXPECT_EQ(config_from_json(config).value().restore, "");
  nlohmann::json state = to_json(StateReply{});
  for (const char* name : {"restore_reason", "mapped_bytes", "copied_bytes", "resident_pages"}) state.erase(name);
  EXPECT_EQ(to_json(state_from_json(state).value()), to_json(StateReply{}));
}

TEST(ProtocolTest, MissingAndMistypedFieldsAreNamed) {
  nlohmann::json config = to_json(SandboxConfig{});
  config["vcpus"] = "two";
  EXPECT_THAT(config_from_json(config).error().message, HasSubstr("'vcpus'"));
  config = to_json(SandboxConfig{});
  config.erase("store");
  EXPECT_THAT(config_from_json(config).error().message, HasSubstr("'store'"));
  config = to_json(SandboxConfig{});
  config["base"] = "../../etc";
  EXPECT_THAT(config_from_json(config).error().message, HasSubstr("'base' is not a UUID"));
  EXPECT_THAT(config_from_json(nlohmann::json::array()).error().message, HasSubstr("not a JSON object"));
  EXPECT_THAT(config_from_json(nlohmann::json::parse("{", nullptr, false)).error().message,
              HasSubstr("not a JSON object"));
}

// The other side of a client's connection, played by the test.
class ClientTest : public ::testing::Test {
 protected:
  void SetUp() override {
    listener_ = std::move(*listen_unix(dir_.path() / kControlSocket));
    client_ = std::move(*Client::connect(dir_.path()));
    server_ = std::move(*accept_unix(listener_.get(), Milliseconds(1000)));
  }
  void answer(const std::string& text, std::span<const int> fds = {}) {
    ASSERT_TRUE(*receive_message(server_.get(), Milliseconds(5000)));
    ASSERT_TRUE(send_message(server_.get(), text, fds));
  }

  testing::TempDir dir_;
  UniqueFd listener_;
  std::unique_ptr<Client> client_;
  UniqueFd server_;
};

TEST_F(ClientTest, ErrorsCrossWithCodeAndRemedy) {
  std::thread supervisor(
      [&] { answer(R"({"error":{"code":"resource_exhausted","message":"disk full","remedy":"free some"}})"); });
  const auto reply = client_->pause(snapshot::SnapshotId::random(), Milliseconds(5000));
  supervisor.join();
  EXPECT_EQ(reply.error().code, Code::kResourceExhausted);
  EXPECT_EQ(reply.error().remedy, "free some");
}

TEST_F(ClientTest, LateAnswerBreaksTheConnectionInsteadOfBeingTakenForTheNext) {
  EXPECT_EQ(client_->state(Milliseconds(1)).error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(client_->state(Milliseconds(1000)).error().code, Code::kUnavailable);
}

TEST_F(ClientTest, DeadSupervisorIsUnavailable) {
  server_.reset();
  EXPECT_EQ(client_->stop("test", Milliseconds(1000)).error().code, Code::kUnavailable);
}

TEST_F(ClientTest, GuestSocketWithoutDescriptorIsAnError) {
  std::thread supervisor([&] { answer(R"({"ok":{}})"); });
  const auto socket = client_->guest_socket(Milliseconds(5000));
  supervisor.join();
  EXPECT_THAT(socket.error().message, HasSubstr("no socket"));
}

TEST(ClientConnectTest, NobodyThere) {
  const testing::TempDir dir;
  EXPECT_EQ(Client::connect(dir.path()).error().code, Code::kUnavailable);
}

}  // namespace
}  // namespace stasis::supervisor
