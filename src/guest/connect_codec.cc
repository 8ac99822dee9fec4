#include "guest/connect_codec.h"

#include <array>

#include "guest/text.h"

namespace stasis::guest {
namespace {

constexpr size_t kHeadBytes = 5;

}  // namespace

std::string envelope(uint8_t flags, std::string_view payload) {
  std::string out;
  out.reserve(kHeadBytes + payload.size());
  out.push_back(static_cast<char>(flags));
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(payload.size() >> shift & 0xFF));
  out.append(payload);
  return out;
}

std::string message_envelope(const nlohmann::json& message) { return envelope(0, to_text(message)); }

std::string end_envelope(const std::optional<Error>& error) {
  nlohmann::json body = nlohmann::json::object();
  if (error) body["error"] = error_json(*error);
  return envelope(kEndStreamFlag, to_text(body));
}

nlohmann::json error_json(const Error& error) {
  return {{"code", std::string(code_name(error.code))}, {"message", error.message}};
}

int http_status(Code code) {
  switch (code) {
    case Code::kCancelled:
      return 499;
    case Code::kInvalidArgument:
    case Code::kFailedPrecondition:
    case Code::kOutOfRange:
      return 400;
    case Code::kUnauthenticated:
      return 401;
    case Code::kPermissionDenied:
      return 403;
    case Code::kNotFound:
      return 404;
    case Code::kAlreadyExists:
    case Code::kAborted:
      return 409;
    case Code::kResourceExhausted:
      return 429;
    case Code::kUnimplemented:
      return 501;
    case Code::kUnavailable:
      return 503;
    case Code::kDeadlineExceeded:
      return 504;
    case Code::kUnknown:
    case Code::kInternal:
    case Code::kDataLoss:
      return 500;
  }
  return 500;
}

Result<std::optional<std::chrono::milliseconds>> parse_timeout(std::string_view header) {
  if (header.empty()) return std::nullopt;
  auto value = parse_number(header);
  if (!value || header.size() > 10) {
    return fail(Code::kInvalidArgument,
                "Connect-Timeout-Ms '" + std::string(header) + "' is not a number of milliseconds");
  }
  if (*value == 0) return std::nullopt;
  return std::chrono::milliseconds(*value);
}

Result<bool> EnvelopeReader::fill(size_t size) {
  std::array<char, 16384> part;
  while (buffer_.size() < size) {
    STASIS_ASSIGN(size_t count, exchange_.read_body(part));
    if (count == 0) {
      if (buffer_.empty()) return false;
      return fail(Code::kInvalidArgument, "the request ended inside an envelope");
    }
    buffer_.append(part.data(), count);
  }
  return true;
}

Result<std::optional<nlohmann::json>> EnvelopeReader::next() {
  STASIS_ASSIGN(bool more, fill(kHeadBytes));
  if (!more) return std::nullopt;
  auto flags = static_cast<uint8_t>(buffer_[0]);
  size_t length = 0;
  for (size_t i = 1; i < kHeadBytes; ++i) length = length << 8 | static_cast<uint8_t>(buffer_[i]);
  if ((flags & 1) != 0) return fail(Code::kUnimplemented, "compressed messages are not supported");
  if (length > kMaxMessageBytes) return fail(Code::kResourceExhausted, "message is longer than 16 MiB");
  STASIS_TRY(fill(kHeadBytes + length));
  auto message = parse_object(std::string_view(buffer_).substr(kHeadBytes, length));
  buffer_.erase(0, kHeadBytes + length);
  if ((flags & kEndStreamFlag) != 0) return std::nullopt;
  if (!message) return fail(Code::kInvalidArgument, "the message is not a JSON object");
  return message;
}

}  // namespace stasis::guest
