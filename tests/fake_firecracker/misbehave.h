// How the test double misbehaves: names in FAKE_FIRECRACKER_MISBEHAVE, separated by commas. Each is something that the
// real program was seen to do, or that any program may do.
#pragma once

#include <string_view>

namespace fake {

// True if `name` is in the list.
bool misbehaves(std::string_view name);

}  // namespace fake
