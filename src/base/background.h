// Work that must not be felt.
#pragma once

namespace stasis {

// Gives the calling thread the lowest share of processor and disk: nice 19 and the idle class of I/O. Not SCHED_IDLE: a
// thread that holds a lock must get on. What the kernel refuses is left as it is.
void become_background_thread();

}  // namespace stasis
