#include "supervisor/shell.h"

#include "base/namespaces.h"
#include "net/sandbox_network.h"

namespace stasis::supervisor {
namespace {

constexpr uint64_t kRuntimeBytes = 16 << 20;  // sockets, mount points, and what keeps account of a blank disk

// Nothing is written to it: nobody runs before the file shows the sandbox's own.
Result<std::unique_ptr<disk::CowDisk>> blank_disk(uint64_t bytes, const Path& work_dir) {
  FileSystem& fs = real_file_system();
  STASIS_TRY(fs.make_directory(work_dir));
  STASIS_ASSIGN(snapshot::BlockMap zeros, snapshot::BlockMap::zeros(bytes));
  STASIS_ASSIGN(auto base, snapshot::AddressSpace::open(fs, work_dir, std::move(zeros)));
  return disk::CowDisk::create(fs, std::move(base), work_dir);
}

vmm::MachineConfig machine_config(const Shell& shell, const Path& dir) {
  vmm::MachineConfig machine;
  machine.shape = shell.config.shape;
  machine.disk = shell.disk_export->file();
  machine.tap = net::kTapName;
  machine.mac = net::kGuestMac.text();
  machine.runtime_dir = kRuntimeDir;
  machine.log = dir / kVmmLog;
  return machine;
}

}  // namespace

Status make_surroundings() {
  STASIS_TRY(make_directories(kRuntimeDir));
  STASIS_TRY(mount_tmpfs(kRuntimeDir, kRuntimeBytes));
  STASIS_TRY_CONTEXT(net::set_up_sandbox_network(), "set up the sandbox's network");
  return {};
}

Result<Shell> make_shell(const SpareConfig& config, const Path& dir) {
  const Path runtime = kRuntimeDir;
  STASIS_TRY(make_directories(runtime / "disk"));
  Shell shell;
  shell.config = config;
  STASIS_ASSIGN(shell.blank, blank_disk(config.disk_bytes, runtime / "blank"));
  auto exported = disk::FuseExport::mount(*shell.blank, runtime / "disk");
  if (!exported) return fail(std::move(exported).error().with_context("export the disk through FUSE"));
  shell.disk_export = std::move(*exported);
  const vmm::MachineConfig machine = machine_config(shell, dir);
  shell.vmm = config.vmm == "firecracker" ? vmm::make_firecracker(machine) : vmm::make_qemu(machine);
  return shell;
}

}  // namespace stasis::supervisor
