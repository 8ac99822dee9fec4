// One HTTP request and its answer, as a handler sees them. The body is pulled, so an upload of any size passes through
// a buffer of fixed size; the answer is either sent whole or streamed in chunks. A handler sends exactly one answer.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "guest/socket.h"

namespace stasis::guest {

using Headers = std::vector<std::pair<std::string, std::string>>;

class Exchange {
 public:
  virtual ~Exchange() = default;

  virtual std::string_view method() const = 0;
  virtual const std::string& path() const = 0;  // decoded, without the query
  // A parameter of the query, decoded; nothing if it is not there.
  virtual std::optional<std::string> query(std::string_view name) const = 0;
  virtual std::string header(std::string_view name) const = 0;  // empty if it is not there
  virtual Headers headers_with_prefix(std::string_view lower_case_prefix) const = 0;

  // Fills `out` with the next bytes of the body; 0 at its end.
  virtual Result<size_t> read_body(std::span<char> out) = 0;
  // The rest of the body; kResourceExhausted if it is longer than `limit`.
  Result<std::string> read_whole_body(size_t limit);

  virtual void send(int status, const Headers& headers, std::string_view body) = 0;
  // Sends the head of an answer of exactly `length` bytes, which write() then sends.
  virtual bool begin(int status, const Headers& headers, uint64_t length) = 0;
  // Sends the head of an answer of unknown length: write() sends one chunk, finish() ends it.
  virtual bool begin_stream(int status, const Headers& headers) = 0;
  // False once the peer is gone.
  virtual bool write(std::string_view data) = 0;
  virtual void finish() = 0;

  virtual Socket& socket() = 0;

  // True if an answer has been begun.
  virtual bool answered() const = 0;
};

// The form of errors outside the RPCs: {"code":404,"message":"..."}.
void send_http_error(Exchange& exchange, int status, std::string_view message);

}  // namespace stasis::guest
