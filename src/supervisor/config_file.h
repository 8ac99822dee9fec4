// Reads what the agent has written for a supervisor.
#pragma once

#include <nlohmann/json.hpp>

#include "base/file_system.h"

namespace stasis::supervisor {

inline constexpr uint64_t kMaxConfigBytes = 1 << 20;

// `from_json` is one of protocol.h.
template <typename Config>
Result<Config> read_config_file(const Path& file, Result<Config> (*from_json)(const nlohmann::json&)) {
  STASIS_ASSIGN(const auto bytes, read_file(real_file_system(), file, kMaxConfigBytes));
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return from_json(nlohmann::json::parse(text, nullptr, false));
}

}  // namespace stasis::supervisor
