// The REST client: one connection per call, JSON in and out, and streams for files and for commands that run. An error
// that the server answered comes back as it was sent (code, message, remedy). There is no time limit on an answer,
// because a pause takes as long as its pages need; connecting is limited to ten seconds.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/percent.h"
#include "base/result.h"
#include "cli/settings.h"

namespace stasis::cli {

using Json = nlohmann::json;
using Headers = std::vector<std::pair<std::string, std::string>>;

// Gives the next bytes of a body, an empty span at its end.
using Source = std::function<Result<std::span<const char>>()>;
// Takes the next bytes of a body.
using Sink = std::function<Status(std::string_view)>;

// What came through a command's stream, in order.
struct ExecEvents {
  std::function<void()> started;
  Sink standard_output;
  Sink standard_error;
};

struct ExecEnd {
  int exit_code = 0;   // -1: it did not exit by itself, see status
  std::string status;  // "exited", "signal: killed"
};

class Client {
 public:
  explicit Client(Endpoint endpoint) : endpoint_(std::move(endpoint)) {}

  // The answer's JSON; null for an empty answer. Answers over 64 MiB are refused.
  Result<Json> call(std::string_view method, const std::string& target, const std::optional<Json>& body = {},
                    const Headers& headers = {});
  // POST of bytes as they come; `size`, if it is known, becomes the Content-Length.
  Result<Json> upload(const std::string& target, std::optional<uint64_t> size, const Source& source);
  // Request whose answer's bytes go to `sink`: how many there were.
  Result<uint64_t> download(const std::string& target, const Sink& sink, std::string_view method = "POST");
  // Runs a command through a WebSocket until it has ended.
  Result<ExecEnd> exec(const std::string& target, const Json& request, const ExecEvents& events);

  // False until a connection to the server was made.
  bool reached() const { return reached_; }

 private:
  Endpoint endpoint_;
  bool reached_ = false;
};

// JSON text of a request. kInvalidArgument if a string in it is not UTF-8: JSON cannot carry it, and the server must
// not get something else than what was said.
Result<std::string> request_text(const Json& request);

}  // namespace stasis::cli
