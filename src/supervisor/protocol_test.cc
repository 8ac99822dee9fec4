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

PagerReport some_report() {
  return {{{"read", "absent", "copied", 5}, {"write", "removed", "zeroed", 1}},
          {0, 0, 4, 2},
          12'345,
          {{"fault", false, 5}, {"around", true, 11}},
          {{PagerReport::kZeros, 4096}, {"a-layer", 8192}},
          1,
          2,
          5,
          3,
          6};
}

TEST(ProtocolTest, EveryMessageLeadsBack) {
  SandboxConfig config{"abc", "/store", snapshot::SnapshotId::random(), {2, 512}, 1 << 30, "qemu", "uffd", 100};
  const auto config_back = config_from_json(to_json(config));
  ASSERT_TRUE(config_back);
  EXPECT_EQ(to_json(*config_back), to_json(config));

  const SpareConfig spare{{2, 512}, 1 << 30, "qemu"};
  EXPECT_EQ(to_json(spare_config_from_json(to_json(spare)).value()), to_json(spare));
  EXPECT_FALSE(spare_config_from_json(nlohmann::json::array()));

  StateReply state;
  state.spare = true;
  state.sandbox_id = "abc";
  state.state = "running";
  state.faults = uint64_t{1} << 40;
  EXPECT_EQ(to_json(*state_from_json(to_json(state))), to_json(state));

  SnapshotReply reply{snapshot::SnapshotId::random(), {1, 2, 3, 4}, {5, 6, 7, 8}, 9, 10};
  EXPECT_EQ(to_json(*snapshot_from_json(to_json(reply))), to_json(reply));
  EXPECT_FALSE(snapshot_from_json(to_json(reply))->live);
  reply.live = LiveStats{3, 4096, "why not"};
  EXPECT_EQ(snapshot_from_json(to_json(reply))->live, reply.live);

  ExitRecord record{false, "vmm exited", {Code::kUnavailable, "signal 9", "look at the log"}, some_report()};
  const auto record_back = exit_from_json(to_json(record));
  ASSERT_TRUE(record_back);
  EXPECT_EQ(record_back->error.code, Code::kUnavailable);
  EXPECT_EQ(record_back->error.remedy, "look at the log");
  EXPECT_EQ(record_back->pager, some_report());
  EXPECT_FALSE(exit_from_json(to_json(ExitRecord{true, "paused", {}, {}}))->pager);

  EXPECT_EQ(report_from_json(to_json(some_report())), some_report());
  const TraceReply trace{
      "uffd", "why",      9,          some_report(), {{7, 4096, 8192, "around", true}, {8, 0, 4096, "fault", false}},
      3,      kLoadEnded, "a reason", true};
  EXPECT_EQ(to_json(trace_from_json(to_json(trace)).value()), to_json(trace));
}

TEST(ProtocolTest, WhatAnOlderVersionDoesNotSayIsEmpty) {
  nlohmann::json config = to_json(SandboxConfig{});
  config.erase("restore");
  config.erase("load_mib_per_s");
  EXPECT_EQ(config_from_json(config).value().restore, "");
  EXPECT_EQ(config_from_json(config).value().load_mib_per_s, 0U);
  nlohmann::json trace = to_json(TraceReply{});
  trace.erase("load");
  trace.erase("load_error");
  trace["report"].erase("load_left");
  trace["report"].erase("fetching");
  EXPECT_EQ(to_json(trace_from_json(trace).value()), to_json(TraceReply{}));
  nlohmann::json state = to_json(StateReply{});
  for (const char* name : {"restore_reason", "mapped_bytes", "copied_bytes", "resident_pages", "write_faults",
                           "fault_p50_us", "fault_p99_us"}) {
    state.erase(name);
  }
  EXPECT_EQ(to_json(state_from_json(state).value()), to_json(StateReply{}));
}

TEST(ProtocolTest, WhatCannotBeAskedForIsRefused) {
  EXPECT_TRUE(check_restore("", 0));
  EXPECT_TRUE(check_restore(kRestoreMapped, 0));
  EXPECT_TRUE(check_restore(kRestoreUffd, kMaxLoadMibPerS));
  EXPECT_TRUE(check_restore("", 1));
  EXPECT_EQ(check_restore("teleport", 0).error().code, Code::kInvalidArgument);
  EXPECT_EQ(check_restore("", kMaxLoadMibPerS + 1).error().code, Code::kInvalidArgument);
  EXPECT_EQ(check_restore(kRestoreMapped, 1).error().code, Code::kInvalidArgument);
}

