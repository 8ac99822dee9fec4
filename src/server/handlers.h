// The routes of /v1 and the open ones, by subject. `services` must outlive the router.
#pragma once

#include <charconv>
#include <functional>
#include <initializer_list>
#include <string_view>

#include "server/json_reader.h"
#include "server/metrics.h"
#include "server/operations.h"
#include "server/router.h"

namespace stasis::server {

struct Services {
  Store& store;
  HostAgentApi& agent;
  Operations& operations;
  Metrics& metrics;
  std::function<void()> wake_reconciler;
};

void add_system_routes(Router& router, Services& services);
void add_sandbox_routes(Router& router, Services& services);
void add_exec_routes(Router& router, Services& services);
void add_file_routes(Router& router, Services& services);
void add_snapshot_routes(Router& router, Services& services);
void add_archive_routes(Router& router, Services& services);
void add_store_routes(Router& router, Services& services);
void add_inspect_routes(Router& router, Services& services);
void add_trace_routes(Router& router, Services& services);
void add_retention_routes(Router& router, Services& services);

// Shared by the handlers.
inline constexpr uint64_t kMaxJsonBody = 1 << 20;
inline constexpr uint64_t kMaxContentBody = 12 << 20;  // 8 MiB as base64, and some
inline constexpr size_t kMaxInlineBytes = 8 << 20;     // of a file or of a command's output in one JSON answer

Result<Json> read_json(Exchange& exchange, uint64_t limit = kMaxJsonBody);
// False unless the whole text is a number that fits.
template <typename Number>
bool parse_number(std::string_view text, Number& number) {
  const auto result = std::from_chars(text.data(), text.data() + text.size(), number);
  return result.ec == std::errc() && result.ptr == text.data() + text.size();
}
// kInvalidArgument if the query names anything else. A name that ends in '.' allows what begins with it.
Status check_query(const HttpRequest& request, std::initializer_list<std::string_view> allowed);

}  // namespace stasis::server
