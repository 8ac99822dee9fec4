// Fields of proto3 JSON requests: absent and null mean the default; a value of another type is kInvalidArgument.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"

namespace stasis::guest {

// The field, or nullptr if it is absent or null.
const nlohmann::json* json_field(const nlohmann::json& object, const char* name);

Result<std::string> string_field(const nlohmann::json& object, const char* name);
Result<bool> bool_field(const nlohmann::json& object, const char* name, bool otherwise);
// Numbers may come as strings.
Result<uint64_t> number_field(const nlohmann::json& object, const char* name, uint64_t otherwise);
Result<std::map<std::string, std::string>> map_field(const nlohmann::json& object, const char* name);
Result<std::vector<std::string>> list_field(const nlohmann::json& object, const char* name);

}  // namespace stasis::guest
