#include "base/file.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <span>

namespace stasis {
namespace {

constexpr uint64_t kLogTail = 2'000;

}  // namespace

Result<UniqueFd> open_append(const Path& path) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!fd) return fail_errno(errno, "open " + path.string());
  return fd;
}

Result<UniqueFd> duplicate(int fd) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy) return fail_errno(errno, "duplicate descriptor");
  return copy;
}

std::string log_tail(const Path& file) {
  FileSystem& fs = real_file_system();
  auto fd = fs.open_read(file);
  const auto info = fs.info(file);
  if (!fd || !info) return "";
  std::string text(std::min<uint64_t>(info->size, kLogTail), '\0');
  auto read = fs.read_at(fd->get(), info->size - text.size(), std::as_writable_bytes(std::span(text)));
  text.resize(read ? *read : 0);
  std::erase(text, '\r');
  while (text.ends_with('\n')) text.pop_back();
  for (char& c : text) {
    if (c != '\n' && (c < ' ' || c > '~')) c = '?';
  }
  return text;
}

std::string with_last_words(const std::string& what, const Path& log) {
  const std::string words = log_tail(log);
  return words.empty() ? what : what + "; its last words: " + words;
}

}  // namespace stasis
