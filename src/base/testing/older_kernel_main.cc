// main() of tests that run as on an older kernel: STASIS_TEST_KERNEL, or Debian 12's.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>

#include "base/testing/older_kernel.h"

int main(int argc, char** argv) {
  const char* chosen = std::getenv("STASIS_TEST_KERNEL");  // NOLINT(concurrency-mt-unsafe): nobody sets it
  const std::string release = chosen != nullptr ? chosen : "6.1.0";
  std::cout << "as on Linux " << release << '\n' << std::flush;
  return stasis::testing::run_on_older_kernel(release, [&] {
    ::testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
  });
}
