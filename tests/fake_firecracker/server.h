// The double's HTTP: answers in the form of Firecracker's own server (no reason phrase, no Content-Length with 204,
// keep-alive, bodies over 51,200 bytes refused with {"error"}), one connection after the other.
#pragma once

#include "api.h"
#include "base/file_system.h"

namespace fake {

// Returns only on failure to listen.
[[nodiscard]] int serve(const stasis::Path& socket);

}  // namespace fake
