#include "cli/daemon_options.h"

#include <array>

#include "base/process.h"

namespace stasis::cli {

Result<std::pair<std::string, Path>> parse_image(const std::string& text) {
  const size_t equals = text.find('=');
  const bool named = equals != std::string::npos && text.substr(0, equals).find('/') == std::string::npos;
  std::pair<std::string, Path> image{named ? text.substr(0, equals) : "base", named ? text.substr(equals + 1) : text};
  if (image.first.empty() || image.second.empty()) {
    return fail(Code::kInvalidArgument, "--image '" + text + "' is not [NAME=]DIRECTORY",
                "write --image base=build/image");
  }
  std::error_code error;
  image.second = std::filesystem::absolute(image.second, error).lexically_normal();
  return image;
}

Result<Path> default_image() {
  STASIS_ASSIGN(const Path here, executable_directory());
  // As built: build/PRESET/bin/stasis and build/image. As installed: PREFIX/bin/stasis and PREFIX/share/stasis/image.
  const std::array candidates = {here / "../../image", here / "../share/stasis/image"};
  std::error_code error;
  for (const Path& candidate : candidates) {
    if (std::filesystem::exists(candidate / "image.json", error)) return candidate.lexically_normal();
  }
  return fail(Code::kNotFound, "there is no base image at " + candidates[0].lexically_normal().string(),
              "build it with 'make image', or name one with --image DIRECTORY");
}

}  // namespace stasis::cli
