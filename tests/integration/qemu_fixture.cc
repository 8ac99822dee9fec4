// drivers() of qemu_contract_test: QEMU with the real Linux guest. A machine gets what a sandbox has: a network
// namespace with a tap, and a copy-on-write disk over the image, exported through FUSE. The disk is sealed with every
// save and restored with the state, since a guest's memory and disk belong together.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>

#include "base/namespaces.h"
#include "base/testing/temp_dir.h"
#include "disk/cow_disk.h"
#include "disk/fuse_export.h"
#include "net/sandbox_network.h"
#include "snapshot/store.h"
#include "tests/integration/linux_guest.h"
#include "tests/integration/machine_network.h"

namespace stasis::vmm::contract {
namespace {

using snapshot::AddressSpace;
using snapshot::BlockMap;

// As a sandbox's (supervisor), and without huge pages, so that the arena's pages come and go one by one.
constexpr const char* kKernelCommandLine =
    "console=ttyS0 quiet reboot=t panic=-1 tsc=reliable cryptomgr.notests root=/dev/vda rw stasis.ip=172.30.0.2/30 "
    "stasis.gw=172.30.0.1 transparent_hugepage=never";

constexpr uint32_t kMemoryMib = 256;
// What Linux changes by itself between a restore and a save, and by taking and answering a handful of commands.
// Measured: 0 if it never ran, 125 to 190 if it did (kernel 6.1, python 3.11, one vCPU); a guest that is kept waiting
// writes more.
constexpr uint64_t kNoiseBlocks = 600;

std::string required(const char* variable) {
  const char* text = std::getenv(variable);
  EXPECT_NE(text, nullptr) << variable << " is not set; run this through ctest";
  return text != nullptr ? text : "";
}

// What all machines of this process share: the image, imported once, and a mount namespace for their disks.
class QemuHost final : public ::testing::Environment {
 public:
  void SetUp() override {
    const Status entered = enter_private_mount_namespace();  // no thread has been started yet
    ASSERT_TRUE(entered) << entered.error().message;
    directory_ = std::make_unique<stasis::testing::TempDir>();
    auto store = snapshot::Store::open(real_file_system(), directory_->path());
    ASSERT_TRUE(store) << store.error().message;
    image_ = required("STASIS_IMAGE");
    auto manifest =
        snapshot::import_image(*store, {image_ / "vmlinux", image_ / "initrd", image_ / "rootfs.ext4", "test"});
    ASSERT_TRUE(manifest) << manifest.error().message;
    auto disk = store->read_map(manifest->id, *manifest->disk_map);
    ASSERT_TRUE(disk) << disk.error().message;
    disk_ = std::move(*disk);
    layers_ = store->layers_dir();
    std::ifstream arena(required("STASIS_ARENA"));
    arena_.assign(std::istreambuf_iterator<char>(arena), {});
    ASSERT_FALSE(arena_.empty());
  }
  void TearDown() override { directory_.reset(); }

  const Path& image() const { return image_; }
  const Path& layers() const { return layers_; }
  const BlockMap& disk() const { return *disk_; }
  const std::string& arena() const { return arena_; }

 private:
  std::unique_ptr<stasis::testing::TempDir> directory_;
  Path image_;
  Path layers_;
  std::optional<BlockMap> disk_;
  std::string arena_;
};

QemuHost* const host = static_cast<QemuHost*>(::testing::AddGlobalTestEnvironment(new QemuHost));

// Which disk belongs to a saved state.
using DiskOfState = std::map<Path, BlockMap>;

// QEMU with the disk and the network of its machine.
class HostedQemu final : public Vmm {
 public:
  HostedQemu(Path directory, std::shared_ptr<const MachineNetwork> network, std::shared_ptr<DiskOfState> disks,
             const MachineConfig& config)
      : directory_(std::move(directory)),
        network_(std::move(network)),
        disks_(std::move(disks)),
        qemu_(make_qemu(config, probe_kvm().works)) {}
  // QEMU first: as long as it lives it may wait for its disk.
  ~HostedQemu() override { qemu_.reset(); }
  HostedQemu(const HostedQemu&) = delete;
  HostedQemu& operator=(const HostedQemu&) = delete;

  static Path disk_file(const Path& directory) { return directory / "disk" / "root.raw"; }

