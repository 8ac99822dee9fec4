// Firecracker's API: HTTP/1.1 over a unix socket. One connection a request, so a connection that Firecracker closed or
// that was given up at its deadline never disturbs the next one. Synchronous.
#pragma once

#include <string>

#include "base/file_system.h"
#include "base/poll.h"
#include "base/result.h"
#include "base/unix_socket.h"

namespace stasis::vmm {

enum class ApiMethod { kGet, kPut, kPatch };

struct ApiRequest {
  ApiMethod method = ApiMethod::kGet;
  std::string target;  // "/snapshot/load"
  std::string body;    // JSON; empty for GET
  // "PUT /snapshot/load", for messages.
  std::string text() const;
};

// Longer answers are refused: Firecracker's are a few hundred bytes.
inline constexpr size_t kMaxAnswerBytes = 256 * 1024;

class ApiClient {
 public:
  explicit ApiClient(Path socket) : socket_(std::move(socket)) {}

  // The body of a 2xx answer. Otherwise:
  //   kUnavailable        nobody listens, or the connection ended before the answer did
  //   kDeadlineExceeded   no whole answer in time
  //   kFailedPrecondition Firecracker refused the request; the message is its own
  //   kInternal           what came is no HTTP
  Result<std::string> send(const ApiRequest& request, Milliseconds deadline) const;

 private:
  Path socket_;
};

// The reason in an error body: `fault_message`, or `error` (what its HTTP layer uses), or the body itself, shortened.
std::string fault_text(const std::string& body);

}  // namespace stasis::vmm
