#include "vmm/contract/firecracker_fixture.h"

#include <cstdlib>

#include "base/process.h"
#include "vmm/contract/serial_guest.h"

namespace stasis::vmm::contract {
namespace {

constexpr uint64_t kDiskBytes = 1 << 20;

class FirecrackerFixture final : public Fixture {
 public:
  FirecrackerFixture(Path directory, FirecrackerFixtureOptions options)
      : directory_(std::move(directory)), options_(std::move(options)) {}

  Status set_up() {
    STASIS_ASSIGN(const UniqueFd disk, real_file_system().create(disk_path()));
    return real_file_system().truncate(disk.get(), kDiskBytes);
  }

  Result<Machine> make_machine() override {
    Machine machine;
    machine.runtime_dir = directory_ / ("m" + std::to_string(++machines_));
    machine.log = machine.runtime_dir / "log";
    STASIS_TRY(real_file_system().make_directory(machine.runtime_dir));
    STASIS_ASSIGN(machine.guest, SerialGuest::create(machine.runtime_dir, machine.log, memory_bytes()));
    MachineConfig config;
    config.shape = {1, options_.memory_mib};
    config.disk = disk_path();
    config.runtime_dir = machine.runtime_dir;
    config.log = machine.log;
    machine.vmm = make_firecracker(config);
    return machine;
  }

  BootSpec boot_spec() const override { return {.vmlinux = options_.kernel, .initrd = {}, .command_line = ""}; }
  uint64_t memory_bytes() const override { return uint64_t{options_.memory_mib} << 20; }
  std::vector<uint64_t> filled_page(uint64_t page, uint64_t seed) const override {
    return SerialGuest::filled_page(page, seed);
  }
  uint64_t noise_blocks() const override { return options_.noise_blocks; }

 private:
  Path disk_path() const { return directory_ / "disk"; }
  Path directory_;
  FirecrackerFixtureOptions options_;
  int machines_ = 0;
};

}  // namespace

Path test_program(const std::string& name) {
  const auto directory = executable_directory();
  return directory ? *directory / name : Path(name);
}

// The double's guest writes one page of its own: that of its counter.
FirecrackerFixtureOptions double_options() {
  return {.program = test_program("fake-firecracker"),
          .kernel = test_program("tiny-guest"),
          .memory_mib = 32,
          .noise_blocks = 1};
}

Result<std::unique_ptr<Fixture>> make_firecracker_fixture(const Path& directory,
                                                          const FirecrackerFixtureOptions& options) {
  ::setenv("STASIS_FIRECRACKER", test_program("with-console").c_str(), 1);
  ::setenv("STASIS_TEST_PROGRAM", options.program.c_str(), 1);
  auto fixture = std::make_unique<FirecrackerFixture>(directory, options);
  STASIS_TRY(fixture->set_up());
  return fixture;
}

}  // namespace stasis::vmm::contract
