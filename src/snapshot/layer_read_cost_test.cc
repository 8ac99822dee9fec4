// What a warm read costs: no allocation. Allocations are counted by replacing operator new.
#include <gtest/gtest.h>

#include "base/testing/count_heap.h"
#include "snapshot/testing/fixtures.h"

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
  const uint64_t before = stasis::testing::heap_allocations;
  for (uint64_t offset = 0; offset < 1 << 20; offset += buffer.size()) {
    ASSERT_TRUE(space->read(offset, buffer));
  }
  for (uint64_t block = 0; block < 256; ++block) {
    ASSERT_TRUE(space->read(block * kBlockSize, std::span(buffer).first(kBlockSize)));
  }
  EXPECT_EQ(stasis::testing::heap_allocations - before, 0U);
}

}  // namespace
}  // namespace stasis::snapshot
