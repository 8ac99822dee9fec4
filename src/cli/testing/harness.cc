#include "cli/testing/harness.h"

#include <sstream>

#include "cli/run.h"

namespace stasis::cli {

Outcome run_program(const std::vector<std::string>& arguments, const Setting& setting) {
  std::istringstream in(setting.input);
  std::ostringstream out;
  std::ostringstream err;
  Io io{in,
        out,
        err,
        setting.input.empty() ? InputKind::kNothing : InputKind::kData,
        setting.out_terminal,
        setting.err_terminal};
  const Environment environment = [&](const char* name) {
    const auto found = setting.environment.find(name);
    return found == setting.environment.end() ? std::string() : found->second;
  };
  const int status = run(arguments, io, setting.daemons, environment);
  return {status, out.str(), err.str()};
}

}  // namespace stasis::cli
