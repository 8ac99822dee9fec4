// A whole daemon on a free port of 127.0.0.1, with a directory for its identity, for tests.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "guest/daemon.h"
#include "guest/daemon_client.h"
#include "guest/http_server.h"
#include "guest/test_directory.h"
#include "guest/text.h"

namespace stasis::guest {

class DaemonFixture : public ::testing::Test {
 protected:
  DaemonFixture() {
    for (const char* name : {"etc/hosts", "run/keep"}) directory_.write(name, "");
    UniqueFd listener = listen_on("127.0.0.1", 0);
    port_ = bound_port(listener.get());
    client_ = std::make_unique<DaemonClient>(port_);
    server_ =
        std::make_unique<HttpServer>(std::move(listener), [this](Exchange& exchange) { daemon_.handle(exchange); });
    server_->start();
    table_thread_ = std::thread([this] { table_.run(); });
  }
  ~DaemonFixture() override {
    table_.kill_all();
    server_->stop();
    table_.stop();
    table_thread_.join();
  }

  static nlohmann::json bash(const std::string& command, const nlohmann::json& more = nlohmann::json::object()) {
    nlohmann::json request = {{"process", {{"cmd", "/bin/bash"}, {"args", {"-c", command}}}}, {"stdin", false}};
    request.merge_patch(more);
    return request;
  }
  std::unique_ptr<DaemonClient::Stream> start(const nlohmann::json& request, const HeaderMap& headers = {}) {
    return client_->stream("process.Process/Start", request, headers);
  }

  struct Outcome {
    std::string out;
    std::string err;
    std::string pty;
    nlohmann::json end;    // the end event
    nlohmann::json error;  // of the end-of-stream message
  };
  static Outcome follow(DaemonClient::Stream& stream) {
    Outcome outcome;
    while (auto message = stream.next()) {
      nlohmann::json event = message->value("event", nlohmann::json::object());
      nlohmann::json data = event.value("data", nlohmann::json::object());
      outcome.out += base64_decode(data.value("stdout", "")).value_or("");
      outcome.err += base64_decode(data.value("stderr", "")).value_or("");
      outcome.pty += base64_decode(data.value("pty", "")).value_or("");
      if (event.contains("end")) outcome.end = event["end"];
      if (message->contains("error")) outcome.error = (*message)["error"];
    }
    return outcome;
  }
  Outcome run(const std::string& command, const nlohmann::json& more = nlohmann::json::object(),
              const HeaderMap& headers = {}) {
    auto stream = start(bash(command, more), headers);
    return follow(*stream);
  }
  // Waits until the process with this pid is no longer listed.
  bool wait_until_ended(int pid) {
    auto stream = client_->stream("process.Process/Connect", nlohmann::json{{"process", {{"pid", pid}}}});
    return !follow(*stream).end.is_null();
  }

  TestDirectory directory_;
  ProcessTable table_;
  Daemon daemon_{table_, MachineScope{directory_.path(), false}};
  uint16_t port_ = 0;
  std::unique_ptr<HttpServer> server_;
  std::unique_ptr<DaemonClient> client_;
  std::thread table_thread_;
};

}  // namespace stasis::guest
