#include "server/state_machine.h"

#include <array>
#include <utility>

namespace stasis::server {
namespace {

constexpr std::array<std::pair<State, std::string_view>, 9> kNames = {{
    {State::kPending, "pending"},
    {State::kStarting, "starting"},
    {State::kRunning, "running"},
    {State::kPausing, "pausing"},
    {State::kPaused, "paused"},
    {State::kResuming, "resuming"},
    {State::kStopping, "stopping"},
    {State::kStopped, "stopped"},
    {State::kError, "error"},
}};

}  // namespace

std::string_view state_name(State state) {
  for (const auto& [value, name] : kNames) {
    if (value == state) return name;
  }
  return "unknown";
}

std::optional<State> state_from_name(std::string_view name) {
  for (const auto& [value, text] : kNames) {
    if (text == name) return value;
  }
  return std::nullopt;
}

bool under_way(State state) {
  switch (state) {
    case State::kPending:
    case State::kStarting:
    case State::kPausing:
    case State::kResuming:
    case State::kStopping:
      return true;
    default:
      return false;
  }
}

bool may_change(State from, State to) {
  if (from == State::kStopping) return to == State::kStopped;
  switch (to) {
    case State::kPending:
      return false;
    case State::kStarting:
      return from == State::kPending;
    case State::kRunning:  // from every state but its own: what the host runs is running
      return from != State::kRunning;
    case State::kPausing:
      return from == State::kRunning;
    case State::kPaused:
      return from == State::kPausing || from == State::kResuming;
    case State::kResuming:
      return from == State::kPaused;
    case State::kStopping:
      return from != State::kStopped;
    case State::kStopped:
      return from != State::kStopped && from != State::kPaused;
    case State::kError:
      return from != State::kStopped && from != State::kError;
  }
  return false;
}

}  // namespace stasis::server
