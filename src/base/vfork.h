// Starting a program without a copy of the caller's memory: the child runs on that memory, on a stack of its own, until
// it executes its program or ends, and the calling thread waits for that. A fork() would write-protect every page of
// the caller and copy its page tables: 1 to 2 ms of a large process, and faults afterwards.
//
// What runs in the child may touch only what the caller has made ready and make plain system calls: the library's
// wrappers may take locks, which a child that hangs or is killed would hold for ever, and note things in the memory
// of the caller (setuid makes its other threads follow). Each such function is marked STASIS_IN_CHILD:
// ThreadSanitizer would take its calls for calls of the caller's thread that never return.
#pragma once

#include <sys/types.h>

#include <atomic>

#include "base/result.h"

#define STASIS_IN_CHILD __attribute__((no_sanitize("thread")))

namespace stasis {

// Returns once `child` has executed a program, has been killed or has returned, which ends it with that status. That
// can take for ever (a program on a file system that does not answer). `pid` is set before the child's first
// instruction; the caller reaps it. Signals are blocked in the child until it calls default_signals().
Status run_vforked(int (*child)(void*), void* argument, std::atomic<pid_t>& pid);

// In the child: every handler goes, then signals come again.
void default_signals();

}  // namespace stasis
