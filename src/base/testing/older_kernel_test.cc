// That tests as on an older kernel are that, and run by older_kernel_main.cc: this program has that kernel.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/utsname.h>

#include <cstdio>
#include <cstdlib>

#include "base/pagemap.h"
#include "base/userfaultfd.h"

namespace stasis {
namespace {

struct Page {
  Page() {
    address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *static_cast<volatile char*>(address) = 1;
  }
  ~Page() { ::munmap(address, bytes); }
  Page(const Page&) = delete;
  Page& operator=(const Page&) = delete;
  Range range() const { return {reinterpret_cast<uint64_t>(address), bytes}; }

  static constexpr uint64_t bytes = 4096;
  void* address = nullptr;
};

std::string release() {
  utsname system{};
  EXPECT_EQ(::uname(&system), 0);
  return system.release;
}

UniqueFd own_pagemap() { return real_file_system().open_read("/proc/self/pagemap").value(); }

TEST(OlderKernel, DoesNotTellWhatWasWritten) {
  EXPECT_FALSE(kernel_tells_written_pages());
  EXPECT_FALSE(probe_userfaultfd().write_protect_async);
  const Page page;
  EXPECT_EQ(scan_written_pages(own_pagemap().get(), page.range(), false).error().code, Code::kUnimplemented);
}

TEST(OlderKernel, Before67HasNoScan) {
  int minor = 0;
  if (std::sscanf(release().c_str(), "6.%d", &minor) != 1 || minor >= 7) GTEST_SKIP() << release() << " has it";
  const Page page;
  EXPECT_EQ(scan_absent_pages(own_pagemap().get(), page.range()).error().code, Code::kUnimplemented);
  EXPECT_EQ(UserFaultFd::create(true).error().code, Code::kUnimplemented);
}

TEST(OlderKernel, HasAllElse) {
  const Page page;
  EXPECT_EQ(scan_private_pages(own_pagemap().get(), page.range()).value(), std::vector{page.range()});
  EXPECT_EQ(present_bytes(own_pagemap().get(), page.range()).value(), Page::bytes);
  EXPECT_TRUE(UserFaultFd::create(false));
}

TEST(OlderKernel, IsThatOfAllThatItStarts) {
  const std::string command = "test \"$(uname -r)\" = " + release();
  EXPECT_EQ(std::system(command.c_str()), 0);  // NOLINT(concurrency-mt-unsafe): there is one thread
}

}  // namespace
}  // namespace stasis
