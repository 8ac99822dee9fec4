#include "cli/testing/harness.h"

#include <sstream>

#include "cli/run.h"

namespace stasis::cli {

Outcome run_program(const std::vector<std::string>& arguments, const Setting& setting) {
  std::istringstream in(setting.input);
  std::ostringstream out;
  std::ostringstream err;
  if (setting.input_from != nullptr) in.std::istream::rdbuf(setting.input_from);
  if (setting.errors_to != nullptr) err.std::ostream::rdbuf(setting.errors_to);
  const bool has_input = !setting.input.empty() || setting.input_from != nullptr;
  Io io{in, out, err, has_input ? InputKind::kData : InputKind::kNothing, setting.out_terminal, setting.err_terminal};
  const Environment environment = [&](const char* name) {
    const auto found = setting.environment.find(name);
    return found == setting.environment.end() ? std::string() : found->second;
  };
  const int status = run(arguments, io, setting.daemons, environment);
  return {status, out.str(), err.str()};
}

}  // namespace stasis::cli
