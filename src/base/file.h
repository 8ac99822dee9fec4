// Small things about open files that are not durable state (those go through FileSystem): logs, descriptors.
#pragma once

#include "base/fd.h"
#include "base/file_system.h"
#include "base/result.h"

namespace stasis {

// Opens for appending, makes the file (mode 0600) if it is missing.
Result<UniqueFd> open_append(const Path& path);
Result<UniqueFd> duplicate(int fd);
// The last lines of a log, for an error's message; empty if there is none. A guest may have written it: what is not
// printable ASCII becomes '?', so that it neither breaks a JSON text nor a terminal.
std::string log_tail(const Path& file);
// `what`, and what the log of the program that it is about says last, if it says anything.
std::string with_last_words(const std::string& what, const Path& log);

}  // namespace stasis
