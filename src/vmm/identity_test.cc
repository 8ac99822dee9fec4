#include "vmm/identity.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "base/testing/temp_dir.h"
#include "vmm/host_cpu.h"

namespace stasis::vmm {
namespace {

class IdentityTest : public ::testing::Test {
 protected:
  IdentityTest() { ::setenv("STASIS_FIRECRACKER", program_.c_str(), 1); }
  ~IdentityTest() override { ::unsetenv("STASIS_FIRECRACKER"); }
  void install(const std::string& text) const { std::ofstream(program_) << text; }

  testing::TempDir dir_;
  Path program_ = dir_.path() / "firecracker";
};

TEST_F(IdentityTest, IsAnotherOneForAnotherProgramAndTheSameForTheSame) {
  const std::string missing = vmm_identity("firecracker");
  install("one");
  const std::string one = vmm_identity("firecracker");
  EXPECT_NE(one, missing);
  EXPECT_EQ(vmm_identity("firecracker"), one);
  EXPECT_NE(vmm_identity("qemu"), one);
  install("another");
  EXPECT_NE(vmm_identity("firecracker"), one);
}

TEST_F(IdentityTest, ASameLongProgramOfAnotherTimeIsAnother) {
  install("one");
  const std::string one = vmm_identity("firecracker");
  std::filesystem::last_write_time(program_, std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
  EXPECT_NE(vmm_identity("firecracker"), one);
}

TEST_F(IdentityTest, OfALinkItIsThatOfTheProgramBehindIt) {
  const Path versions = dir_.path() / "versions";
  std::ofstream(versions) << "one";
  std::filesystem::create_symlink(versions, program_);
  const std::string one = vmm_identity("firecracker");
  install("another");  // through the link
  EXPECT_NE(vmm_identity("firecracker"), one);
}

TEST_F(IdentityTest, NamesTheProcessor) { EXPECT_TRUE(vmm_identity("qemu").ends_with(host_cpu_model())); }

}  // namespace
}  // namespace stasis::vmm
