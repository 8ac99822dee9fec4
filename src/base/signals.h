// Signals as a descriptor: block them in the whole process (before any thread is started) and read them where
// everything else is waited for.
#pragma once

#include <initializer_list>

#include "base/fd.h"
#include "base/result.h"

namespace stasis {

// Blocks `numbers` in the calling thread (and threads that it starts) and returns a descriptor that is readable when
// one came. SIGPIPE is ignored from now on as well.
Result<UniqueFd> take_signals(std::initializer_list<int> numbers);
// The number of a signal that came, 0 if none did.
int read_signal(int signal_fd);

}  // namespace stasis
