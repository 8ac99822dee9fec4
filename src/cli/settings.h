// Where the server is and how to be let in: what the user said, or what a server on this machine left in its state
// directory.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/file_system.h"
#include "base/result.h"

namespace stasis::cli {

inline constexpr std::string_view kDefaultStateDir = "/var/lib/stasis";

// An environment variable's value; empty if it is not set.
using Environment = std::function<std::string(const char*)>;
std::string process_environment(const char* name);

// What every command takes on its command line; empty: not said.
struct CommonOptions {
  std::string url = {};
  std::string token = {};
  std::string state_dir = {};
  bool json = false;
};

struct Endpoint {
  std::string host;  // name or address, without brackets
  uint16_t port = 0;
  std::string token;  // empty: none found
};

// "http://127.0.0.1:7878", "http://[::1]:80/": scheme http only, no path.
Result<Endpoint> parse_url(std::string_view url);

// --state-dir, STASIS_STATE_DIR, or the default.
Path state_directory(const CommonOptions& options, const Environment& environment);

// URL: --url, STASIS_URL, or STATE/server.json. Token: --token, STASIS_TOKEN, or, for a server on this machine,
// STATE/api-token. kUnavailable if nothing says where the server is.
Result<Endpoint> find_server(const CommonOptions& options, const Environment& environment);

}  // namespace stasis::cli
