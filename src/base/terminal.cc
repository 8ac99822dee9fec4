#include "base/terminal.h"

#include <sys/stat.h>
#include <unistd.h>

namespace stasis {

bool is_terminal(int fd) { return ::isatty(fd) == 1; }

InputKind input_kind(int fd) {
  if (is_terminal(fd)) return InputKind::kTerminal;
  struct stat info {};
  if (::fstat(fd, &info) != 0 || S_ISCHR(info.st_mode)) return InputKind::kNothing;
  return InputKind::kData;
}

}  // namespace stasis
