// Runs the whole program inside a test, with streams and an environment of the test's own.
#pragma once

#include <map>
#include <streambuf>
#include <string>
#include <vector>

#include "cli/daemon_options.h"
#include "cli/io.h"

namespace stasis::cli {

struct Setting {
  std::string input = {};  // standard input; empty: none
  std::streambuf* input_from = nullptr;
  std::streambuf* errors_to = nullptr;  // instead of Outcome::err
  bool out_terminal = false;
  bool err_terminal = false;
  std::map<std::string, std::string> environment = {};
  Daemons daemons = {};
};

struct Outcome {
  int status = -1;
  std::string out;
  std::string err;
};

Outcome run_program(const std::vector<std::string>& arguments, const Setting& setting = {});

// Nobody looks at the output; and somebody sits at a terminal.
inline const Setting kPiped = {};
inline const Setting kTerminal = {.out_terminal = true, .err_terminal = true};

}  // namespace stasis::cli
