// One HTTP/1.1 connection to a guest daemon, over a socket that was made inside the sandbox's network namespace. Speaks
// through Boost.Beast's parsers; every wait has a deadline, and ends early when an interrupt fires. Not thread-safe.
#pragma once

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <string>
#include <vector>

#include "base/ip_socket.h"

namespace stasis::agent {

namespace http = boost::beast::http;

inline constexpr uint16_t kGuestDaemonPort = 49983;

// What Beast reads from and writes to: a socket with a deadline. The error that a Beast call reports as failed is kept
// here.
class TimedStream {
 public:
  explicit TimedStream(UniqueFd socket) : socket_(std::move(socket)) {}

  Status connect(Ipv4Address address, uint16_t port);
  void set_deadline(Deadline deadline) { deadline_ = deadline; }
  // From now on waits end with this error when `fd` becomes readable.
  void add_interrupt(int fd, Error error) { interrupts_.push_back({fd, std::move(error)}); }
  const Error& error() const { return error_; }

  template <typename Buffers>
  size_t read_some(const Buffers& buffers, boost::system::error_code& code) {
    for (auto at = boost::asio::buffer_sequence_begin(buffers); at != boost::asio::buffer_sequence_end(buffers); ++at) {
      const boost::asio::mutable_buffer part = *at;
      if (part.size() > 0) return read_part(part.data(), part.size(), code);
    }
    code = {};
    return 0;
  }
  // Beast hands over the head of a message in pieces of a word or a line. They go together: each by itself would be a
  // packet that the guest has to take, seven for a request without a body.
  template <typename Buffers>
  size_t write_some(const Buffers& buffers, boost::system::error_code& code) {
    gathered_.clear();
    for (auto at = boost::asio::buffer_sequence_begin(buffers); at != boost::asio::buffer_sequence_end(buffers); ++at) {
      const boost::asio::const_buffer part = *at;
      if (gathered_.empty() && part.size() >= kGatheredAtMost) return write_part(part.data(), part.size(), code);
      const size_t room = kGatheredAtMost - gathered_.size();
      gathered_.append(static_cast<const char*>(part.data()), std::min(part.size(), room));
    }
    code = {};
    return gathered_.empty() ? 0 : write_part(gathered_.data(), gathered_.size(), code);
  }
  // Beast's synchronous operations are templates over both forms; only those with an error code are used here.
  template <typename Buffers>
  size_t read_some(const Buffers& buffers) {
    boost::system::error_code code;
    const size_t n = read_some(buffers, code);
    if (code) throw boost::system::system_error(code);
    return n;
  }
  template <typename Buffers>
  size_t write_some(const Buffers& buffers) {
    boost::system::error_code code;
    const size_t n = write_some(buffers, code);
    if (code) throw boost::system::system_error(code);
    return n;
  }

 private:
  static constexpr size_t kGatheredAtMost = size_t{16} << 10;
  size_t read_part(void* data, size_t size, boost::system::error_code& code);
  size_t write_part(const void* data, size_t size, boost::system::error_code& code);

  UniqueFd socket_;
  std::string gathered_;  // of one write
  Deadline deadline_ = Deadline::never();
  std::vector<Interrupt> interrupts_;
  Error error_;
};

class GuestConnection {
 public:
  // `keep` is held open as long as the connection lives (an interrupt's descriptor).
  GuestConnection(UniqueFd socket, UniqueFd keep) : stream_(std::move(socket)), keep_(std::move(keep)) {}

  TimedStream& stream() { return stream_; }
  boost::beast::flat_buffer& buffer() { return buffer_; }

  Status send(http::request<http::string_body>& request);
  // A whole answer, body at most `max_body` bytes.
  Result<http::response<http::string_body>> receive(uint64_t max_body);
  // The kept error of the last failed Beast call, with what was tried.
  Error failure(const boost::system::error_code& code, const std::string& what) const;

 private:
  TimedStream stream_;
  UniqueFd keep_;
  boost::beast::flat_buffer buffer_;
};

}  // namespace stasis::agent
