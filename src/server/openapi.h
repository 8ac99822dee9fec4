// The description of the API, openapi.yaml, as it was when this program was built.
#pragma once

#include <string_view>

namespace stasis::server {

extern const std::string_view kOpenApi;

}  // namespace stasis::server
