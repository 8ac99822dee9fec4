// What a warm read costs: no allocation. Allocations are counted by replacing operator new.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "snapshot/testing/fixtures.h"

namespace {
std::atomic<uint64_t> allocations = 0;
}

// Not inlined: the compiler would take malloc with delete for a mistake.
__attribute__((noinline)) void* operator new(size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
__attribute__((noinline)) void operator delete(void* memory) noexcept { std::free(memory); }
__attribute__((noinline)) void operator delete(void* memory, size_t /*size*/) noexcept { std::free(memory); }

namespace stasis::snapshot {
namespace {

using testing::block_of;
using testing::blocks;
using testing::Bytes;
using testing::Memory;

class ReadCostTest : public testing::StoreTest {};

TEST_F(ReadCostTest, AWarmReadAllocatesNothing) {
  Memory memory(1 << 20);
  for (uint64_t block = 0; block < 256; block += 3) memory.write(block * kBlockSize, block_of(1));
  const auto captured = take(memory, {memory.whole()}, *open(BlockMap::zeros(1 << 20).value()));
  const auto space = open(captured.value().map);
  ASSERT_EQ(testing::read_all(*space), memory.content);
  Bytes buffer(64 * 1024);
  const uint64_t before = allocations;
  for (uint64_t offset = 0; offset < 1 << 20; offset += buffer.size()) {
    ASSERT_TRUE(space->read(offset, buffer));
  }
  for (uint64_t block = 0; block < 256; ++block) {
    ASSERT_TRUE(space->read(block * kBlockSize, std::span(buffer).first(kBlockSize)));
  }
  EXPECT_EQ(allocations - before, 0U);
}

}  // namespace
}  // namespace stasis::snapshot
