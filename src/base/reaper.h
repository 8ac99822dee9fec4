// Adopting orphans: a subreaper becomes the parent of every descendant whose own parent has died, and must reap them.
#pragma once

#include <sys/types.h>

#include <span>
#include <vector>

#include "base/result.h"

namespace stasis {

// Makes the calling process the parent of its orphaned descendants, as init is.
Status become_subreaper();

// Reaps the children that have exited and are not among `own` (whose owners reap them), without waiting; returns their
// ids. Stops when the next one to reap is one of `own`: call again after its owner has reaped it.
std::vector<pid_t> reap_orphans(std::span<const pid_t> own);

}  // namespace stasis
