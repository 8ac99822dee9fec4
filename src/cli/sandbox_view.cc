#include "cli/sandbox_view.h"

#include <fmt/format.h>

#include "base/clock.h"
#include "cli/session.h"

namespace stasis::cli {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kPage = 4096;

uint64_t count_field(const Json& object, const char* key) {
  const double value = number_field(object, key);
  return value > 0 ? static_cast<uint64_t>(value) : 0;
}

std::string size_field(const Json& object, const char* key, uint64_t unit) {
  const uint64_t value = count_field(object, key);
  return value == 0 ? "" : size_text(value * unit);
}

std::string number_text(const Json& object, const char* key) {
  const uint64_t value = count_field(object, key);
  return value == 0 ? "" : std::to_string(value);
}

std::string age_field(const Json& object, const char* key) {
  const auto then = parse_rfc3339(text_field(object, key));
  return then ? age_text(unix_time_ms() / 1000 - *then) : "";
}

std::string space_text(const Json& space) {
  return fmt::format("{} (generation {})", size_text(count_field(space, "stored_bytes")),
                     count_field(space, "generation"));
}

// Why the guest of a live snapshot stood for as long as it did.
std::string live_text(const Json& live) {
  if (live.empty()) return "";
  const std::string left = size_text(count_field(live, "last_round_bytes"));
  if (const std::string reason = text_field(live, "reason"); !reason.empty()) {
    return fmt::format(" ({}, nothing copied ahead: {})", left, reason);
  }
  const uint64_t rounds = count_field(live, "rounds");
  return fmt::format(" ({} left after {} round{})", left, rounds, rounds == 1 ? "" : "s");
}

}  // namespace

Table sandbox_table() {
  return Table({{"ID"}, {"TEMPLATE"}, {"STATE"}, {"VCPUS", true}, {"MEMORY", true}, {"AGE", true}, {"REASON"}});
}

void add_sandbox(Table& table, const Json& sandbox) {
  table.add({text_field(sandbox, "id"), text_field(sandbox, "template"), text_field(sandbox, "state"),
             number_text(sandbox, "vcpus"), size_field(sandbox, "memory_mb", kMiB), age_field(sandbox, "created_at"),
             text_field(sandbox, "reason")});
}

Table snapshot_table() {
  return Table({{"NAME"}, {"TYPE"}, {"VCPUS", true}, {"MEMORY", true}, {"STORED", true}, {"AGE", true}, {"SANDBOX"}});
}

void add_snapshot(Table& table, const Json& snapshot) {
  table.add({text_field(snapshot, "name"), text_field(snapshot, "type"), number_text(snapshot, "vcpus"),
             size_field(snapshot, "memory_mb", kMiB), size_field(snapshot, "size_bytes", 1),
             age_field(snapshot, "created_at"), text_field(snapshot, "sandbox_id")});
}

std::string created_line(const Json& sandbox) {
  const Json& times = object_field(sandbox, "times");
  std::string line = text_field(sandbox, "id") + " is " + text_field(sandbox, "state");
  if (times.empty()) return line;
  return line +
         fmt::format(": the guest daemon answered after {}", duration_text(number_field(times, "daemon_answered_ms")));
}

std::string paused_line(const Json& sandbox) {
  std::string line = text_field(sandbox, "id") + " is " + text_field(sandbox, "state");
  const std::string stored = capture_text(object_field(sandbox, "last_snapshot"));
  return stored.empty() ? line : line + ": stored " + stored;
}

std::string resumed_line(const Json& sandbox) {
  std::string line = created_line(sandbox);
  const Json& restore = object_field(sandbox, "restore");
  if (restore.empty()) return line;
  // Mapped pages come without a fault that anybody sees: those count that are there.
  const uint64_t loaded = text_field(restore, "method") == "uffd"
                              ? count_field(restore, "pages_by_fault") + count_field(restore, "pages_prefetched")
                              : count_field(restore, "resident_pages");
  const uint64_t total = count_field(restore, "total_pages");
  return line + fmt::format("; {} of {} pages loaded ({} of {}, {})", loaded, total, size_text(loaded * kPage),
                            size_text(total * kPage), text_field(restore, "method"));
}

std::string capture_text(const Json& capture) {
  if (capture.empty()) return "";
  return fmt::format("memory {}, disk {}; the guest stood for {}{}", space_text(object_field(capture, "memory")),
                     space_text(object_field(capture, "disk")), duration_text(number_field(capture, "stopped_ms")),
                     live_text(object_field(capture, "live")));
}

Result<Json> pairs_object(const std::vector<std::string>& pairs, const std::string& option) {
  Json object = Json::object();
  for (const std::string& pair : pairs) {
    const size_t equals = pair.find('=');
    if (equals == std::string::npos || equals == 0) {
      return fail(Code::kInvalidArgument, fmt::format("{} '{}' is not KEY=VALUE", option, pair),
                  fmt::format("write {} KEY=VALUE", option));
    }
    object[pair.substr(0, equals)] = pair.substr(equals + 1);
  }
  return object;
}

std::string sandbox_path(const std::string& id, const std::string& rest) {
  return "/v1/sandboxes/" + percent_encode(id) + rest;
}

}  // namespace stasis::cli
