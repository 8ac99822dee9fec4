#include "agent/roots.h"

#include <array>

#include "supervisor/protocol.h"

namespace stasis::agent {
namespace {

constexpr std::array kMapFiles{supervisor::kMemoryMapFile, supervisor::kDiskMapFile};
constexpr uint64_t kMaxMapBytes = uint64_t{1} << 29;  // the largest block map that the format allows has 257 MiB

}  // namespace

Result<std::vector<snapshot::SandboxMaps>> sandbox_maps(const Path& sandboxes) {
  FileSystem& fs = real_file_system();
  std::vector<snapshot::SandboxMaps> roots;
  STASIS_ASSIGN(const auto names, fs.list(sandboxes));
  for (const std::string& name : names) {
    snapshot::SandboxMaps sandbox{name, {}};
    for (const char* file : kMapFiles) {
      const Path path = sandboxes / name / file;
      auto bytes = read_file(fs, path, kMaxMapBytes);
      if (!bytes && bytes.error().code == Code::kNotFound) continue;  // not there yet, or gone with its sandbox
      if (!bytes) return fail(std::move(bytes).error());
      auto map = snapshot::BlockMap::decode(*bytes);
      if (!map) return fail(std::move(map).error().with_context(path.string()));
      sandbox.maps.push_back(std::move(*map));
    }
    roots.push_back(std::move(sandbox));
  }
  return roots;
}

Result<std::vector<snapshot::BlockMap>> sandbox_roots(const Path& sandboxes) {
  STASIS_ASSIGN(auto all, sandbox_maps(sandboxes));
  std::vector<snapshot::BlockMap> roots;
  for (snapshot::SandboxMaps& sandbox : all) {
    for (snapshot::BlockMap& map : sandbox.maps) roots.push_back(std::move(map));
  }
  return roots;
}

void forget_maps(const Path& sandbox) {
  for (const char* file : kMapFiles) {
    (void)real_file_system().remove(sandbox / file);  // of one that ended early there is none
  }
}

}  // namespace stasis::agent
