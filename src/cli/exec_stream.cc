// The WebSocket half of the client: runs a command and hands out what it writes as it comes.
#include <boost/beast/core/buffers_to_string.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>

#include "base/base64.h"
#include "cli/client.h"
#include "cli/connection.h"

namespace stasis::cli {
namespace {

namespace http = boost::beast::http;
namespace websocket = boost::beast::websocket;
using boost::system::error_code;

constexpr uint64_t kMaxMessage = uint64_t{16} << 20;

std::string text_of(const Json& message, const char* key) {
  const auto found = message.find(key);
  return found != message.end() && found->is_string() ? found->get<std::string>() : "";
}

Error not_understood(const std::string& what) {
  return {Code::kInternal, "the server sent " + what + " in the command's stream",
          "use a stasis program of the server's version"};
}

// Handles one message of the stream; a value when it was the last one.
Result<std::optional<ExecEnd>> handle(const std::string& text, const ExecEvents& events) {
  const Json message = Json::parse(text, nullptr, false);
  if (!message.is_object()) return fail(not_understood("something that is not a JSON object"));
  const std::string type = text_of(message, "type");
  if (type == "started") {
    events.started();
    return std::nullopt;
  }
  if (type == "stdout" || type == "stderr") {
    const auto bytes = base64_decode(text_of(message, "data"));
    if (!bytes) return fail(not_understood("output that is not base64"));
    STASIS_TRY((type == "stdout" ? events.standard_output : events.standard_error)(*bytes));
    return std::nullopt;
  }
  if (type == "exited") {
    const auto code = message.find("exit_code");
    if (code == message.end() || !code->is_number_integer()) return fail(not_understood("an end without an exit code"));
    return ExecEnd{code->get<int>(), text_of(message, "status")};
  }
  if (type == "error") return fail(answered_error(500, text));
  return std::nullopt;  // a later version's message
}

Status open_websocket(websocket::stream<boost::beast::tcp_stream&>& stream, const Endpoint& endpoint,
                      const std::string& target) {
  stream.read_message_max(kMaxMessage);
  stream.set_option(websocket::stream_base::decorator([&](websocket::request_type& request) {
    request.set(http::field::user_agent, "stasis-cli");
    if (!endpoint.token.empty()) request.set(http::field::authorization, "Bearer " + endpoint.token);
  }));
  websocket::response_type response;
  error_code error;
  stream.handshake(response, authority(endpoint), target, error);
  if (error == websocket::error::upgrade_declined) return fail(answered_error(response.result_int(), response.body()));
  if (error) return fail(broken_connection(error, "opening the command's stream"));
  return {};
}

}  // namespace

Result<ExecEnd> Client::exec(const std::string& target, const Json& request, const ExecEvents& events) {
  STASIS_ASSIGN(const std::string first_message, request_text(request));
  STASIS_ASSIGN(const Connection connection, connect(endpoint_));
  reached_ = true;
  websocket::stream<boost::beast::tcp_stream&> stream(*connection.stream);
  STASIS_TRY(open_websocket(stream, endpoint_, target));
  error_code error;
  stream.text(true);
  stream.write(boost::asio::buffer(first_message), error);
  while (!error) {
    boost::beast::flat_buffer buffer;
    stream.read(buffer, error);
    if (error) break;
    STASIS_ASSIGN(const std::optional<ExecEnd> end, handle(boost::beast::buffers_to_string(buffer.data()), events));
    if (!end) continue;
    stream.close(websocket::close_code::normal, error);  // an error here changes nothing: the command has ended
    return *end;
  }
  return fail(broken_connection(error, "the command ran"));
}

}  // namespace stasis::cli
