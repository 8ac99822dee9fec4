#include "supervisor/kept_map.h"

namespace stasis::supervisor {

Status keep_map(FileSystem& fs, const Path& record, const snapshot::BlockMap& map) {
  STASIS_ASSIGN(const auto bytes, map.encode());
  return replace_file(fs, record, bytes);
}

Result<std::shared_ptr<snapshot::AddressSpace>> open_and_keep(FileSystem& fs, const Path& record,
                                                              const Path& layers_dir, snapshot::BlockMap map,
                                                              const snapshot::AddressSpace* before) {
  STASIS_ASSIGN(auto opened, snapshot::AddressSpace::open(fs, layers_dir, std::move(map), before));
  STASIS_TRY(keep_map(fs, record, opened->map()));
  return opened;
}

}  // namespace stasis::supervisor
