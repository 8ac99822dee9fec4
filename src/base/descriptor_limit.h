// How many descriptors this process and the children that it starts may have open.
#pragma once

namespace stasis {

// Raises the soft limit (RLIMIT_NOFILE; usually 1,024, for the sake of select(), which nothing here calls) to the hard
// one. Where that is refused the limit stays, and whoever runs into it says so.
void raise_descriptor_limit();

}  // namespace stasis
