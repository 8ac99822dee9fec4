#include "cli/copy.h"

#include "base/file_system.h"

namespace stasis::cli {

Result<Place> parse_place(std::string_view text) {
  Place place;
  const size_t colon = text.find(':');
  if (colon != std::string_view::npos && colon > 0 && text.substr(0, colon).find('/') == std::string_view::npos) {
    place.sandbox = text.substr(0, colon);
    text.remove_prefix(colon + 1);
  }
  if (text.empty()) {
    return fail(Code::kInvalidArgument,
                place.remote() ? "'" + place.sandbox + ":' names no path in the sandbox" : "a path is empty",
                "write ID:/path/in/the/sandbox, or a path on this machine");
  }
  place.path = text;
  return place;
}

std::string path_in(const std::string& target, const std::string& source, bool is_directory) {
  if (!target.ends_with('/') && !is_directory) return target;
  return (Path(target) / Path(source).filename()).string();
}

}  // namespace stasis::cli
