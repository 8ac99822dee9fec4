#include "guest/upload.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "guest/filesystem_service.h"
#include "guest/metadata.h"

namespace stasis::guest {

Result<Upload> Upload::open(const std::string& path, const User& user) {
  struct stat info {};
  bool existed = stat(path.c_str(), &info) == 0;
  if (existed && S_ISDIR(info.st_mode)) return fail(Code::kInvalidArgument, "path is a directory: " + path);
  if (!existed) STASIS_TRY(make_directories(std::filesystem::path(path).parent_path().string(), user));
  // Never waits for the reader of a pipe.
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644));
  if (!fd) return fail_errno(errno, "open " + path);
  if (fchown(fd.get(), user.uid, user.gid) != 0) return fail_errno(errno, "chown " + path);
  return Upload(path, std::move(fd));
}

Status Upload::write(std::string_view data) {
  while (!data.empty()) {
    ssize_t count = ::write(fd_.get(), data.data(), data.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "write " + path_);
    data.remove_prefix(static_cast<size_t>(count));
  }
  return {};
}

Status Upload::finish(const std::map<std::string, std::string>& metadata) {
  STASIS_TRY(write_metadata(fd_.get(), metadata));
  int fd = fd_.release();
  if (close(fd) != 0) return fail_errno(errno, "close " + path_);
  return {};
}

}  // namespace stasis::guest
