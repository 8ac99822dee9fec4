// What makes one guest a machine of its own: the body of the guest daemon's /init.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "agent/sandbox.h"

namespace stasis::agent {

struct Identity {
  std::string sandbox_id;
  bool same_machine = false;   // a resume: host name and machine id stay
  std::string previous_token;  // of the snapshot's daemon, empty: it had none
};

// The time, fresh randomness, the environment, the token, and, unless it is the same machine, a host name (the
// record's, else the sandbox's id) and a new machine id.
nlohmann::json init_body(const Identity& identity, const SandboxRecord& record);

// Refuses what the guest would refuse, or what would not fit in the record, before anything is started.
Status check_record(const SandboxRecord& record);

}  // namespace stasis::agent
