#include "disk/block_states.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace stasis::disk {
namespace {

void expect_equal(const BlockStates& states, const std::vector<BlockState>& model) {
  for (uint64_t block = 0; block < model.size(); ++block) ASSERT_EQ(states.at(block), model[block]) << block;
  EXPECT_EQ(states.written(), static_cast<uint64_t>(std::count(model.begin(), model.end(), BlockState::kWritten)));
  EXPECT_EQ(states.zeroed(), static_cast<uint64_t>(std::count(model.begin(), model.end(), BlockState::kZero)));
}

// What next_changed() finds from the start to the end, as one state a block.
std::vector<BlockState> changed(const BlockStates& states, uint64_t blocks, uint64_t max_blocks) {
  std::vector<BlockState> result(blocks, BlockState::kBase);
  uint64_t from = 0;
  while (const auto run = states.next_changed(from, max_blocks)) {
    EXPECT_GE(run->first, from);
    EXPECT_GT(run->count, 0u);
    EXPECT_LE(run->count, max_blocks);
    std::fill_n(result.begin() + static_cast<long>(run->first), run->count, run->state);
    from = run->end();
  }
  return result;
}

TEST(BlockStates, FollowAModel) {
  constexpr uint64_t kBlocks = 1003;  // not whole words
  auto states = BlockStates::create(kBlocks).value();
  std::vector<BlockState> model(kBlocks, BlockState::kBase);
  std::mt19937_64 random(7);
  for (int i = 0; i < 2000; ++i) {
    const uint64_t first = random() % kBlocks;
    const uint64_t count = 1 + random() % std::min<uint64_t>(kBlocks - first, random() % 4 == 0 ? 300 : 5);
    const auto state = static_cast<BlockState>(random() % 3);
    states->set(first, count, state);
    std::fill_n(model.begin() + static_cast<long>(first), count, state);
    if (i % 50 != 0) continue;
    expect_equal(*states, model);
    EXPECT_EQ(changed(*states, kBlocks, kBlocks), model);
    EXPECT_EQ(changed(*states, kBlocks, 7), model);
  }
}

TEST(BlockStates, RunsEndAtTheLimitAndAtTheNextState) {
  auto states = BlockStates::create(100).value();
  states->set(10, 50, BlockState::kWritten);
  EXPECT_EQ(states->run(0, 100).count, 10u);
  EXPECT_EQ(states->run(10, 100).count, 50u);
  EXPECT_EQ(states->run(10, 20).count, 10u);
  EXPECT_EQ(states->run(60, 100).count, 40u);
  EXPECT_FALSE(states->next_changed(60, 100));
  EXPECT_FALSE(states->next_changed(100, 100));
}

TEST(BlockStates, ALargeDiskTakesMemoryOnlyForWhatChanged) {
  constexpr uint64_t kBlocks = uint64_t{1} << 32;  // 16 TiB
  auto states = BlockStates::create(kBlocks).value();
  states->set(kBlocks - 3, 2, BlockState::kZero);
  EXPECT_EQ(states->at(kBlocks - 2), BlockState::kZero);
  EXPECT_EQ(states->at(kBlocks - 1), BlockState::kBase);
  EXPECT_EQ(states->zeroed(), 2u);
}

}  // namespace
}  // namespace stasis::disk
