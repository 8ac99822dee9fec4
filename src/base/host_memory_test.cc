#include "base/host_memory.h"

#include <gtest/gtest.h>

namespace stasis {
namespace {

TEST(HostMemoryTest, ReadsWhatTheKernelWrites) {
  const auto memory = parse_host_memory(
      "MemTotal:       24683548 kB\nMemFree:        16000000 kB\nMemAvailable:   21990400 kB\n",
      "some avg10=12.50 avg60=3.00 avg300=0.10 total=123\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=4\n");
  ASSERT_TRUE(memory);
  EXPECT_EQ(memory->total_bytes, uint64_t{24683548} << 10);
  EXPECT_EQ(memory->available_bytes, uint64_t{21990400} << 10);
  EXPECT_EQ(memory->stalled_percent, 12.5);
}

TEST(HostMemoryTest, WithoutPressureNobodyWaits) {
  EXPECT_EQ(parse_host_memory("MemTotal: 1 kB\n", "")->stalled_percent, 0);
  EXPECT_EQ(parse_host_memory("MemTotal: 1 kB\n", "some other text")->stalled_percent, 0);
  EXPECT_FALSE(parse_host_memory("", ""));
}

TEST(HostMemoryTest, ThisHostHasSome) {
  const auto memory = host_memory();
  ASSERT_TRUE(memory);
  EXPECT_GT(memory->available_bytes, 0U);
  EXPECT_GT(memory->total_bytes, memory->available_bytes);
}

}  // namespace
}  // namespace stasis
