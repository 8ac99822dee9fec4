#include "vmm/firecracker/api_client.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <nlohmann/json.hpp>

namespace stasis::vmm {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using Socket = asio::local::stream_protocol::socket;
using boost::system::error_code;

constexpr size_t kMaxFaultText = 1000;

http::verb verb(ApiMethod method) {
  switch (method) {
    case ApiMethod::kGet:
      return http::verb::get;
    case ApiMethod::kPut:
      return http::verb::put;
    case ApiMethod::kPatch:
      return http::verb::patch;
  }
  return http::verb::unknown;
}

http::request<http::string_body> to_http(const ApiRequest& request) {
  http::request<http::string_body> message(verb(request.method), request.target, 11);
  message.set(http::field::host, "localhost");
  message.set(http::field::accept, "application/json");
  if (!request.body.empty()) {
    message.set(http::field::content_type, "application/json");
    message.body() = request.body;
    message.prepare_payload();
  }
  return message;
}

// One request and its answer as a chain of asynchronous steps, so that one deadline covers all of them.
class Exchange {
 public:
  explicit Exchange(const ApiRequest& request) : socket_(context_), request_(to_http(request)) {
    parser_.body_limit(kMaxAnswerBytes);
  }

  // False at the deadline; otherwise error() tells how it went.
  bool run(const Path& socket, Milliseconds deadline) {
    socket_.async_connect(asio::local::stream_protocol::endpoint(socket.string()), [this](error_code error) {
      if (!keep(error)) write();
    });
    context_.run_for(deadline);
    return context_.stopped();
  }
  const error_code& error() const { return error_; }
  const http::response<http::string_body>& answer() const { return parser_.get(); }

 private:
  bool keep(error_code error) {
    error_ = error;
    return error_.failed();
  }
  void write() {
    http::async_write(socket_, request_, [this](error_code error, size_t) {
      if (!keep(error)) read();
    });
  }
  void read() {
    http::async_read(socket_, buffer_, parser_, [this](error_code error, size_t) { keep(error); });
  }

  asio::io_context context_;
  Socket socket_;
  http::request<http::string_body> request_;
  boost::beast::flat_buffer buffer_{kMaxAnswerBytes};
  http::response_parser<http::string_body> parser_;
  error_code error_;
};

bool is_protocol_error(const error_code& error) {
  return error.category() == make_error_code(http::error::bad_version).category() &&
         error != http::error::end_of_stream && error != http::error::partial_message;
}

Result<std::string> outcome(const Exchange& exchange) {
  if (is_protocol_error(exchange.error())) {
    return fail(Code::kInternal, "Firecracker's answer is not understood: " + exchange.error().message());
  }
  if (exchange.error()) return fail(Code::kUnavailable, "no answer from Firecracker: " + exchange.error().message());
  const auto& answer = exchange.answer();
  if (answer.result_int() / 100 == 2) return answer.body();
  return fail(Code::kFailedPrecondition,
              "Firecracker answered " + std::to_string(answer.result_int()) + ": " + fault_text(answer.body()));
}

}  // namespace

std::string ApiRequest::text() const { return std::string(to_string(verb(method))) + " " + target; }

Result<std::string> ApiClient::send(const ApiRequest& request, Milliseconds deadline) const {
  try {
    Exchange exchange(request);
    if (!exchange.run(socket_, deadline)) {
      return fail(Code::kDeadlineExceeded,
                  request.text() + ": no answer from Firecracker within " + std::to_string(deadline.count()) + " ms");
    }
    auto result = outcome(exchange);
    if (!result) return fail(std::move(result).error().with_context(request.text()));
    return result;
  } catch (const std::exception& error) {  // a path too long for a socket address; out of memory
    return fail(Code::kInternal, request.text() + ": " + error.what());
  }
}

std::string fault_text(const std::string& body) {
  const auto json = nlohmann::json::parse(body, nullptr, false);
  if (json.is_object()) {
    for (const char* key : {"fault_message", "error"}) {
      const auto found = json.find(key);
      if (found != json.end() && found->is_string()) return found->get<std::string>().substr(0, kMaxFaultText);
    }
  }
  return body.empty() ? "no reason given" : body.substr(0, kMaxFaultText);
}

}  // namespace stasis::vmm
