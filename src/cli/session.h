// One run of the program: its streams, what the user said about output and server, and how things are shown. A command
// returns the exit status, or an Error that the session reports; which exit status an error means is the session's
// business.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/result.h"
#include "cli/client.h"
#include "cli/io.h"
#include "cli/settings.h"

namespace stasis::cli {

class Session {
 public:
  Session(Io& io, CommonOptions common, Environment environment)
      : io_(io), common_(std::move(common)), environment_(std::move(environment)) {}

  Io& io() { return io_; }
  const CommonOptions& common() const { return common_; }
  Path state_dir() const { return state_directory(common_, environment_); }
  // Documents for programs: asked for, or nobody is looking.
  bool json() const { return common_.json || !io_.out_terminal; }

  // The server, found once. kUnavailable if there is none.
  Result<Client*> client();

  // A document on standard output: one line each when piped, indented on a terminal.
  void print(const Json& document);
  // An error on standard error: what, code and remedy as text on a terminal, else {"error":{...}}.
  void report(const Error& error);

  // An error in what the user typed: exit status kUsage.
  tl::unexpected<Error> usage(std::string message, std::string remedy);
  int status_of(const Error& error) const;

 private:
  Io& io_;
  CommonOptions common_;
  Environment environment_;
  std::optional<Client> client_;
  bool usage_ = false;
};

// What a parsed command line does.
using Action = std::function<Result<int>(Session&)>;

void report_error(Io& io, bool json, const Error& error);

// Fields of answers, forgiving: "", 0, an empty object or an empty list for what is missing or of another type.
std::string text_field(const Json& object, const char* key);
double number_field(const Json& object, const char* key);
const Json& object_field(const Json& object, const char* key);
const Json& list_field(const Json& object, const char* key);
// A number of bytes, for people.
std::string size_field(const Json& object, const char* key);

}  // namespace stasis::cli
