#include "server/http.h"

#include "base/percent.h"
#include "server/records.h"

namespace stasis::server {
namespace {

// Of a URL, where no NUL may be.
Result<std::string> decoded(std::string_view text, bool plus_is_space) {
  STASIS_ASSIGN(std::string result, percent_decode(text, plus_is_space));
  if (result.find('\0') != std::string::npos) return fail(Code::kInvalidArgument, "the URL holds a NUL character");
  return result;
}

// Calls `each` for every part of `text` between separators.
template <typename Each>
Status split(std::string_view text, char separator, Each each) {
  while (!text.empty()) {
    const size_t end = text.find(separator);
    STASIS_TRY(each(text.substr(0, end)));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return {};
}

}  // namespace

std::string HttpRequest::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

Status parse_target(std::string_view target, HttpRequest& request) {
  if (!target.starts_with('/')) return fail(Code::kInvalidArgument, "the request's target does not begin with '/'");
  const size_t mark = target.find('?');
  const std::string_view path = target.substr(1, mark == std::string_view::npos ? mark : mark - 1);
  const Status path_is_good = split(path, '/', [&](std::string_view part) -> Status {
    STASIS_ASSIGN(std::string segment, decoded(part, false));
    request.segments.push_back(std::move(segment));
    return {};
  });
  STASIS_TRY(path_is_good);
  if (mark == std::string_view::npos) return {};
  return split(target.substr(mark + 1), '&', [&](std::string_view part) -> Status {
    const size_t equals = part.find('=');
    STASIS_ASSIGN(std::string name, decoded(part.substr(0, equals), true));
    std::string value;
    if (equals != std::string_view::npos) {
      STASIS_ASSIGN(value, decoded(part.substr(equals + 1), true));
    }
    if (!request.query.emplace(name, std::move(value)).second) {
      return fail(Code::kInvalidArgument, "the query names '" + name + "' twice");
    }
    return {};
  });
}

unsigned http_status(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
    case Code::kOutOfRange:
      return 400;
    case Code::kUnauthenticated:
      return 401;
    case Code::kPermissionDenied:
      return 403;
    case Code::kNotFound:
      return 404;
    case Code::kAlreadyExists:
    case Code::kFailedPrecondition:
    case Code::kAborted:
      return 409;
    case Code::kCancelled:
      return 499;
    case Code::kUnimplemented:
      return 501;
    case Code::kUnavailable:
      return 503;
    case Code::kDeadlineExceeded:
      return 504;
    case Code::kResourceExhausted:
      return 507;
    default:
      return 500;
  }
}

HttpResponse error_response(const Error& error, std::optional<unsigned> status) {
  const Json body = {
      {"error", {{"code", code_name(error.code)}, {"message", error.message}, {"remedy", error.remedy}}}};
  HttpResponse response;
  response.status = status.value_or(http_status(error.code));
  // What a guest or the host said may be anything but UTF-8.
  response.body = body.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (response.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

}  // namespace stasis::server
