#include "cli/client.h"

#include <array>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include "cli/connection.h"

namespace stasis::cli {
namespace {

namespace http = boost::beast::http;
using boost::system::error_code;

constexpr uint64_t kMaxAnswer = uint64_t{64} << 20;
constexpr size_t kChunk = size_t{256} << 10;

template <typename Body>
http::request<Body> make_request(const Endpoint& endpoint, std::string_view method, const std::string& target) {
  http::request<Body> request;
  request.version(11);
  request.method_string(method);
  request.target(target);
  request.set(http::field::host, authority(endpoint));
  request.set(http::field::user_agent, "stasis-cli");
  request.set(http::field::connection, "close");
  if (!endpoint.token.empty()) request.set(http::field::authorization, "Bearer " + endpoint.token);
  return request;
}

Result<Json> json_of(const http::response<http::string_body>& response) {
  if (response.result_int() < 200 || response.result_int() >= 300) {
    return fail(answered_error(response.result_int(), response.body()));
  }
  if (response.body().empty()) return Json();
  Json document = Json::parse(response.body(), nullptr, false);
  if (document.is_discarded()) {
    return fail(Code::kInternal, "the server's answer is not JSON", "is that a Stasis server? Check --url");
  }
  return document;
}

Result<Json> read_answer(boost::beast::tcp_stream& stream) {
  boost::beast::flat_buffer buffer;
  http::response_parser<http::string_body> parser;
  parser.body_limit(kMaxAnswer);
  error_code error;
  http::read(stream, buffer, parser, error);
  if (error) return fail(broken_connection(error, "waiting for its answer"));
  return json_of(parser.get());
}

// Writes the body piece by piece. An error of `source` is returned as it is; one of the connection as nothing, because
// the server may have refused the request before it was all sent, and its answer says more.
Status write_body(boost::beast::tcp_stream& stream, http::request<http::buffer_body>& request, const Source& source) {
  http::request_serializer<http::buffer_body> serializer(request);
  error_code error;
  http::write_header(stream, serializer, error);
  if (error) return {};
  do {
    STASIS_ASSIGN(const std::span<const char> bytes, source());
    request.body().data = bytes.empty() ? nullptr : const_cast<char*>(bytes.data());
    request.body().size = bytes.size();
    request.body().more = !bytes.empty();
    http::write(stream, serializer, error);
    if (error == http::error::need_buffer) error = {};
  } while (!error && request.body().more);
  return {};
}

// The rest of an answer whose header has been read, piece by piece.
Result<uint64_t> read_body(boost::beast::tcp_stream& stream, boost::beast::flat_buffer& buffer,
                           http::response_parser<http::buffer_body>& parser, const Sink& sink) {
  std::vector<char> chunk(kChunk);
  uint64_t total = 0;
  while (!parser.is_done()) {
    parser.get().body().data = chunk.data();
    parser.get().body().size = chunk.size();
    error_code error;
    // Some: what has come is shown now, and not when the chunk is full.
    http::read_some(stream, buffer, parser, error);
    if (error == http::error::need_buffer) error = {};
    if (error) return fail(broken_connection(error, "reading a file"));
    const size_t count = chunk.size() - parser.get().body().size;
    if (count > 0) STASIS_TRY(sink({chunk.data(), count}));
    total += count;
  }
  return total;
}

}  // namespace

Result<Json> Client::call(std::string_view method, const std::string& target, const std::optional<Json>& body,
                          const Headers& headers) {
  auto request = make_request<http::string_body>(endpoint_, method, target);
  for (const auto& [name, value] : headers) request.set(name, value);
  if (body) {
    request.set(http::field::content_type, "application/json");
    STASIS_ASSIGN(request.body(), request_text(*body));
  }
  request.prepare_payload();
  STASIS_ASSIGN(const Connection connection, connect(endpoint_));
  reached_ = true;
  error_code error;
  http::write(*connection.stream, request, error);
  if (error) return fail(broken_connection(error, "sending a request"));
  return read_answer(*connection.stream);
}

Result<Json> Client::upload(const std::string& target, std::optional<uint64_t> size, const Source& source) {
  STASIS_ASSIGN(const Connection connection, connect(endpoint_));
  reached_ = true;
  auto request = make_request<http::buffer_body>(endpoint_, "POST", target);
  request.set(http::field::content_type, "application/octet-stream");
  request.body().more = true;
  if (size) {
    request.content_length(*size);
  } else {
    request.chunked(true);
  }
  STASIS_TRY(write_body(*connection.stream, request, source));
  return read_answer(*connection.stream);
}

Result<uint64_t> Client::download(const std::string& target, const Sink& sink, std::string_view method) {
  STASIS_ASSIGN(const Connection connection, connect(endpoint_));
  reached_ = true;
  auto request = make_request<http::empty_body>(endpoint_, method, target);
  request.set(http::field::accept, "application/octet-stream");
  request.prepare_payload();
  error_code error;
  http::write(*connection.stream, request, error);
  if (error) return fail(broken_connection(error, "sending a request"));
  boost::beast::flat_buffer buffer;
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  http::read_header(*connection.stream, buffer, parser, error);
  if (error) return fail(broken_connection(error, "waiting for its answer"));
  const unsigned status = parser.get().result_int();
  if (status == 200) return read_body(*connection.stream, buffer, parser, sink);
  std::string message;
  const auto collect = [&](std::string_view bytes) -> Status {
    if (message.size() + bytes.size() <= kChunk) message += bytes;
    return {};
  };
  STASIS_TRY(read_body(*connection.stream, buffer, parser, collect));
  return fail(answered_error(status, message));
}

Result<std::string> request_text(const Json& request) {
  try {
    return request.dump();
  } catch (const Json::exception&) {
    return fail(Code::kInvalidArgument, "a name, an argument or the standard input is not UTF-8 text",
                "copy bytes into the sandbox with 'stasis cp' and name the file");
  }
}

}  // namespace stasis::cli
