// The version that the daemon reports: it says which of the protocol's features clients may use.
#pragma once

namespace stasis::guest {

constexpr const char* kEnvdVersion = "0.6.4";

}  // namespace stasis::guest
