#include "supervisor/shell.h"

#include "base/namespaces.h"
#include "net/sandbox_network.h"

namespace stasis::supervisor {
namespace {

constexpr uint64_t kRuntimeBytes = 16 << 20;  // sockets, mount points, and what keeps account of a blank disk

Path disk_directory() { return Path(kRuntimeDir) / "disk"; }

// Nothing is written to it: nobody runs before the file shows the sandbox's own.
Result<std::unique_ptr<disk::CowDisk>> blank_disk(uint64_t bytes, const Path& work_dir) {
  FileSystem& fs = real_file_system();
  STASIS_TRY(fs.make_directory(work_dir));
  STASIS_ASSIGN(snapshot::BlockMap zeros, snapshot::BlockMap::zeros(bytes));
  STASIS_ASSIGN(auto base, snapshot::AddressSpace::open(fs, work_dir, std::move(zeros)));
  return disk::CowDisk::create(fs, std::move(base), work_dir);
}

vmm::MachineConfig machine_config(const SpareConfig& config, const Path& dir) {
  vmm::MachineConfig machine;
  machine.shape = config.shape;
  machine.disk = disk::FuseExport::file_in(disk_directory());
  machine.tap = net::kTapName;
  machine.mac = net::kGuestMac.text();
  machine.runtime_dir = kRuntimeDir;
  machine.log = dir / kVmmLog;
  return machine;
}

Status export_blank_disk(Shell& shell) {
  STASIS_TRY(make_directories(disk_directory()));
  STASIS_ASSIGN(shell.blank, blank_disk(shell.config.disk_bytes, Path(kRuntimeDir) / "blank"));
  auto exported = disk::FuseExport::mount(*shell.blank, disk_directory());
  if (!exported) return fail(std::move(exported).error().with_context("export the disk through FUSE"));
  shell.disk_export = std::move(*exported);
  return {};
}

}  // namespace

Status make_surroundings() {
  STASIS_TRY(make_directories(kRuntimeDir));
  STASIS_TRY(mount_tmpfs(kRuntimeDir, kRuntimeBytes));
  STASIS_TRY_CONTEXT(net::set_up_sandbox_network(), "set up the sandbox's network");
  return {};
}

bool has_kvm(const std::string& vmm) { return vmm != "firecracker" && vmm::probe_kvm().works; }

Shell plan_shell(const SpareConfig& config, const Path& dir, bool kvm) {
  Shell shell;
  shell.config = config;
  const vmm::MachineConfig machine = machine_config(config, dir);
  shell.vmm = config.vmm == "firecracker" ? vmm::make_firecracker(machine) : vmm::make_qemu(machine, kvm);
  return shell;
}

Status put_up(Shell& shell, bool restores, const std::function<Status()>& surroundings) {
  const auto put_round_it = [&]() -> Status {
    STASIS_TRY(surroundings());
    return export_blank_disk(shell);
  };
  return restores ? shell.vmm->prepare(put_round_it) : put_round_it();
}

}  // namespace stasis::supervisor
