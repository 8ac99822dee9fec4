#include "supervisor/live_rounds.h"

namespace stasis::supervisor {

Result<LiveStats> copy_in_rounds(LiveCopy& copy, const std::function<Result<vmm::SavedMemory>()>& look,
                                 RoundLimits limits) {
  uint64_t before = UINT64_MAX;
  for (uint32_t round = 1;; ++round) {
    auto memory = look();
    if (!memory && memory.error().code == Code::kUnimplemented) return LiveStats{.reason = memory.error().message};
    if (!memory) return fail(std::move(memory).error());
    STASIS_TRY(copy.copy(memory->source, memory->fresh));
    const uint64_t bytes = total_length(memory->fresh);
    if (bytes <= limits.small || bytes > before / 4 * 3 || round == limits.most) return LiveStats{.rounds = round};
    before = bytes;
  }
}

}  // namespace stasis::supervisor