  Status boot(const BootSpec& spec) override {
    if (!export_) STASIS_TRY(give_disk(host->disk()));
    return network_->inside([&] { return qemu_->boot(spec); });
  }
  Status prepare(const std::function<Status()>& meanwhile) override {
    STASIS_ASSIGN(const BlockMap zeros, BlockMap::zeros(host->disk().size()));
    waits_ = true;
    return network_->inside([&] {
      return qemu_->prepare([&]() -> Status {
        if (!export_) STASIS_TRY(give_disk(zeros));
        return meanwhile ? meanwhile() : Status();
      });
    });
  }
  Status restore(const RestoreSpec& spec) override {
    const auto saved = disks_->find(spec.state);
    if (!export_ || std::exchange(waits_, false)) {
      STASIS_TRY(give_disk(saved != disks_->end() ? saved->second : host->disk()));
    }
    return network_->inside([&] { return qemu_->restore(spec); });
  }
  Result<SavedMemory> save(const SaveSpec& spec) override {
    STASIS_ASSIGN(SavedMemory saved, qemu_->save(spec));
    STASIS_ASSIGN(const disk::SealResult sealed, disk_->seal(host->layers(), snapshot::LayerId::random()));
    disks_->insert_or_assign(spec.state, sealed.map);
    return saved;
  }
  Status finish_save() override { return qemu_->finish_save(); }
  Result<SavedMemory> look_ahead() override { return qemu_->look_ahead(); }
  Status pause() override { return qemu_->pause(); }
  Status resume() override { return qemu_->resume(); }
  void save_failed() override { qemu_->save_failed(); }
  const VmmInfo& info() const override { return qemu_->info(); }
  bool maps_one_file() const override { return qemu_->maps_one_file(); }
  GuestMemoryUse guest_memory() const override { return qemu_->guest_memory(); }
  int pidfd() const override { return qemu_->pidfd(); }
  pid_t pid() const override { return qemu_->pid(); }
  std::string stop() override { return qemu_->stop(); }

 private:
  // A prepared machine's disk gets its content when it is restored.
  Status give_disk(const BlockMap& map) {
    FileSystem& fs = real_file_system();
    const Path work = directory_ / ("writes" + std::to_string(++disks_given_));
    STASIS_TRY(fs.make_directory(work));
    STASIS_ASSIGN(auto base, AddressSpace::open(fs, host->layers(), map));
    STASIS_ASSIGN(auto disk, disk::CowDisk::create(fs, std::move(base), work));
    if (export_) {
      STASIS_TRY(export_->show(*disk));
    } else {
      STASIS_TRY(fs.make_directory(directory_ / "disk"));
      STASIS_ASSIGN(export_, disk::FuseExport::mount(*disk, directory_ / "disk"));
    }
    disk_ = std::move(disk);
    return {};
  }

  Path directory_;
  std::shared_ptr<const MachineNetwork> network_;
  std::shared_ptr<DiskOfState> disks_;
  int disks_given_ = 0;
  bool waits_ = false;  // prepared, and its disk is nobody's
  std::unique_ptr<disk::CowDisk> disk_;
  std::unique_ptr<disk::FuseExport> export_;
  std::unique_ptr<Vmm> qemu_;
};

class QemuFixture final : public Fixture {
 public:
  explicit QemuFixture(Path directory) : directory_(std::move(directory)) {}

  Result<Machine> make_machine() override {
    STASIS_ASSIGN(const std::shared_ptr<MachineNetwork> network, MachineNetwork::create());
    Machine machine;
    machine.runtime_dir = directory_ / ("m" + std::to_string(++machines_));
    machine.log = machine.runtime_dir / "log";
    STASIS_TRY(real_file_system().make_directory(machine.runtime_dir));
    MachineConfig config;
    config.shape = {1, kMemoryMib};
    config.disk = HostedQemu::disk_file(machine.runtime_dir);  // QEMU keeps no path in its state
    config.tap = net::kTapName;
    config.mac = net::kGuestMac.text();
    config.runtime_dir = machine.runtime_dir;
    config.log = machine.log;
    machine.vmm = std::make_unique<HostedQemu>(machine.runtime_dir, network, disks_, config);
    const auto sockets = [network](Transport transport) { return network->socket(transport); };
    machine.guest = std::make_unique<LinuxGuest>(sockets, host->arena());
    return machine;
  }

  BootSpec boot_spec() const override {
    return {host->image() / "vmlinux", host->image() / "initrd", kKernelCommandLine};
  }
  uint64_t memory_bytes() const override { return uint64_t{kMemoryMib} << 20; }
  std::vector<uint64_t> filled_page(uint64_t page, uint64_t seed) const override {
    return LinuxGuest::filled_page(page, seed);
  }
  uint64_t noise_blocks() const override { return kNoiseBlocks; }

 private:
  Path directory_;
  std::shared_ptr<DiskOfState> disks_ = std::make_shared<DiskOfState>();
  int machines_ = 0;
};

}  // namespace

std::vector<Driver> drivers() {
  return {{"Qemu",
           [](const Path& directory) -> Result<std::unique_ptr<Fixture>> {
             return std::make_unique<QemuFixture>(directory);
           },
           true}};
}

}  // namespace stasis::vmm::contract
