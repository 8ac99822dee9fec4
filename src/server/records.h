// Rows of the control plane's database as values.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "server/state_machine.h"

namespace stasis::server {

using Json = nlohmann::json;

struct SandboxRecord {
  std::string id;
  std::string template_name;
  std::string base_snapshot_id;  // what it was started from
  State state = State::kPending;
  std::string reason;
  int64_t epoch = 0;  // counts the changes of state
  uint32_t vcpus = 0;
  uint32_t memory_mb = 0;
  uint32_t disk_mb = 0;
  uint32_t timeout_sec = 0;
  int64_t deadline_ms = 0;  // Unix time; 0: none
  Json metadata = Json::object();
  Json env = Json::object();
  std::string access_token;
  int64_t created_ms = 0;
  int64_t updated_ms = 0;
  int64_t started_ms = 0;           // when it first ran; 0: never
  std::string snapshot_id;          // its last pause; kept until the next one has succeeded
  std::string pending_snapshot_id;  // of a pause that is under way
  std::string vmm;
  std::string accelerator;
  std::string address;
  Json times;          // of the last create or resume; null
  Json restore;        // null
  Json last_snapshot;  // null
};

struct TemplateRecord {
  std::string name;
  std::string type;  // "base", "snapshot"
  uint32_t vcpus = 0;
  uint32_t memory_mb = 0;
  uint32_t disk_mb = 0;
  uint64_t size_bytes = 0;
  std::string snapshot_id;
  int64_t created_ms = 0;
  std::string owner;
  std::string sandbox_id;
  std::string source_template;  // of that sandbox
  Json capture;                 // null for a base
};

}  // namespace stasis::server
