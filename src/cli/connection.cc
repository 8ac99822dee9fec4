#include "cli/connection.h"

#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <nlohmann/json.hpp>

namespace stasis::cli {
namespace {

constexpr std::chrono::seconds kConnectTimeout(10);

Code code_of_status(unsigned status) {
  switch (status) {
    case 400:
    case 413:
    case 422:
      return Code::kInvalidArgument;
    case 401:
      return Code::kUnauthenticated;
    case 403:
      return Code::kPermissionDenied;
    case 404:
      return Code::kNotFound;
    case 409:
      return Code::kFailedPrecondition;
    case 429:
    case 507:
      return Code::kResourceExhausted;
    case 501:
      return Code::kUnimplemented;
    case 502:
    case 503:
      return Code::kUnavailable;
    case 504:
      return Code::kDeadlineExceeded;
    default:
      return Code::kUnknown;
  }
}

std::string text_of(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

}  // namespace

std::string authority(const Endpoint& endpoint) {
  const bool ipv6 = endpoint.host.find(':') != std::string::npos;
  return (ipv6 ? "[" + endpoint.host + "]" : endpoint.host) + ":" + std::to_string(endpoint.port);
}

Result<Connection> connect(const Endpoint& endpoint) {
  namespace asio = boost::asio;
  Connection connection{std::make_unique<asio::io_context>(), nullptr};
  connection.stream = std::make_unique<boost::beast::tcp_stream>(*connection.context);
  const auto failed = [&](const boost::system::error_code& error) {
    return fail(Code::kUnavailable,
                "no Stasis server answers at http://" + authority(endpoint) + ": " + error.message(),
                "is it running? 'stasis up' starts one; --url or STASIS_URL names another");
  };
  boost::system::error_code error;
  asio::ip::tcp::resolver resolver(*connection.context);
  const auto addresses = resolver.resolve(endpoint.host, std::to_string(endpoint.port), error);
  if (error) return failed(error);
  connection.stream->expires_after(kConnectTimeout);
  connection.stream->async_connect(addresses,
                                   [&](const boost::system::error_code& outcome, const auto&) { error = outcome; });
  connection.context->run();
  if (error) return failed(error);
  connection.stream->expires_never();
  connection.stream->socket().set_option(asio::ip::tcp::no_delay(true), error);
  return connection;
}

Error broken_connection(const boost::system::error_code& error, std::string_view doing) {
  return {Code::kUnavailable, "the connection to the server broke while " + std::string(doing) + ": " + error.message(),
          "see the server's log; 'stasis ls' shows what state the sandbox is in"};
}

Error answered_error(unsigned status, std::string_view body) {
  const auto document = nlohmann::json::parse(body, nullptr, false);
  const auto error = document.is_object() ? document.find("error") : document.end();
  if (!document.is_object() || error == document.end() || !error->is_object()) {
    return {code_of_status(status), "the server answered with HTTP status " + std::to_string(status),
            "is that a Stasis server? Check --url"};
  }
  const std::string word = text_of(*error, "code");
  const Code known = code_from_name(word);
  return {known == Code::kUnknown && word != "unknown" ? code_of_status(status) : known, text_of(*error, "message"),
          text_of(*error, "remedy")};
}

}  // namespace stasis::cli
