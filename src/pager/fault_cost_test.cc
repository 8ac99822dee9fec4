// What a warm fault takes from the heap. A program of its own, because it replaces operator new.
#include <gtest/gtest.h>

#include <array>
#include <thread>

#include "base/memory.h"
#include "base/poll.h"
#include "base/testing/count_heap.h"
#include "base/testing/temp_dir.h"
#include "pager/fault_handler.h"

namespace stasis::pager {
namespace {

using namespace snapshot;

constexpr uint64_t kFrames = 256;
constexpr uint64_t kSize = kFrames * kFrameSize;

std::shared_ptr<const AddressSpace> warm_memory(const Path& layers) {
  const LayerId id = LayerId::random();
  auto writer = LayerWriter::create(real_file_system(), layers, id, kSize).value();
  EXPECT_TRUE(writer->write(0, std::vector<std::byte>(kSize / 2, std::byte{7})));  // the other half is zeros
  EXPECT_TRUE(writer->finish());
  const std::array changes{Change{{0, kSize / 2}, false}};
  auto memory = AddressSpace::open(real_file_system(), layers, BlockMap::zeros(kSize)->merge(id, changes).value());
  EXPECT_TRUE((*memory)->layer(id)->verify_all());
  return *memory;
}

TEST(FaultCostTest, AWarmFaultAllocatesNothing) {
  const testing::TempDir dir;
  const auto guest = Mapping::anonymous(kSize).value();
  Handshake handshake;
  handshake.uffd = UserFaultFd::create(false).value();
  ASSERT_TRUE(handshake.uffd.register_missing({guest.address(), kSize}, false));
  handshake.regions = {{guest.address(), kSize, 0, kBlockSize}};
  const auto memory = warm_memory(dir.path());
  FaultHandler handler(std::move(handshake), memory, FrameFetcher::create(memory).value());
  handler.record();  // a restore's faults are written down, too
  std::atomic<bool> counting{false};
  std::thread toucher([&] {
    counting.wait(false);
    for (uint64_t frame = 0; frame < kFrames; ++frame) {
      (void)*static_cast<volatile std::byte*>(&guest.bytes()[frame * kFrameSize + 5 * kBlockSize]);
    }
    counting = false;
  });
  const size_t before = testing::heap_allocations;
  counting = true;
  counting.notify_one();
  while (counting) {
    const auto readable = wait_readable(handler.fd(), Deadline::after(Milliseconds(1)));
    ASSERT_TRUE(readable);
    if (*readable) {
      ASSERT_TRUE(handler.handle_events().value());
    }
  }
  const size_t allocations = testing::heap_allocations - before;
  toucher.join();
  EXPECT_EQ(allocations, 0U);
  EXPECT_GT(handler.counters().faults, kFrames / 4) << "neighbours spare it some";
}

}  // namespace
}  // namespace stasis::pager
