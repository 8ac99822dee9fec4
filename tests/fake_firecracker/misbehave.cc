#include "misbehave.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <iostream>
#include <set>
#include <sstream>
#include <string>

namespace fake {
namespace {

constexpr std::array<std::string_view, 31> kKnown{
    "exit_at_start",     // says why and ends with status 1, before its socket exists
    "no_socket",         // never opens its socket
    "slow_socket",       // opens it 300 ms late
    "slow_answers",      // 100 ms for each answer
    "old_version",       // 1.12.0
    "no_version",        // an object without the version
    "extra_json",        // more in its answers than is known
    "http_error",        // PATCH: 400 with {"error": ...}, as its HTTP layer does
    "refuse_state",      // PATCH: 400 with {"fault_message": ...}
    "late_pause",        // PATCH to Paused: 400, and it pauses
    "stands_still",      // the same, and a PATCH to Resumed: 400
    "refuse_start",      // InstanceStart: 400
    "silent",            // PATCH: no answer
    "cut_answer",        // PATCH: closes the connection in the middle of the answer
    "close_connection",  // PATCH: closes the connection without an answer
    "garbage",           // PATCH: something that is no HTTP
    "endless",           // PATCH: an answer that is too long
    "dies_on_state",     // PATCH: killed
    "load_hangs",        // never answers a load
    "load_dies",         // killed by a load
    "dies_after_load",   // answers the load, then ends
    "late_load",         // 300 ms for a load
    "bus_error",         // a load of a file: SIGBUS, as of a page of it that cannot be read
    "exits_on_sigbus",   // with status 149, as what the real program's own threads touch makes it
    "no_handshake",      // never speaks to the page server, and hangs on its first fault
    "wrong_regions",     // hands over less than all of memory
    "create_dies",       // killed in the middle of a Diff
    "create_fails",      // a Diff: 400, and it has forgotten which pages were written
    "create_short",      // a Diff: a memory file of half the length
    "create_no_state",   // a Diff: 204, and no state file
    "sparse_full",       // holes instead of zeros in a Full memory file: for guests larger than the test wants to write
};

std::set<std::string> wanted() {
  std::set<std::string> names;
  const char* list = std::getenv("FAKE_FIRECRACKER_MISBEHAVE");
  std::istringstream stream(list == nullptr ? "" : list);
  for (std::string name; std::getline(stream, name, ',');) {
    if (std::find(kKnown.begin(), kKnown.end(), name) == kKnown.end()) {
      std::cerr << "no such misbehaviour: " << name << std::endl;
      std::exit(2);
    }
    names.insert(name);
  }
  return names;
}

}  // namespace

bool misbehaves(std::string_view name) {
  static const std::set<std::string> names = wanted();
  return names.contains(std::string(name));
}

}  // namespace fake
