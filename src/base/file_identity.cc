#include "base/file_identity.h"

#include <sys/stat.h>

#include <cerrno>

namespace stasis {
namespace {

std::string time_text(const timespec& time) { return std::to_string(time.tv_sec) + "." + std::to_string(time.tv_nsec); }

}  // namespace

Result<std::string> file_identity(const Path& path) {
  struct stat st {};
  if (::lstat(path.c_str(), &st) != 0) return fail_errno(errno, "look at " + path.string());
  return std::to_string(st.st_size) + " " + time_text(st.st_mtim) + " " + time_text(st.st_ctim) + " " +
         std::to_string(st.st_dev) + ":" + std::to_string(st.st_ino);
}

}  // namespace stasis
