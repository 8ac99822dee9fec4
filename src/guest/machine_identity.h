// What makes this guest a machine of its own: name, machine-id, random state, clock. After a restore the host tells the
// daemon these, so that two guests from one snapshot differ.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace stasis::guest {

// Where identity is kept. `root` is put in front of the paths of files; without `kernel` neither the host name, the
// clock nor the random state of the running kernel is touched (a daemon that serves tests on somebody's machine).
struct MachineScope {
  std::string root;
  bool kernel = true;
};

bool valid_hostname(std::string_view name);
bool valid_machine_id(std::string_view id);

Status set_hostname(const MachineScope& scope, const std::string& name);  // kernel, /etc/hostname, /etc/hosts
Status set_machine_id(const MachineScope& scope, const std::string& id);
Status add_entropy(const MachineScope& scope, std::string_view bytes);
// Sets the clock if it is more than 50 ms behind `unix_ns` or more than 5 s ahead of it.
Status correct_clock(const MachineScope& scope, int64_t unix_ns);
bool clock_is_off(int64_t now_ns, int64_t host_ns);
// /run/e2b/.<name>
Status write_run_file(const MachineScope& scope, const std::string& name, std::string_view content);

// /etc/hosts with the line for 127.0.1.1 naming `hostname`.
std::string hosts_with_name(std::string_view hosts, const std::string& hostname);

}  // namespace stasis::guest
