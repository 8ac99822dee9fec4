// Results. Every function of Stasis that can fail returns Result<T> (or Status, where there is no value); nothing below
// `server` and `cli` throws. An Error says what kind of failure it is (Code: the canonical gRPC set, so that it crosses
// the agent's API unchanged and maps to one HTTP status), what happened (message, with the context added by each caller
// on the way up, outermost first) and, where a person can do something about it, what (remedy).
#pragma once

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace stasis {

// Numeric values are those of google.rpc.Code: they travel over gRPC and in the supervisor's protocol.
enum class Code : int {
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,   // the caller's input is wrong, whatever the state of the system
  kDeadlineExceeded = 4,  // somebody did not answer in time
  kNotFound = 5,          // the named thing does not exist
  kAlreadyExists = 6,     // the name is taken
  kPermissionDenied = 7,
  kResourceExhausted = 8,   // disk full, limit reached
  kFailedPrecondition = 9,  // right request, wrong state (pause of a paused sandbox)
  kAborted = 10,            // lost a race with another operation on the same thing: try again
  kOutOfRange = 11,
  kUnimplemented = 12,  // this host or this VMM cannot do it
  kInternal = 13,       // a broken invariant or an unexpected system error
  kUnavailable = 14,    // the other side is not there (now)
  kDataLoss = 15,       // stored data is damaged or missing
  kUnauthenticated = 16,
};

// "not_found", "already_exists", ...: the machine-readable word used in REST answers and in the daemon's protocol.
std::string_view code_name(Code code);
// The reverse; kUnknown for a word that is none.
Code code_from_name(std::string_view name);

struct Error {
  Code code = Code::kUnknown;
  std::string message;
  std::string remedy = {};

  // Adds what the caller was doing in front: "pause sandbox x: write layer y: No space left on device".
  Error with_context(std::string_view context) &&;
  Error with_remedy(std::string_view what_to_do) &&;
};

template <typename T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

inline tl::unexpected<Error> fail(Error error) { return tl::unexpected<Error>(std::move(error)); }
inline tl::unexpected<Error> fail(Code code, std::string message, std::string remedy = {}) {
  return tl::unexpected<Error>(Error{code, std::move(message), std::move(remedy)});
}

// An Error made from errno: ENOENT is kNotFound, ENOSPC and EDQUOT kResourceExhausted, EEXIST kAlreadyExists, EACCES
// and EPERM kPermissionDenied, everything else kInternal. `what` says what was tried, with the path.
Error errno_error(int error_number, std::string_view what);
inline tl::unexpected<Error> fail_errno(int error_number, std::string_view what) {
  return tl::unexpected<Error>(errno_error(error_number, what));
}

}  // namespace stasis

#define STASIS_CONCAT_INNER(a, b) a##b
#define STASIS_CONCAT(a, b) STASIS_CONCAT_INNER(a, b)

// Returns the error of `expression` (a Status or any Result) from the enclosing function; goes on otherwise.
#define STASIS_TRY(expression)                                 \
  do {                                                         \
    if (auto stasis_status = (expression); !stasis_status) {   \
      return ::stasis::fail(std::move(stasis_status).error()); \
    }                                                          \
  } while (false)

// The same, with context added: STASIS_TRY_CONTEXT(write(...), "write layer " + name).
#define STASIS_TRY_CONTEXT(expression, context)                                      \
  do {                                                                               \
    if (auto stasis_status = (expression); !stasis_status) {                         \
      return ::stasis::fail(std::move(stasis_status).error().with_context(context)); \
    }                                                                                \
  } while (false)

// STASIS_ASSIGN(auto fd, open(...)): the value, or return the error.
#define STASIS_ASSIGN(declaration, expression) \
  STASIS_ASSIGN_IMPL(STASIS_CONCAT(stasis_result_, __LINE__), declaration, expression)
#define STASIS_ASSIGN_IMPL(result, declaration, expression)      \
  auto result = (expression);                                    \
  if (!result) return ::stasis::fail(std::move(result).error()); \
  declaration = std::move(result).value()
