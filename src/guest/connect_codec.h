// The Connect protocol's wire forms: envelopes (one flag byte, a 4-byte big-endian length, JSON), error bodies, the
// HTTP status of an error, and timeouts.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "guest/exchange.h"

namespace stasis::guest {

constexpr size_t kMaxMessageBytes = size_t{16} << 20;
constexpr uint8_t kEndStreamFlag = 2;

std::string envelope(uint8_t flags, std::string_view payload);
std::string message_envelope(const nlohmann::json& message);
// The last envelope of a stream: {} or {"error":{...}}.
std::string end_envelope(const std::optional<Error>& error);

// {"code":"not_found","message":"..."}
nlohmann::json error_json(const Error& error);
int http_status(Code code);

// Connect-Timeout-Ms: at most ten digits; absent or empty is no timeout; zero too, as the SDKs mean it.
Result<std::optional<std::chrono::milliseconds>> parse_timeout(std::string_view header);

// Pulls envelopes out of a request body. Compressed ones, and ones longer than kMaxMessageBytes, are errors.
class EnvelopeReader {
 public:
  explicit EnvelopeReader(Exchange& exchange) : exchange_(exchange) {}
  // The next message as a JSON object; nothing at the end of the body or at an end-of-stream envelope.
  Result<std::optional<nlohmann::json>> next();

 private:
  // False at a clean end of the body.
  Result<bool> fill(size_t size);

  Exchange& exchange_;
  std::string buffer_;
};

}  // namespace stasis::guest
