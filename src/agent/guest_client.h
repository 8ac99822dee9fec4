// The agent's side of the guest daemon's protocol (shared/notes/e2b-sdk.md): health, init, processes, files. Each call
// makes a connection of its own through the sandbox's supervisor, so calls of any number of threads may overlap. A
// guest that has just been started is asked by datagrams first (base/greeting.h), if its daemon knows them.
// Deadlines are on each wait, not on a whole stream: a command may run for days. When the sandbox ends, everything that
// waits for its guest ends with kUnavailable at once.
#pragma once

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "agent/guest_connection.h"
#include "agent/guest_greeting.h"

namespace stasis::agent {

struct Command {
  std::string program;
  std::vector<std::string> args;
  std::map<std::string, std::string> env;
  std::string cwd;
  std::string user;
  std::string stdin_data;   // all of it; empty: /dev/null
  uint32_t timeout_ms = 0;  // 0: none
};

struct CommandEnd {
  int exit_code = 0;  // -1 if killed by a signal
  std::string status;
};

// What a command does; any may be empty.
struct CommandEvents {
  std::function<void(uint32_t pid)> started;
  std::function<void(std::string_view)> out;
  std::function<void(std::string_view)> err;
};

struct DirEntry {
  std::string name, path, type, owner, group, modified;
  uint64_t size = 0;
  uint32_t mode = 0;
};

// How to reach a guest: a socket, not connected, from inside its network namespace, and what says that the sandbox has
// ended.
struct GuestSocket {
  GuestSocket() = default;
  GuestSocket(UniqueFd not_connected, UniqueFd readable_when_ended = {})
      : socket(std::move(not_connected)), ended(std::move(readable_when_ended)) {}
  UniqueFd socket;
  UniqueFd ended;  // the supervisor's pidfd; none: nobody can say
};

// The way on which the daemon has answered, open for another question.
using GuestContact = std::variant<GuestGreeting, GuestConnection>;

class GuestClient {
 public:
  using SocketSource = std::function<Result<GuestSocket>(Transport)>;
  // `stop_fd` readable: the agent stops, every wait ends with kUnavailable. -1: never.
  GuestClient(SocketSource sockets, Ipv4Address address, std::string token, int stop_fd = -1)
      : sockets_(std::move(sockets)), address_(address), token_(std::move(token)), stop_fd_(stop_fd) {}

  // Whether the daemon answers over HTTP; the connection is open for another request.
  Result<GuestConnection> health(Deadline deadline) const;
  // Whether the daemon answers at all: by datagrams, or, if it refuses them, within as much time again over HTTP.
  // `patient`: a daemon that says nothing to datagrams is not asked over HTTP (kDeadlineExceeded).
  Result<GuestContact> greet(Milliseconds limit, bool patient) const;
  // On the way on which it has answered, if that is known and `body` fits there: a connection is a good part of what a
  // restored guest has to do.
  Status init(const nlohmann::json& body, Deadline deadline, std::optional<GuestContact> contact = {}) const;

  // Runs until the command ends. When `cancel_fd` becomes readable the command is killed and the answer is kCancelled.
  // It is not killed when the agent stops: it is the sandbox's, not the agent's.
  Result<CommandEnd> run(const Command& command, const CommandEvents& events, int cancel_fd) const;

  // `take(total_size, bytes)` is called with each piece, at least once.
  Status read_file(const std::string& path, const std::string& user,
                   const std::function<Status(uint64_t, std::string_view)>& take) const;
  // `give` returns the next piece, empty at the end.
  Result<uint64_t> write_file(const std::string& path, const std::string& user,
                              const std::function<Result<std::string>()>& give) const;
  Result<std::vector<DirEntry>> list_directory(const std::string& path, const std::string& user, uint32_t depth) const;
  Status make_directory(const std::string& path, const std::string& user) const;
  Status remove(const std::string& path, const std::string& user) const;

 private:
  friend class CommandRun;
  std::vector<Interrupt> interrupts(const UniqueFd& ended) const;
  Result<GuestConnection> connect(Deadline deadline) const;
  Result<GuestGreeting> open_greeting() const;
  Status init_by_http(const std::string& body, Deadline deadline, std::optional<GuestContact> contact) const;
  http::request<http::string_body> request(http::verb verb, const std::string& target, const std::string& user) const;
  struct CallLimit {
    Deadline deadline = Deadline::never();
    int interrupt_fd = -1;  // readable: the call ends with kUnavailable
  };
  Result<nlohmann::json> call(const std::string& rpc, const nlohmann::json& body, const std::string& user) const;
  Result<nlohmann::json> call(const std::string& rpc, const nlohmann::json& body, const std::string& user,
                              const CallLimit& limit) const;

  SocketSource sockets_;
  Ipv4Address address_;
  std::string token_;
  int stop_fd_;
};

// Deadlines of single waits, shared by the parts of the client.
inline constexpr Milliseconds kGuestConnectDeadline{5'000};
inline constexpr Milliseconds kGuestCallDeadline{60'000};
inline constexpr uint64_t kMaxGuestAnswer = 16 << 20;

}  // namespace stasis::agent
