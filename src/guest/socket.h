// One connection, read and written by one thread, with time limits. It is a Beast SyncReadStream and SyncWriteStream. A
// read waits until `idle_limit` for its first byte; a write until `write_limit` for room. Both end at once when
// shut_down() is called from another thread. Of what listen_on() accepts, the kernel is told to give up on a peer that
// vanished (as every peer does when the guest is restored somewhere else), so a dead connection holds its thread for
// half a minute at most once something is sent.
#pragma once

#include <atomic>
#include <boost/asio/buffer.hpp>
#include <boost/system/error_code.hpp>
#include <boost/system/system_error.hpp>
#include <chrono>
#include <cstdint>
#include <span>
#include <string>

#include "base/fd.h"

namespace stasis::guest {

class Socket {
 public:
  explicit Socket(UniqueFd fd) : fd_(std::move(fd)) {}

  template <typename Buffers>
  size_t read_some(const Buffers& buffers, boost::system::error_code& error) {
    for (auto it = boost::asio::buffer_sequence_begin(buffers); it != boost::asio::buffer_sequence_end(buffers); ++it) {
      boost::asio::mutable_buffer buffer(*it);
      if (buffer.size() > 0) return receive(buffer.data(), buffer.size(), error);
    }
    error = {};
    return 0;
  }
  template <typename Buffers>
  size_t read_some(const Buffers& buffers) {
    boost::system::error_code error;
    size_t count = read_some(buffers, error);
    if (error) throw boost::system::system_error(error);
    return count;
  }
  template <typename Buffers>
  size_t write_some(const Buffers& buffers, boost::system::error_code& error) {
    for (auto it = boost::asio::buffer_sequence_begin(buffers); it != boost::asio::buffer_sequence_end(buffers); ++it) {
      boost::asio::const_buffer buffer(*it);
      if (buffer.size() > 0) return send(buffer.data(), buffer.size(), error);
    }
    error = {};
    return 0;
  }
  template <typename Buffers>
  size_t write_some(const Buffers& buffers) {
    boost::system::error_code error;
    size_t count = write_some(buffers, error);
    if (error) throw boost::system::system_error(error);
    return count;
  }

  // Everything, or false if the peer is gone or takes nothing for `write_limit`.
  bool write_all(std::string_view data);

  // From now on a write waits for as long as the peer is there: whoever follows a command may read nothing for minutes.
  // One that has vanished is given up by the kernel in a quarter of an hour, or by ProcessService::end_streams().
  void let_peer_take_its_time();

  int fd() const { return fd_.get(); }
  // Bytes handed to write so far that the peer's kernel has acknowledged.
  uint64_t acknowledged_bytes() const;
  uint64_t written_bytes() const { return written_; }
  // Ends the connection from any thread while the Socket exists.
  void shut_down() const;

  static constexpr std::chrono::milliseconds kDefaultLimit{60'000};
  std::chrono::milliseconds idle_limit = kDefaultLimit;
  std::chrono::milliseconds write_limit = kDefaultLimit;

 private:
  size_t receive(void* data, size_t size, boost::system::error_code& error);
  size_t send(const void* data, size_t size, boost::system::error_code& error);

  UniqueFd fd_;
  uint64_t written_ = 0;
  mutable std::atomic<bool> shut_down_ = false;
};

// A listening socket on an IPv4 address, whose connections have the limits above; port 0 picks a free one. Returns an
// invalid descriptor with errno set on failure.
UniqueFd listen_on(const std::string& address, uint16_t port);
// The same for datagrams.
UniqueFd take_datagrams_on(const std::string& address, uint16_t port);
uint16_t bound_port(int fd);

}  // namespace stasis::guest
