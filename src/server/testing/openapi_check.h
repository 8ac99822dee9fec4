// Holds an answer against openapi.yaml. Knows the part of JSON Schema that the file uses: type, properties, required,
// additionalProperties, items, enum, oneOf and $ref.
#pragma once

#include <string>

#include "server/records.h"

namespace stasis::server::testing {

struct Answer;

// Empty if the answer is as described, else what is not.
std::string description_error(const std::string& method, const std::string& target, const Answer& answer);
// The same for a value and a schema by name.
std::string schema_error(const std::string& schema, const Json& value);

}  // namespace stasis::server::testing
