#include "guest/small_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>

#include "base/fd.h"

namespace stasis::guest {
namespace {

constexpr size_t kPage = 4096;

Status write_all(int fd, std::string_view data, const std::string& path) {
  while (!data.empty()) {
    ssize_t count = write(fd, data.data(), data.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "write " + path);
    data.remove_prefix(static_cast<size_t>(count));
  }
  return {};
}

Status replace_file(const std::string& path, std::string_view content) {
  std::string temporary = path + ".stasis-new";
  UniqueFd fd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (!fd) return fail_errno(errno, "create " + temporary);
  Status written = write_all(fd.get(), content, temporary);
  if (written && fchmod(fd.get(), 0644) != 0) written = fail_errno(errno, "chmod " + temporary);
  if (written && rename(temporary.c_str(), path.c_str()) != 0) written = fail_errno(errno, "rename to " + path);
  if (!written) (void)unlink(temporary.c_str());
  return written;
}

// Only what has no other name, and no more content than it will have, which is a page's at most: it is written all or
// not at all.
bool can_be_written_in_place(const struct stat& file, std::string_view content) {
  return S_ISREG(file.st_mode) && file.st_nlink == 1 && content.size() <= kPage &&
         file.st_size <= static_cast<off_t>(content.size());
}

}  // namespace

Result<std::string> read_small_file(const std::string& path, size_t max_bytes) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open " + path);
  std::string out;
  std::array<char, 8192> part;
  for (;;) {
    ssize_t count = read(fd.get(), part.data(), part.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "read " + path);
    if (count == 0) return out;
    if (out.size() + static_cast<size_t>(count) > max_bytes) {
      return fail(Code::kResourceExhausted, path + " is longer than " + std::to_string(max_bytes) + " bytes");
    }
    out.append(part.data(), static_cast<size_t>(count));
  }
}

Status write_small_file(const std::string& path, std::string_view content) {
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat file {};
  if (!fd || fstat(fd.get(), &file) != 0 || !can_be_written_in_place(file, content)) return replace_file(path, content);
  STASIS_TRY(write_all(fd.get(), content, path));
  if ((file.st_mode & 07777) != 0644 && fchmod(fd.get(), 0644) != 0) return fail_errno(errno, "chmod " + path);
  return {};
}

}  // namespace stasis::guest
