// What each block of a disk is at present: two bits a block in anonymous memory, of which only what is used takes
// space. Not synchronised: threads may work at the same time on blocks of different words (kBlocksPerWord blocks,
// aligned); the counts may be read at any time.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include "base/memory.h"
#include "base/result.h"

namespace stasis::disk {

enum class BlockState : uint8_t {
  kBase = 0,     // as in the base
  kWritten = 1,  // in the write layer
  kZero = 2,     // zeros
};

class BlockStates {
 public:
  static constexpr uint64_t kBlocksPerWord = 32;

  struct Run {
    uint64_t first = 0;
    uint64_t count = 0;
    BlockState state = BlockState::kBase;
    uint64_t end() const { return first + count; }
  };

  // All kBase.
  static Result<std::unique_ptr<BlockStates>> create(uint64_t blocks);

  BlockState at(uint64_t block) const;
  // The run of equal states that starts at `first`, not beyond `end`; first < end.
  Run run(uint64_t first, uint64_t end) const;
  // The first run of blocks at or after `from` that are not kBase, of at most `max_blocks`.
  std::optional<Run> next_changed(uint64_t from, uint64_t max_blocks) const;
  void set(uint64_t first, uint64_t count, BlockState state);

  uint64_t written() const { return written_; }
  uint64_t zeroed() const { return zeroed_; }

 private:
  BlockStates(uint64_t blocks, Mapping mapping);
  void set_in_word(uint64_t word, uint64_t mask, BlockState state);

  uint64_t blocks_;
  Mapping mapping_;
  uint64_t* words_;
  std::atomic<uint64_t> written_ = 0;
  std::atomic<uint64_t> zeroed_ = 0;
};

}  // namespace stasis::disk
