// Retention: which named snapshots their policies no longer keep. A policy of a sandbox speaks for the snapshots taken
// of it, one of a template for those taken of all sandboxes that were made from it. What any policy would let go of
// goes, unless a sandbox that is not stopped was started from it or is paused in it: then it waits until that has
// ended. Names go, as if they were deleted by hand: layers live on for as long as anything needs them.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "server/store.h"

namespace stasis::server {

// The names to delete, sorted. Of two snapshots of the same millisecond the greater name counts as the newer one.
std::vector<std::string> not_retained(const std::vector<RetentionPolicy>& policies,
                                      const std::vector<TemplateRecord>& snapshots,
                                      const std::set<std::string>& snapshot_ids_in_use, int64_t now_ms);

// One transaction that decides and deletes, so that nothing comes into use in between. The names that went.
Result<std::vector<std::string>> apply_retention(Store& store, int64_t now_ms);

}  // namespace stasis::server
