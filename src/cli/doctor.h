// `stasis doctor`: what this machine has, what Stasis makes of it, and what to install. Finding out (probe_host) and
// judging (judge) are apart, so that every verdict can be tested on any machine.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/host_probe.h"
#include "base/userfaultfd.h"
#include "cli/client.h"
#include "vmm/vmm.h"

namespace stasis::cli {

struct HostFacts {
  bool root = false;
  vmm::KvmProbe kvm;
  Result<vmm::VmmInfo> firecracker;
  Result<vmm::VmmInfo> qemu;
  UserFaultSupport userfaultfd;
  Status fuse;
  Status mount_namespace;
  Status network_namespace;
  Status tap;
  CgroupSupport cgroups;
  Result<Path> image;
  Path state_dir;
  Result<uint64_t> free_bytes;
};

enum class Verdict {
  kOk,
  kDegraded,  // Stasis works, but slower or with less
  kMissing,   // Stasis does not work without it
};

struct Check {
  std::string name;
  Verdict verdict = Verdict::kOk;
  std::string found = {};   // what there is
  std::string remedy = {};  // what to do about it; empty if it is ok
};

struct Diagnosis {
  std::vector<Check> checks;
  bool usable = false;   // nothing is missing
  std::string will_use;  // "QEMU 7.2.22 microvm with TCG (software emulation), ..."
};

HostFacts probe_host(const Path& state_dir);
Diagnosis judge(const HostFacts& facts);
Json diagnosis_document(const Diagnosis& diagnosis);
std::string_view verdict_word(Verdict verdict);

}  // namespace stasis::cli
