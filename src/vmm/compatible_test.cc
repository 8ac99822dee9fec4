#include "vmm/compatible.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stasis::vmm {
namespace {

using ::testing::HasSubstr;

const VmmInfo kHere{"qemu", "7.2.22", "tcg", "qemu64"};

bool compatible(const VmmInfo& saved_with) { return check_compatible(saved_with, kHere).has_value(); }

TEST(CompatibleTest, TheSameProgramOfTheSameBranchOnTheSameProcessor) {
  EXPECT_TRUE(compatible(kHere));
  EXPECT_TRUE(compatible({"qemu", "7.2.9", "tcg", "qemu64"}));
  EXPECT_TRUE(compatible({"qemu", "7.2", "tcg", "qemu64"}));
  EXPECT_FALSE(compatible({"qemu", "7.20.22", "tcg", "qemu64"}));
  EXPECT_FALSE(compatible({"qemu", "8.2.22", "tcg", "qemu64"}));
  EXPECT_FALSE(compatible({"qemu", "7.2.22", "kvm", "EPYC"}));
  EXPECT_FALSE(compatible({"firecracker", "7.2.22", "tcg", "qemu64"}));
  EXPECT_FALSE(compatible({"qemu", "", "tcg", "qemu64"}));
}

TEST(CompatibleTest, TheRefusalNamesBoth) {
  const Status refused = check_compatible({"qemu", "8.0.1", "kvm", "EPYC"}, kHere);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kFailedPrecondition);
  EXPECT_THAT(refused.error().message, HasSubstr("qemu 8.0.1 on EPYC"));
  EXPECT_THAT(refused.error().message, HasSubstr("qemu 7.2.22 on qemu64"));
}

}  // namespace
}  // namespace stasis::vmm
