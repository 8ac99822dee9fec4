#include "agent/identity.h"

#include <algorithm>

#include "base/base64.h"
#include "base/clock.h"

namespace stasis::agent {
namespace {

using nlohmann::json;

constexpr size_t kEntropyBytes = 64;
constexpr size_t kMaxHostname = 63;
constexpr size_t kMaxToken = 4096;
constexpr size_t kMaxEnvironment = 128 << 10;

std::string random_machine_id() {
  std::string text = Uuid::random().text();
  std::erase(text, '-');
  return text;
}

std::string random_entropy() {
  std::string bytes(kEntropyBytes, '\0');
  fill_random(std::as_writable_bytes(std::span(bytes)));
  return base64_encode(bytes);
}

bool is_hostname(const std::string& name) {
  const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
  });
  return plain && name.size() <= kMaxHostname && name.front() != '-' && name.front() != '.';
}

}  // namespace

json init_body(const Identity& identity, const SandboxRecord& record) {
  json own{{"entropy", random_entropy()}, {"sandboxId", identity.sandbox_id}};
  if (!identity.same_machine) {
    own["machineId"] = random_machine_id();
    own["hostname"] = record.hostname.empty() ? identity.sandbox_id : record.hostname;
  }
  if (!identity.previous_token.empty()) own["previousAccessToken"] = identity.previous_token;
  json body{{"timestamp", rfc3339(unix_time_ns())}, {"envVars", record.env}, {"stasis", own}};
  if (!record.access_token.empty()) body["accessToken"] = record.access_token;
  return body;
}

Status check_record(const SandboxRecord& record) {
  if (!record.hostname.empty() && !is_hostname(record.hostname)) {
    return fail(Code::kInvalidArgument, "'" + record.hostname + "' is not a host name",
                "use up to 63 letters, digits, '-' and '.', beginning with a letter or digit");
  }
  if (record.access_token.size() > kMaxToken)
    return fail(Code::kInvalidArgument, "the access token is longer than 4096 bytes");
  size_t size = 0;
  for (const auto& [name, value] : record.env) {
    size += name.size() + value.size() + 2;
    if (name.empty() || name.find('=') != std::string::npos) {
      return fail(Code::kInvalidArgument, "'" + name + "' is no name of an environment variable");
    }
  }
  if (size > kMaxEnvironment) {
    return fail(Code::kInvalidArgument, "the environment is larger than 128 KiB",
                "put large values into a file of the sandbox");
  }
  return {};
}

}  // namespace stasis::agent
