#include "base/descriptor_limit.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "base/testing/in_child.h"

namespace stasis {
namespace {

TEST(DescriptorLimit, IsTheHardOneAfterwards) {
  EXPECT_EQ(testing::in_child([]() -> std::string {
              const rlimit low{64, 512};
              if (::setrlimit(RLIMIT_NOFILE, &low) != 0) return "the limit cannot be lowered";
              raise_descriptor_limit();
              rlimit now{};
              ::getrlimit(RLIMIT_NOFILE, &now);
              return now.rlim_cur == 512 && now.rlim_max == 512 ? "" : "it is " + std::to_string(now.rlim_cur);
            }),
            "");
}

}  // namespace
}  // namespace stasis
