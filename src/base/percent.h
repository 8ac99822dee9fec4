// Percent-encoding (RFC 3986): how text travels in a URL.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace stasis {

// Everything but the unreserved characters and those in `plain` becomes %XX.
std::string percent_encode(std::string_view text, std::string_view plain = "");
// Any bytes may come out, NUL too. kInvalidArgument for a '%' that no two hex digits follow. `plus_is_space`: as in a
// query.
Result<std::string> percent_decode(std::string_view text, bool plus_is_space);

}  // namespace stasis
