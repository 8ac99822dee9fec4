// Which network interfaces there are, without the libraries that changing them needs (route_socket.h).
#pragma once

#include <string>

namespace stasis {

// True if the calling thread's network namespace has an interface of this name, up or not.
bool has_network_interface(const std::string& name);

}  // namespace stasis
