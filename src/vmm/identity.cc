#include "vmm/identity.h"

#include "base/file_system.h"
#include "base/program_path.h"
#include "vmm/firecracker/firecracker.h"
#include "vmm/host_cpu.h"

namespace stasis::vmm {
namespace {

// Not its inode: an agent in a container sees another one after each start.
std::string state_of(const std::string& program) {
  const auto file = find_program(program);
  const auto info = file ? real_file_system().info(*file) : fail(file.error());
  if (!info) return "not there";
  return std::to_string(info->size) + " " + std::to_string(info->modified_unix_ns);
}

}  // namespace

std::string vmm_identity(const std::string& vmm) {
  const bool kvm = real_file_system().info("/dev/kvm").has_value();
  const std::string program = vmm == "firecracker" ? firecracker_program() : kQemuProgram;
  return vmm + " " + state_of(program) + (kvm ? " kvm " : " tcg ") + host_cpu_model();
}

}  // namespace stasis::vmm
