// The agent's side of the guest daemon's protocol (shared/notes/e2b-sdk.md): health, init, processes, files. Each call
// makes a connection of its own through the sandbox's supervisor, so calls of any number of threads may overlap.
// Deadlines are on each wait, not on a whole stream: a command may run for days.
#pragma once

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "agent/guest_connection.h"

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

class GuestClient {
 public:
  // Gives a socket that is not connected, from inside the sandbox's network namespace.
  using SocketSource = std::function<Result<UniqueFd>()>;
  GuestClient(SocketSource sockets, Ipv4Address address, std::string token)
      : sockets_(std::move(sockets)), address_(address), token_(std::move(token)) {}

  Status health(Deadline deadline) const;
  Status init(const nlohmann::json& body, Deadline deadline) const;

  // Runs until the command ends, or `cancel_fd` becomes readable: then the command is killed and the answer is
  // kCancelled.
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
  Result<GuestConnection> connect(Deadline deadline) const;
  http::request<http::string_body> request(http::verb verb, const std::string& target, const std::string& user) const;
  Result<nlohmann::json> call(const std::string& rpc, const nlohmann::json& body, const std::string& user) const;
  Result<CommandEnd> follow(GuestConnection& connection, const Command& command, const CommandEvents& events,
                            int cancel_fd) const;
  Status feed_stdin(uint32_t pid, const std::string& data) const;
  void kill(uint32_t pid) const;

  SocketSource sockets_;
  Ipv4Address address_;
  std::string token_;
};

}  // namespace stasis::agent
