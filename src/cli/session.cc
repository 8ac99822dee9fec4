#include "cli/session.h"

#include "cli/table.h"

namespace stasis::cli {
namespace {

std::string document_text(const Json& document, bool indented) {
  return document.dump(indented ? 2 : -1, ' ', false, Json::error_handler_t::replace);
}

// For an error that came without one: what helps with most of its kind.
std::string_view usual_remedy(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
    case Code::kOutOfRange:
      return "correct what is named above; 'stasis COMMAND --help' shows examples";
    case Code::kNotFound:
      return "check the name; 'stasis ls --all' and 'stasis snapshot ls' list what there is";
    case Code::kAlreadyExists:
      return "choose another name";
    case Code::kDeadlineExceeded:
      return "give it more time (--timeout), or look at its state with 'stasis ls'";
    case Code::kFailedPrecondition:
      return "look at the state with 'stasis ls --all'";
    case Code::kAborted:
      return "something else was done to it at the same time: try again";
    case Code::kPermissionDenied:
      return "run as a user who may do this, or name one with --user";
    case Code::kUnauthenticated:
      return "give the server's token with --token or STASIS_TOKEN; the server keeps it in STATE/api-token";
    case Code::kResourceExhausted:
      return "free what is short (disk, memory, sandboxes), then try again";
    case Code::kUnimplemented:
      return "'stasis doctor' says what this machine can do";
    case Code::kCancelled:
      return "try again";
    case Code::kUnavailable:
    case Code::kUnknown:
    case Code::kInternal:
    case Code::kDataLoss:
      return "the logs of the server and the agent ('stasis up' prints them) say more";
  }
  return "";
}

}  // namespace

Result<Client*> Session::client() {
  if (!client_) {
    STASIS_ASSIGN(Endpoint endpoint, find_server(common_, environment_));
    client_.emplace(std::move(endpoint));
  }
  return &*client_;
}

void Session::print(const Json& document) {
  io_.out << document_text(document, io_.out_terminal) << '\n' << std::flush;
}

void Session::report(const Error& error) { report_error(io_, common_.json || !io_.err_terminal, error); }

tl::unexpected<Error> Session::usage(std::string message, std::string remedy) {
  usage_ = true;
  return fail(Code::kInvalidArgument, std::move(message), std::move(remedy));
}

int Session::status_of(const Error& error) const {
  if (usage_) return kUsage;
  const bool reached = client_ && client_->reached();
  return error.code == Code::kUnavailable && !reached ? kNotReachable : kFailure;
}

void report_error(Io& io, bool json, const Error& error) {
  const std::string remedy = error.remedy.empty() ? std::string(usual_remedy(error.code)) : error.remedy;
  if (json) {
    const Json document = {
        {"error", {{"code", code_name(error.code)}, {"message", error.message}, {"remedy", remedy}}}};
    io.err << document_text(document, false) << '\n' << std::flush;
    return;
  }
  io.err << "stasis: " << printable(error.message) << "\n  code:   " << code_name(error.code)
         << "\n  remedy: " << printable(remedy) << '\n'
         << std::flush;
}

std::string text_field(const Json& object, const char* key) {
  if (!object.is_object()) return "";
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

double number_field(const Json& object, const char* key) {
  if (!object.is_object()) return 0;
  const auto found = object.find(key);
  return found != object.end() && found->is_number() ? found->get<double>() : 0;
}

const Json& list_field(const Json& object, const char* key) {
  static const Json none = Json::array();
  const auto found = object.find(key);
  return found != object.end() && found->is_array() ? *found : none;
}

std::string size_field(const Json& object, const char* key) {
  return size_text(static_cast<uint64_t>(number_field(object, key)));
}

const Json& object_field(const Json& object, const char* key) {
  static const Json empty = Json::object();
  if (!object.is_object()) return empty;
  const auto found = object.find(key);
  return found != object.end() && found->is_object() ? *found : empty;
}

}  // namespace stasis::cli
