// Which fields a request's body may have and must have. Firecracker refuses everything else.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace fake {

// The route without the id at its end: "/drives/disk" -> "/drives".
std::string route_of(const std::string& target);

// What is wrong with the body, in serde's words; nothing if it is right. A route that is not known is not this
// function's.
std::optional<std::string> body_fault(const std::string& route, const nlohmann::json& body);

}  // namespace fake
