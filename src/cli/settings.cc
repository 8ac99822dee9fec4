#include "cli/settings.h"

#include <charconv>
#include <cstdlib>
#include <nlohmann/json.hpp>

namespace stasis::cli {
namespace {

constexpr uint64_t kMaxFile = uint64_t{64} << 10;

Result<std::string> small_file(const Path& path) {
  STASIS_ASSIGN(const std::vector<std::byte> bytes, read_file(real_file_system(), path, kMaxFile));
  std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  text.erase(text.find_last_not_of(" \n\r\t") + 1);
  return text;
}

std::string first_of(const std::string& said, const Environment& environment, const char* name) {
  return said.empty() ? environment(name) : said;
}

Result<std::string> url_of_local_server(const Path& state_dir) {
  const Path path = state_dir / "server.json";
  const auto text = small_file(path);
  if (!text && text.error().code == Code::kNotFound) {
    return fail(Code::kUnavailable,
                "no Stasis server is running on this machine with the state directory " + state_dir.string(),
                "start one with 'stasis up', or name another with --url, --state-dir, STASIS_URL or STASIS_STATE_DIR");
  }
  if (!text)
    return fail(Error(text.error())
                    .with_context("find the server")
                    .with_remedy("run as the user that runs the server, or give --url and --token"));
  const auto description = nlohmann::json::parse(*text, nullptr, false);
  const auto url = description.is_object() ? description.find("url") : description.end();
  if (!description.is_object() || url == description.end() || !url->is_string()) {
    return fail(Code::kDataLoss, path.string() + " does not say where the server is",
                "restart the server, or give --url");
  }
  return url->get<std::string>();
}

bool is_loopback(std::string_view host) { return host == "localhost" || host == "::1" || host.starts_with("127."); }

Error bad_url(std::string_view url) {
  return {Code::kInvalidArgument, "'" + std::string(url) + "' is not the address of a Stasis server",
          "write http://HOST:PORT (for https, put a proxy in front of it)"};
}

}  // namespace

std::string process_environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

Result<Endpoint> parse_url(std::string_view url) {
  constexpr std::string_view kScheme = "http://";
  std::string_view rest = url;
  if (!rest.starts_with(kScheme)) return fail(bad_url(url));
  rest.remove_prefix(kScheme.size());
  if (rest.ends_with('/')) rest.remove_suffix(1);
  Endpoint endpoint;
  endpoint.port = 80;
  size_t host_end = rest.find(':');
  if (rest.starts_with('[')) {
    const size_t bracket = rest.find(']');
    if (bracket == std::string_view::npos) return fail(bad_url(url));
    endpoint.host = rest.substr(1, bracket - 1);
    host_end = bracket + 1 < rest.size() ? bracket + 1 : std::string_view::npos;
  } else {
    endpoint.host = rest.substr(0, host_end);
  }
  if (host_end != std::string_view::npos) {
    const std::string_view port = rest.substr(host_end + 1);
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), endpoint.port);
    if (rest[host_end] != ':' || error != std::errc() || end != port.data() + port.size() || endpoint.port == 0) {
      return fail(bad_url(url));
    }
  }
  if (endpoint.host.empty() || endpoint.host.find_first_of("/?#@ \t\r\n") != std::string::npos)
    return fail(bad_url(url));
  return endpoint;
}

Path state_directory(const CommonOptions& options, const Environment& environment) {
  const std::string said = first_of(options.state_dir, environment, "STASIS_STATE_DIR");
  return said.empty() ? Path(kDefaultStateDir) : Path(said);
}

Result<Endpoint> find_server(const CommonOptions& options, const Environment& environment) {
  const Path state_dir = state_directory(options, environment);
  std::string url = first_of(options.url, environment, "STASIS_URL");
  if (url.empty()) {
    STASIS_ASSIGN(url, url_of_local_server(state_dir));
  }
  STASIS_ASSIGN(Endpoint endpoint, parse_url(url));
  endpoint.token = first_of(options.token, environment, "STASIS_TOKEN");
  // This machine's token is not for servers elsewhere.
  if (endpoint.token.empty() && is_loopback(endpoint.host)) {
    endpoint.token = small_file(state_dir / "api-token").value_or("");
  }
  if (endpoint.token.find_first_of("\r\n") != std::string::npos) {
    return fail(Code::kInvalidArgument, "the API token contains a line break",
                "give the token alone, as STATE/api-token holds it");
  }
  return endpoint;
}

}  // namespace stasis::cli
