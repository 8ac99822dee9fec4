// The guest's network: lo, and the first other interface with one address and a default route.
#pragma once

#include <string>

#include "base/result.h"

namespace stasis::guest {

// An empty `cidr` brings up lo only, an empty `gateway` sets no route.
Status configure_network(const std::string& cidr, const std::string& gateway);

}  // namespace stasis::guest