TEST(PagerReportTest, ReportsAddUp) {
  PagerReport sum;
  add_to(sum, some_report(), true);
  EXPECT_EQ(sum, some_report());
  PagerReport other = some_report();
  other.faults = {{"read", "absent", "copied", 10}, {"read", "present", "woken", 1}};
  other.service = {0, 0, 1, 0, 7};
  other.sources = {{"another", 100}};
  other.largest_batch = 2;
  add_to(sum, other, true);
  EXPECT_EQ(sum.faults,
            (std::vector<PagerReport::Faults>{
                {"read", "absent", "copied", 15}, {"write", "removed", "zeroed", 1}, {"read", "present", "woken", 1}}));
  EXPECT_EQ(sum.service, (std::vector<uint64_t>{0, 0, 5, 2, 7}));
  EXPECT_EQ(sum.service_ns, 2 * 12'345U);
  EXPECT_EQ(sum.pages, (std::vector<PagerReport::Pages>{{"fault", false, 10}, {"around", true, 22}}));
  EXPECT_EQ(sum.sources.size(), 3U);
  EXPECT_EQ(sum.parked, 2U);
  EXPECT_EQ(sum.prefetch_left, 4U);
  EXPECT_EQ(sum.load_left, 10U);
  EXPECT_EQ(sum.largest_batch, 3U);
  EXPECT_EQ(sum.fetching, 12U);
  PagerReport host;
  add_to(host, sum, false);
  EXPECT_EQ(host.sources,
            (std::vector<PagerReport::Source>{{PagerReport::kZeros, 4096}, {PagerReport::kAnyLayer, 8292}}));
}

TEST(PagerReportTest, QuantilesAreTheEndsOfBuckets) {
  EXPECT_EQ(service_quantile_us({}, 0.5), 0U);
  EXPECT_EQ(service_quantile_us({0, 0, 0}, 0.5), 0U);
  EXPECT_EQ(service_quantile_us({0, 0, 98, 1, 1}, 0.5), 4U);
  EXPECT_EQ(service_quantile_us({0, 0, 98, 1, 1}, 0.99), 8U);
  EXPECT_EQ(service_quantile_us({0, 0, 98, 1, 1}, 1), 16U);
}

TEST(PagerReportTest, MalformedOnesAreRefused) {
  for (const char* name : {"faults", "service", "pages", "sources", "parked"}) {
    nlohmann::json report = to_json(some_report());
    report[name] = "three";
    EXPECT_THAT(report_from_json(report).error().message, HasSubstr("pager report")) << name;
    report.erase(name);
    EXPECT_EQ(report_from_json(report).error().code, Code::kInvalidArgument) << name;
  }
  nlohmann::json trace = to_json(TraceReply{});
  trace["events"] = {{1, 2, 3}};
  EXPECT_EQ(trace_from_json(trace).error().code, Code::kInvalidArgument);
  EXPECT_EQ(trace_from_json(nlohmann::json::array()).error().code, Code::kInvalidArgument);
}

TEST(ProtocolTest, MissingAndMistypedFieldsAreNamed) {
  nlohmann::json config = to_json(SandboxConfig{});
  config["vcpus"] = "two";
  EXPECT_THAT(config_from_json(config).error().message, HasSubstr("'vcpus'"));
  nlohmann::json reply = to_json(SnapshotReply{{}, {}, {}, 0, 0, LiveStats{}});
  reply["live"]["rounds"] = "three";
  EXPECT_THAT(snapshot_from_json(reply).error().message, HasSubstr("'rounds'"));
  reply["live"] = 3;
  EXPECT_THAT(snapshot_from_json(reply).error().message, HasSubstr("'live'"));
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
  const auto socket = client_->guest_socket(Transport::kTcp, Milliseconds(5000));
  supervisor.join();
  EXPECT_THAT(socket.error().message, HasSubstr("no socket"));
}

TEST(ClientConnectTest, NobodyThere) {
  const testing::TempDir dir;
  EXPECT_EQ(Client::connect(dir.path()).error().code, Code::kUnavailable);
}

}  // namespace
}  // namespace stasis::supervisor
