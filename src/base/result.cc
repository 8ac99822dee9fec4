#include "base/result.h"

#include <array>
#include <cerrno>
#include <system_error>

namespace stasis {
namespace {

struct CodeName {
  Code code;
  std::string_view name;
};

constexpr std::array kNames = {
    CodeName{Code::kCancelled, "cancelled"},
    CodeName{Code::kUnknown, "unknown"},
    CodeName{Code::kInvalidArgument, "invalid_argument"},
    CodeName{Code::kDeadlineExceeded, "deadline_exceeded"},
    CodeName{Code::kNotFound, "not_found"},
    CodeName{Code::kAlreadyExists, "already_exists"},
    CodeName{Code::kPermissionDenied, "permission_denied"},
    CodeName{Code::kResourceExhausted, "resource_exhausted"},
    CodeName{Code::kFailedPrecondition, "failed_precondition"},
    CodeName{Code::kAborted, "aborted"},
    CodeName{Code::kOutOfRange, "out_of_range"},
    CodeName{Code::kUnimplemented, "unimplemented"},
    CodeName{Code::kInternal, "internal"},
    CodeName{Code::kUnavailable, "unavailable"},
    CodeName{Code::kDataLoss, "data_loss"},
    CodeName{Code::kUnauthenticated, "unauthenticated"},
};

Code code_of_errno(int error_number) {
  switch (error_number) {
    case ENOENT:
      return Code::kNotFound;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return Code::kResourceExhausted;
    case EEXIST:
      return Code::kAlreadyExists;
    case EACCES:
    case EPERM:
      return Code::kPermissionDenied;
    default:
      return Code::kInternal;
  }
}

}  // namespace

std::string_view code_name(Code code) {
  for (const CodeName& entry : kNames) {
    if (entry.code == code) return entry.name;
  }
  return "unknown";
}

Code code_from_name(std::string_view name) {
  for (const CodeName& entry : kNames) {
    if (entry.name == name) return entry.code;
  }
  return Code::kUnknown;
}

Error Error::with_context(std::string_view context) && {
  message.insert(0, std::string(context) + ": ");
  return std::move(*this);
}

Error Error::with_remedy(std::string_view what_to_do) && {
  remedy = what_to_do;
  return std::move(*this);
}

Error errno_error(int error_number, std::string_view what) {
  Error error;
  error.code = code_of_errno(error_number);
  error.message = std::string(what) + ": " + std::generic_category().message(error_number);
  if (error_number == ENOSPC) error.remedy = "free space on this file system, or give Stasis another state directory";
  return error;
}

}  // namespace stasis
