// The standard streams as a command sees them, so that tests can take their place.
#pragma once

#include <istream>
#include <ostream>

#include "base/terminal.h"

namespace stasis::cli {

struct Io {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  InputKind in_kind = InputKind::kNothing;
  bool out_terminal = false;  // tables for people, else JSON
  bool err_terminal = false;  // errors as text and progress lines, else JSON and none
};

// Exit statuses of the program. `exec` answers with the command's own.
inline constexpr int kSuccess = 0;
inline constexpr int kFailure = 1;
inline constexpr int kUsage = 2;
inline constexpr int kNotReachable = 3;

}  // namespace stasis::cli
