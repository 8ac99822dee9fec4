#include "cli/doctor.h"

#include <algorithm>

#include "cli/table.h"

namespace stasis::cli {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;
constexpr uint64_t kLittleSpace = 5 * kGiB;
constexpr uint64_t kNoSpace = kGiB;

Check ok(std::string name, std::string found) { return {std::move(name), Verdict::kOk, std::move(found), ""}; }

Check worse(std::string name, Verdict verdict, std::string found, std::string remedy) {
  return {std::move(name), verdict, std::move(found), std::move(remedy)};
}

// Something that was tried: it works, or Stasis cannot go without it.
Check tried(std::string name, const Status& outcome, std::string works, const std::string& remedy) {
  if (outcome) return ok(std::move(name), std::move(works));
  return worse(std::move(name), Verdict::kMissing, outcome.error().message, remedy);
}

Check check_root(const HostFacts& facts) {
  if (facts.root) return ok("root", "yes");
  return worse("root", Verdict::kMissing, "no", "run as root: namespaces, taps and mounts need it");
}

Check check_kvm(const HostFacts& facts) {
  if (facts.kvm.works) return ok("kvm", "runs guests in hardware");
  return worse("kvm", Verdict::kDegraded, facts.kvm.reason,
               "guests run by emulation (TCG), many times slower; use a machine with /dev/kvm, or turn on nested "
               "virtualization");
}

bool firecracker_usable(const HostFacts& facts) { return facts.firecracker.has_value() && facts.kvm.works; }

Check check_firecracker(const HostFacts& facts) {
  const auto& found = facts.firecracker;
  if (!found) {
    return worse("firecracker", Verdict::kDegraded, found.error().message,
                 found.error().remedy.empty()
                     ? "QEMU is used; to use Firecracker, set STASIS_FIRECRACKER to its program"
                     : found.error().remedy);
  }
  if (!facts.kvm.works) {
    return worse("firecracker", Verdict::kDegraded, found->version + ", but there is no KVM for it", "QEMU is used");
  }
  return ok("firecracker", found->version);
}

Check check_qemu(const HostFacts& facts) {
  if (facts.qemu) return ok("qemu", facts.qemu->version);
  const Error& error = facts.qemu.error();
  return worse("qemu", firecracker_usable(facts) ? Verdict::kDegraded : Verdict::kMissing, error.message,
               error.remedy.empty() ? "apt-get install qemu-system-x86" : error.remedy);
}

Check check_userfaultfd(const HostFacts& facts) {
  const UserFaultSupport& support = facts.userfaultfd;
  if (!support.available || !support.missing_shmem || !support.event_remove) {
    return worse("userfaultfd", Verdict::kMissing,
                 !support.available ? "not available" : "lacks faults of shared memory or remove events",
                 "use Linux 5.11 or newer with CONFIG_USERFAULTFD; in a container, allow the userfaultfd system call");
  }
  return ok("userfaultfd", "missing pages, remove events");
}

// Of QEMU's guests. Firecracker tells those of its own.
Check check_written_pages(const HostFacts& facts) {
  if (facts.userfaultfd.write_protect_async) return ok("written pages", "told by the kernel");
  return worse(
      "written pages", Verdict::kDegraded, "not told by this kernel, found by comparison",
      "snapshots store no more, but with QEMU a pause compares all that may have been written with its parent, "
      "and a snapshot of a running sandbox stops it for as long as its copy takes; run Linux 6.9 or newer");
}

std::string list_text(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

Check check_cgroups(const HostFacts& facts) {
  const CgroupSupport& support = facts.cgroups;
  const bool enough =
      std::ranges::count(support.controllers, "memory") + std::ranges::count(support.controllers, "cpu") == 2;
  const std::string found = support.version == 0
                                ? "none"
                                : "version " + std::to_string(support.version) + ": " + list_text(support.controllers);
  if (support.version == 2 && enough && support.writable) return ok("cgroups", found);
  return worse("cgroups", Verdict::kDegraded, found + (support.version != 0 && !support.writable ? " (read-only)" : ""),
               "a sandbox's CPU time and memory are bounded by its virtual machine only; mount cgroups v2 writable");
}

Check check_image(const HostFacts& facts) {
  if (facts.image) return ok("image", facts.image->string());
  return worse("image", Verdict::kMissing, facts.image.error().message, facts.image.error().remedy);
}

Check check_space(const HostFacts& facts) {
  const std::string name = "disk space";
  if (!facts.free_bytes)
    return worse(name, Verdict::kMissing, facts.free_bytes.error().message, "give another --state-dir");
  const std::string found = size_text(*facts.free_bytes) + " free for " + facts.state_dir.string();
  if (*facts.free_bytes >= kLittleSpace) return ok(name, found);
  return worse(name, *facts.free_bytes < kNoSpace ? Verdict::kMissing : Verdict::kDegraded, found,
               "free some space, or give a --state-dir on a larger file system");
}

std::string will_use(const HostFacts& facts) {
  const std::string memory = ", memory through userfaultfd, written pages ";
  if (firecracker_usable(facts)) {
    return "Firecracker " + facts.firecracker->version + " with KVM" + memory + "told by Firecracker";
  }
  if (!facts.qemu) return "nothing: there is no VMM that runs here";
  return "QEMU " + facts.qemu->version + " microvm with " + (facts.kvm.works ? "KVM" : "TCG (software emulation)") +
         memory + (facts.userfaultfd.write_protect_async ? "told by the kernel" : "found by comparison");
}

}  // namespace

std::string_view verdict_word(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk:
      return "ok";
    case Verdict::kDegraded:
      return "degraded";
    case Verdict::kMissing:
      return "missing";
  }
  return "missing";
}

Diagnosis judge(const HostFacts& facts) {
  const std::string in_container = "needs root; in a container, allow mounts and namespaces (--privileged)";
  Diagnosis diagnosis;
  diagnosis.checks = {
      check_root(facts),
      check_kvm(facts),
      check_firecracker(facts),
      check_qemu(facts),
      check_userfaultfd(facts),
      check_written_pages(facts),
      tried("fuse", facts.fuse, "/dev/fuse, mountable", "modprobe fuse; in a container, pass --device /dev/fuse"),
      tried("mount namespace", facts.mount_namespace, "yes", in_container),
      tried("network namespace", facts.network_namespace, "yes", in_container),
      tried("tap device", facts.tap, "yes", "modprobe tun; in a container, pass --device /dev/net/tun"),
      check_cgroups(facts),
      check_image(facts),
      check_space(facts),
  };
  diagnosis.usable =
      std::ranges::none_of(diagnosis.checks, [](const Check& c) { return c.verdict == Verdict::kMissing; });
  diagnosis.will_use = will_use(facts);
  return diagnosis;
}

Json diagnosis_document(const Diagnosis& diagnosis) {
  Json checks = Json::array();
  for (const Check& check : diagnosis.checks) {
    checks.push_back({{"name", check.name},
                      {"verdict", verdict_word(check.verdict)},
                      {"found", check.found},
                      {"remedy", check.remedy}});
  }
  return {{"usable", diagnosis.usable}, {"will_use", diagnosis.will_use}, {"checks", std::move(checks)}};
}

}  // namespace stasis::cli
