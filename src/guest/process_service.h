// process.Process of the Connect protocol: Start, Connect, List, SendInput, StreamInput, CloseStdin, SendSignal,
// Update.
#pragma once

#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "base/result.h"
#include "guest/process_table.h"
#include "guest/settings.h"

namespace stasis::guest {

class ProcessService {
 public:
  ProcessService(ProcessTable& table, const Settings& settings) : table_(table), settings_(settings) {}

  // A call with one answer. kUnimplemented if there is no such method.
  Result<nlohmann::json> unary(std::string_view method, const nlohmann::json& request, Exchange& exchange);

  // The calls with streams answer for themselves.
  static bool is_stream(std::string_view method);
  void stream(std::string_view method, Exchange& exchange);

  // Ends every stream that is open now: after a restore their clients are gone, and what they had not acknowledged is
  // kept for who connects next.
  void end_streams();

 private:
  using Clock = GuestProcess::Clock;
  class OpenStream;

  Result<std::shared_ptr<GuestProcess>> select(const nlohmann::json& request) const;
  Result<std::shared_ptr<GuestProcess>> start(const nlohmann::json& request, Exchange& exchange);
  Result<ProcessTable::Start> start_request(const nlohmann::json& request, Exchange& exchange) const;
  // Sends events until the end; the error for the last envelope, if any. For the stream that started the process a
  // deadline is the process's, for others only their own.
  std::optional<Error> follow(const std::shared_ptr<GuestProcess>& process, Exchange& exchange,
                              std::optional<Clock::time_point> deadline, bool starter);
  Status stream_input(Exchange& exchange);
  Status send_input(GuestProcess& process, const nlohmann::json& message, Exchange& exchange,
                    Clock::time_point deadline);
  nlohmann::json list() const;

  ProcessTable& table_;
  const Settings& settings_;
  std::mutex mutex_;
  std::set<const Socket*> streams_;
};

}  // namespace stasis::guest
