// One run of the program against a server that answers what the test says.
#pragma once

#include <nlohmann/json.hpp>

#include "cli/testing/fake_server.h"
#include "cli/testing/harness.h"

namespace stasis::cli {

// The sandbox that the arguments name.
inline const std::string kId = "k3v9x0c2m5n8q1w4e7r6";

inline FakeReply error_reply(unsigned status, const std::string& code) {
  return {.status = status,
          .body = nlohmann::json{{"error", {{"code", code}, {"message", "it is so"}, {"remedy", "do this"}}}}.dump()};
}

// Runs the program against a server that answers `handler`, and keeps what the server was asked.
struct Call : Outcome {
  Call(FakeServer::Handler handler, std::vector<std::string> arguments, Setting setting = {}) {
    FakeServer server(std::move(handler));
    setting.environment["STASIS_URL"] = server.url();
    setting.environment["STASIS_TOKEN"] = "e2b_token";
    static_cast<Outcome&>(*this) = run_program(arguments, setting);
    requests = server.requests();
  }
  std::vector<FakeRequest> requests;
};

inline FakeServer::Handler always(FakeReply reply) {
  return [reply = std::move(reply)](const FakeRequest&) { return reply; };
}

}  // namespace stasis::cli
