#include "agent/guest_connection.h"

#include <boost/asio/error.hpp>

namespace stasis::agent {

Status TimedStream::connect(Ipv4Address address, uint16_t port) {
  return connect_ip(socket_.get(), address, port, deadline_, interrupts_);
}

size_t TimedStream::read_part(void* data, size_t size, boost::system::error_code& code) {
  auto n = receive_some(socket_.get(), {static_cast<std::byte*>(data), size}, deadline_, interrupts_);
  code = {};
  if (!n) {
    error_ = std::move(n).error();
    code = boost::asio::error::operation_aborted;
    return 0;
  }
  if (*n == 0) code = boost::asio::error::eof;
  return *n;
}

size_t TimedStream::write_part(const void* data, size_t size, boost::system::error_code& code) {
  auto n = send_some(socket_.get(), {static_cast<const std::byte*>(data), size}, deadline_, interrupts_);
  code = {};
  if (n) return *n;
  error_ = std::move(n).error();
  code = boost::asio::error::operation_aborted;
  return 0;
}

Error GuestConnection::failure(const boost::system::error_code& code, const std::string& what) const {
  if (code == boost::asio::error::operation_aborted) return Error(stream_.error()).with_context(what);
  const bool closed =
      code == boost::asio::error::eof || code == http::error::end_of_stream || code == http::error::partial_message;
  if (closed) return {Code::kUnavailable, what + ": the guest closed the connection"};
  return {Code::kInternal, what + ": " + code.message()};
}

Status GuestConnection::send(http::request<http::string_body>& request) {
  request.set(http::field::host, "guest");
  request.prepare_payload();
  boost::system::error_code code;
  http::write(stream_, request, code);
  if (code) return fail(failure(code, "ask the guest daemon"));
  return {};
}

Result<http::response<http::string_body>> GuestConnection::receive(uint64_t max_body) {
  http::response_parser<http::string_body> parser;
  parser.body_limit(max_body);
  boost::system::error_code code;
  http::read(stream_, buffer_, parser, code);
  if (code) return fail(failure(code, "wait for the guest daemon's answer"));
  return parser.release();
}

}  // namespace stasis::agent
