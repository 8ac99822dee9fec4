#include "base/program_path.h"

#include <cstdlib>
#include <string_view>

namespace stasis {

std::vector<std::string> program_candidates(const std::string& program) {
  if (program.empty() || program.find('/') != std::string::npos) return {program};
  const char* path = ::getenv("PATH");
  std::string_view rest = path != nullptr ? path : "/usr/local/bin:/usr/bin:/bin";
  std::vector<std::string> files;
  while (!rest.empty()) {
    const size_t colon = rest.find(':');
    files.push_back(std::string(rest.substr(0, colon)).append("/").append(program));
    rest = colon == std::string_view::npos ? "" : rest.substr(colon + 1);
  }
  return files;
}

Result<Path> find_program(const std::string& program) {
  for (const std::string& candidate : program_candidates(program)) {
    std::error_code error;
    Path file = std::filesystem::canonical(candidate, error);
    if (!error && std::filesystem::is_regular_file(file, error)) return file;
  }
  return fail(Code::kNotFound, "there is no program " + program);
}

}  // namespace stasis
