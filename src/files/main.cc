// stasis-files STORE FROM TO: which files differ between the disks of two snapshots. The agent starts it, as root. It
// opens both disks, confines itself (base/confine.h) before it looks at any byte that a guest wrote, compares, and
// sends one message (report.h) on standard output, a socket.
#include <unistd.h>

#include <iostream>
#include <new>

#include "base/confine.h"
#include "base/unix_socket.h"
#include "base/unmapping_file_system.h"
#include "files/run.h"
#include "files/tree_diff.h"
#include "snapshot/store.h"

namespace stasis::files {
namespace {

using Space = std::shared_ptr<snapshot::AddressSpace>;

Result<Space> open_disk(const snapshot::Store& store, const std::string& id_text) {
  STASIS_ASSIGN(const Uuid uuid, Uuid::parse(id_text));
  const snapshot::SnapshotId id{uuid};
  STASIS_ASSIGN(const snapshot::Manifest manifest, store.load(id));
  if (!manifest.disk_map) return fail(Code::kFailedPrecondition, "snapshot " + id_text + " has no disk");
  STASIS_ASSIGN(snapshot::BlockMap map, store.read_map(id, *manifest.disk_map));
  return snapshot::AddressSpace::open(store.fs(), store.layers_dir(), std::move(map));
}

// Both stay readable, whatever becomes of the snapshots.
Result<std::pair<Space, Space>> open_disks(char** arguments) {
  STASIS_ASSIGN(const snapshot::Store store, snapshot::Store::open(unmapping_file_system(), arguments[0]));
  STASIS_ASSIGN(const snapshot::StoreLock lock, store.lock_shared());
  STASIS_ASSIGN(Space before, open_disk(store, arguments[1]));
  STASIS_ASSIGN(Space now, open_disk(store, arguments[2]));
  return std::pair{std::move(before), std::move(now)};
}

Result<Report> compare(char** arguments) {
  STASIS_ASSIGN(const auto disks, open_disks(arguments));
  STASIS_TRY_CONTEXT(confine_this_process({kMemoryLimit, kTimeLimit}), "confine stasis-files");
  try {
    return diff_disks(*disks.first, *disks.second);
  } catch (const std::bad_alloc&) {
    return fail(Code::kResourceExhausted, "it needs more than 1 GiB of memory");
  }
}

}  // namespace
}  // namespace stasis::files

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: stasis-files STORE FROM TO\nThe agent starts it; see docs/architecture.md.\n";
    return 2;
  }
  const auto bytes = stasis::files::encode(stasis::files::compare(argv + 1));
  const stasis::Status sent =
      stasis::send_message(STDOUT_FILENO, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  ::_exit(sent ? 0 : 1);  // what usually comes at exit calls what is no longer allowed
}
