// doctor: probes this machine and shows the diagnosis.
#include "cli/command_line.h"
#include "cli/doctor.h"
#include "cli/table.h"

namespace stasis::cli {
namespace {

void show(Session& session, const Diagnosis& diagnosis) {
  if (session.json()) {
    session.print(diagnosis_document(diagnosis));
    return;
  }
  Table table({{"CHECK"}, {"VERDICT"}, {"FOUND"}});
  for (const Check& check : diagnosis.checks)
    table.add({check.name, std::string(verdict_word(check.verdict)), check.found});
  std::ostream& out = session.io().out;
  table.print(out);
  out << '\n';
  for (const Check& check : diagnosis.checks) {
    if (!check.remedy.empty()) out << check.name << ": " << printable(check.remedy) << '\n';
  }
  out << "\nStasis will use: " << printable(diagnosis.will_use) << '\n'
      << (diagnosis.usable ? "This machine can run Stasis.\n"
                           : "This machine cannot run Stasis yet: see what is missing above.\n");
}

}  // namespace

HostFacts probe_host(const Path& state_dir) {
  return {.root = effective_user() == 0,
          .kvm = vmm::probe_kvm(),
          .firecracker = vmm::probe_firecracker(),
          .qemu = vmm::probe_qemu(),
          .userfaultfd = probe_userfaultfd(),
          .fuse = probe_fuse(),
          .mount_namespace = probe_mount_namespace(),
          .network_namespace = probe_network_namespace(),
          .tap = probe_tap(),
          .cgroups = probe_cgroups(),
          .image = default_image(),
          .state_dir = state_dir,
          .free_bytes = free_disk_space(state_dir)};
}

void add_doctor_command(CommandLine& line) {
  CLI::App& command =
      add_local_command(line, "doctor", "Say what this machine has, what Stasis will use, and what to install",
                        "stasis doctor\n"
                        "stasis doctor --json | jq -r .will_use");
  command.callback([&line] {
    line.action = [](Session& session) -> Result<int> {
      const Diagnosis diagnosis = judge(probe_host(session.state_dir()));
      show(session, diagnosis);
      return diagnosis.usable ? kSuccess : kFailure;
    };
  });
}

}  // namespace stasis::cli
