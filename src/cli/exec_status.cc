#include "cli/exec_status.h"

#include <array>
#include <csignal>
#include <string_view>

namespace stasis::cli {
namespace {

struct SignalName {
  std::string_view name;
  int number;
};

// The words of the guest daemon's protocol, which are those of Go's os package.
constexpr std::array kSignals = {
    SignalName{"hangup", SIGHUP},
    SignalName{"interrupt", SIGINT},
    SignalName{"quit", SIGQUIT},
    SignalName{"illegal instruction", SIGILL},
    SignalName{"trace/breakpoint trap", SIGTRAP},
    SignalName{"aborted", SIGABRT},
    SignalName{"bus error", SIGBUS},
    SignalName{"floating point exception", SIGFPE},
    SignalName{"killed", SIGKILL},
    SignalName{"user defined signal 1", SIGUSR1},
    SignalName{"segmentation fault", SIGSEGV},
    SignalName{"user defined signal 2", SIGUSR2},
    SignalName{"broken pipe", SIGPIPE},
    SignalName{"alarm clock", SIGALRM},
    SignalName{"terminated", SIGTERM},
    SignalName{"cpu time limit exceeded", SIGXCPU},
    SignalName{"file size limit exceeded", SIGXFSZ},
};

}  // namespace

int exit_status_of(const ExecEnd& end) {
  if (end.exit_code >= 0) return end.exit_code & 0xff;
  constexpr std::string_view kPrefix = "signal: ";
  std::string_view status = end.status;
  if (status.starts_with(kPrefix)) {
    status.remove_prefix(kPrefix.size());
    for (const SignalName& known : kSignals) {
      if (status.starts_with(known.name)) return 128 + known.number;
    }
  }
  return 255;
}

}  // namespace stasis::cli
