#include "base/network_interface.h"

#include <net/if.h>

namespace stasis {

bool has_network_interface(const std::string& name) { return ::if_nametoindex(name.c_str()) != 0; }

}  // namespace stasis
