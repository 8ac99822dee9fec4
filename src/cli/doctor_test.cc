#include "cli/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace stasis::cli {
namespace {

using testing::HasSubstr;

HostFacts best_host() {
  return {.root = true,
          .kvm = {true, "ok"},
          .firecracker = vmm::VmmInfo{.name = "firecracker", .version = "1.16.1"},
          .qemu = vmm::VmmInfo{.name = "qemu", .version = "7.2.22"},
          .userfaultfd = {true, true, true, true},
          .fuse = {},
          .mount_namespace = {},
          .network_namespace = {},
          .tap = {},
          .cgroups = {2, {"cpu", "io", "memory"}, true},
          .image = Path("/build/image"),
          .state_dir = "/var/lib/stasis",
          .free_bytes = uint64_t{100} << 30};
}

Check check_of(const HostFacts& facts, const std::string& name) {
  const Diagnosis diagnosis = judge(facts);
  const auto found = std::ranges::find(diagnosis.checks, name, &Check::name);
  return found == diagnosis.checks.end() ? Check{"no such check"} : *found;
}

TEST(Doctor, OnTheBestHostEverythingIsOk) {
  const Diagnosis diagnosis = judge(best_host());
  EXPECT_TRUE(diagnosis.usable);
  for (const Check& check : diagnosis.checks) {
    EXPECT_EQ(check.verdict, Verdict::kOk) << check.name;
    EXPECT_EQ(check.remedy, "") << check.name;
  }
  EXPECT_THAT(diagnosis.will_use, HasSubstr("Firecracker 1.16.1 with KVM"));
}

TEST(Doctor, WithoutKvmItIsUsableBySoftware) {
  HostFacts facts = best_host();
  facts.kvm = {false, "no /dev/kvm"};
  const Diagnosis diagnosis = judge(facts);
  EXPECT_TRUE(diagnosis.usable);
  EXPECT_THAT(diagnosis.will_use, HasSubstr("QEMU 7.2.22 microvm with TCG"));
  EXPECT_EQ(check_of(facts, "kvm").verdict, Verdict::kDegraded);
  EXPECT_EQ(check_of(facts, "kvm").found, "no /dev/kvm");
  EXPECT_EQ(check_of(facts, "firecracker").verdict, Verdict::kDegraded);
}

TEST(Doctor, OneVmmIsEnoughAndNoneIsNot) {
  HostFacts facts = best_host();
  facts.qemu = fail(Code::kNotFound, "no qemu-system-x86_64", "apt-get install qemu-system-x86");
  EXPECT_TRUE(judge(facts).usable);
  EXPECT_EQ(check_of(facts, "qemu").verdict, Verdict::kDegraded);
  facts.firecracker = fail(Code::kNotFound, "no firecracker");
  EXPECT_FALSE(judge(facts).usable);
  EXPECT_EQ(check_of(facts, "qemu").verdict, Verdict::kMissing);
  EXPECT_EQ(check_of(facts, "qemu").remedy, "apt-get install qemu-system-x86");
  EXPECT_THAT(judge(facts).will_use, HasSubstr("nothing"));
}

TEST(Doctor, UserfaultfdIsNeeded) {
  HostFacts facts = best_host();
  facts.userfaultfd.event_remove = false;
  EXPECT_EQ(check_of(facts, "userfaultfd").verdict, Verdict::kMissing);
  EXPECT_FALSE(judge(facts).usable);
}

TEST(Doctor, AnOlderKernelThatDoesNotTellWhatWasWrittenIsSlower) {
  HostFacts facts = best_host();
  facts.kvm.works = false;
  EXPECT_EQ(check_of(facts, "written pages").found, "told by the kernel");
  EXPECT_THAT(judge(facts).will_use, HasSubstr("written pages told by the kernel"));
  facts.userfaultfd.write_protect_async = false;
  const Check check = check_of(facts, "written pages");
  EXPECT_EQ(check.verdict, Verdict::kDegraded);
  EXPECT_THAT(check.found, HasSubstr("found by comparison"));
  EXPECT_THAT(check.remedy, HasSubstr("stops it for as long as its copy takes; run Linux 6.9 or newer"));
  EXPECT_EQ(check_of(facts, "userfaultfd").verdict, Verdict::kOk);
  EXPECT_TRUE(judge(facts).usable);
  EXPECT_THAT(judge(facts).will_use, HasSubstr("written pages found by comparison"));
  facts.kvm.works = true;
  EXPECT_THAT(judge(facts).will_use, HasSubstr("written pages told by Firecracker"));
}

TEST(Doctor, WhatCouldNotBeDoneIsMissingWithItsReason) {
  for (const auto& [member, name] : {std::pair{&HostFacts::fuse, "fuse"},
                                     {&HostFacts::mount_namespace, "mount namespace"},
                                     {&HostFacts::network_namespace, "network namespace"},
                                     {&HostFacts::tap, "tap device"}}) {
    HostFacts facts = best_host();
    facts.*member = fail(Code::kPermissionDenied, "not allowed");
    EXPECT_FALSE(judge(facts).usable) << name;
    EXPECT_EQ(check_of(facts, name).found, "not allowed");
    EXPECT_NE(check_of(facts, name).remedy, "");
  }
}

TEST(Doctor, RootImageAndSpaceAreNeeded) {
  HostFacts user = best_host();
  user.root = false;
  EXPECT_FALSE(judge(user).usable);
  HostFacts bare = best_host();
  bare.image = fail(Code::kNotFound, "no image", "make image");
  EXPECT_FALSE(judge(bare).usable);
  EXPECT_EQ(check_of(bare, "image").remedy, "make image");
  HostFacts full = best_host();
  full.free_bytes = uint64_t{2} << 30;
  EXPECT_EQ(check_of(full, "disk space").verdict, Verdict::kDegraded);
  full.free_bytes = 1000;
  EXPECT_FALSE(judge(full).usable);
}

TEST(Doctor, CgroupsOnlyHelp) {
  HostFacts facts = best_host();
  facts.cgroups = {1, {"cpu", "memory"}, true};
  EXPECT_EQ(check_of(facts, "cgroups").verdict, Verdict::kDegraded);
  facts.cgroups = {};
  EXPECT_EQ(check_of(facts, "cgroups").found, "none");
  EXPECT_TRUE(judge(facts).usable);
}

TEST(Doctor, TheDocumentSaysTheSame) {
  const Json document = diagnosis_document(judge(best_host()));
  EXPECT_EQ(document["usable"], true);
  EXPECT_EQ(document["checks"][0], (Json{{"name", "root"}, {"verdict", "ok"}, {"found", "yes"}, {"remedy", ""}}));
}

}  // namespace
}  // namespace stasis::cli
