#include "disk/block_states.h"

#include <algorithm>
#include <bit>

namespace stasis::disk {
namespace {

constexpr uint64_t kLowBits = 0x5555555555555555;  // of each block's pair: set alone for kWritten
constexpr uint64_t kHighBits = ~kLowBits;          // set alone for kZero

}  // namespace

Result<std::unique_ptr<BlockStates>> BlockStates::create(uint64_t blocks) {
  const uint64_t words = (blocks + kBlocksPerWord - 1) / kBlocksPerWord;
  STASIS_ASSIGN(Mapping mapping, Mapping::anonymous(std::max<uint64_t>(words, 1) * sizeof(uint64_t)));
  return std::unique_ptr<BlockStates>(new BlockStates(blocks, std::move(mapping)));
}

BlockStates::BlockStates(uint64_t blocks, Mapping mapping)
    : blocks_(blocks), mapping_(std::move(mapping)), words_(reinterpret_cast<uint64_t*>(mapping_.bytes().data())) {}

BlockState BlockStates::at(uint64_t block) const {
  return static_cast<BlockState>(words_[block / kBlocksPerWord] >> block % kBlocksPerWord * 2 & 3);
}

BlockStates::Run BlockStates::run(uint64_t first, uint64_t end) const {
  const BlockState state = at(first);
  uint64_t block = first + 1;
  while (block < end && at(block) == state) ++block;
  return {first, block - first, state};
}

std::optional<BlockStates::Run> BlockStates::next_changed(uint64_t from, uint64_t max_blocks) const {
  uint64_t block = from;
  while (block < blocks_ && at(block) == BlockState::kBase) {
    const uint64_t rest_of_word = words_[block / kBlocksPerWord] >> block % kBlocksPerWord * 2;
    block += rest_of_word == 0 ? kBlocksPerWord - block % kBlocksPerWord : 1;
  }
  if (block >= blocks_) return std::nullopt;
  return run(block, std::min(blocks_, block + max_blocks));
}

void BlockStates::set(uint64_t first, uint64_t count, BlockState state) {
  const uint64_t end = first + count;
  while (first < end) {
    const uint64_t position = first % kBlocksPerWord;
    const uint64_t here = std::min(kBlocksPerWord - position, end - first);
    const uint64_t mask = (here == kBlocksPerWord ? ~uint64_t{0} : (uint64_t{1} << here * 2) - 1) << position * 2;
    set_in_word(first / kBlocksPerWord, mask, state);
    first += here;
  }
}

void BlockStates::set_in_word(uint64_t word, uint64_t mask, BlockState state) {
  const uint64_t before = words_[word];
  uint64_t after = before & ~mask;
  if (state == BlockState::kWritten) after |= mask & kLowBits;
  if (state == BlockState::kZero) after |= mask & kHighBits;
  if (after == before) return;  // also keeps memory of untouched blocks unallocated
  words_[word] = after;
  // Unsigned arithmetic wraps, so a difference below zero subtracts.
  written_ += static_cast<uint64_t>(std::popcount(after & kLowBits) - std::popcount(before & kLowBits));
  zeroed_ += static_cast<uint64_t>(std::popcount(after & kHighBits) - std::popcount(before & kHighBits));
}

}  // namespace stasis::disk
