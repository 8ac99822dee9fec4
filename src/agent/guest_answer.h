// Reading what a guest daemon answers. A guest is not trusted: a field of another type than expected counts as absent.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"

namespace stasis::agent {

// An error answer: {"code": word or number, "message": text}; `status` decides where the body says nothing.
Error guest_error(unsigned status, const std::string& body);
Error guest_error(unsigned status, const nlohmann::json& body);

// "" if absent.
std::string text_field(const nlohmann::json& object, const char* name);
// 0 if absent; proto3 JSON writes 64-bit numbers as strings.
int64_t number_field(const nlohmann::json& object, const char* name);
// nullptr if absent.
const nlohmann::json* object_field(const nlohmann::json& object, const char* name);

}  // namespace stasis::agent
