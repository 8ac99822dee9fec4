// The life of a sandbox as the control plane sees it:
//   pending -> starting -> running -> pausing -> paused -> resuming -> running, -> stopping -> stopped, ->
//   error(reason).
// A failed pause goes back to running, a failed resume back to paused, a failed create to stopped. The reconciler may
// also bring a row back to running when the host runs the sandbox after all. Nothing leaves `stopping` but to
// `stopped`: whoever asked for the end gets it.
#pragma once

#include <optional>
#include <string_view>

namespace stasis::server {

enum class State { kPending, kStarting, kRunning, kPausing, kPaused, kResuming, kStopping, kStopped, kError };

std::string_view state_name(State state);
std::optional<State> state_from_name(std::string_view name);

// True if an operation is under way in this state (somebody must finish or settle it).
bool under_way(State state);
bool may_change(State from, State to);

}  // namespace stasis::server
