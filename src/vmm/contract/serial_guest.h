// The tiny guest (tests/tiny_guest), driven through the serial port: commands go into the pipe `console` in the
// machine's runtime directory, answers come out in its log.
#pragma once

#include "vmm/contract/fixture.h"

namespace stasis::vmm::contract {

class SerialGuest final : public GuestControl {
 public:
  // Makes the pipe. The arena ends where guest memory does.
  static Result<std::unique_ptr<SerialGuest>> create(const Path& runtime_dir, const Path& log, uint64_t memory_bytes);

  uint64_t arena_bytes() const override { return memory_bytes_ - arena_offset(); }
  void set_patience(Milliseconds patience) override { patience_ = patience; }
  static uint64_t arena_offset();
  static std::vector<uint64_t> filled_page(uint64_t page, uint64_t seed);
  // The checksum that fill() and zero() lead to.
  static uint64_t checksum_of_fill(Range range, uint64_t seed);
  static uint64_t checksum_of_zeros(Range range);

  Result<uint64_t> count() override;
  Status fill(Range range, uint64_t seed) override;
  Status zero(Range range) override;
  Status rewrite(Range range) override;
  Result<uint64_t> checksum(Range range) override;
  Status churn(uint64_t /*seed*/) override { return {}; }
  Status give_back(Range range) override;

 private:
  SerialGuest(UniqueFd console, Path log, uint64_t memory_bytes)
      : console_(std::move(console)), log_(std::move(log)), memory_bytes_(memory_bytes) {}
  Result<uint64_t> ask(char letter, const std::vector<uint64_t>& numbers);
  Result<uint64_t> await(const std::string& sequence);
  Result<uint64_t> ask_range(char letter, Range range);

  UniqueFd console_;
  Path log_;
  uint64_t memory_bytes_;
  Milliseconds patience_{20'000};
  uint64_t sequence_ = 0;
};

}  // namespace stasis::vmm::contract
