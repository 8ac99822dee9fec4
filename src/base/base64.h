// Base64 (RFC 4648, with padding): how bytes travel in JSON.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace stasis {

std::string base64_encode(std::string_view bytes);
// kInvalidArgument for anything that base64_encode does not write: wrong length, other characters, bits left over.
Result<std::string> base64_decode(std::string_view text);

}  // namespace stasis
