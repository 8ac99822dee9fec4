// XXH3-64: the checksum of frames and of a snapshot's parts. It finds damage, not malice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace stasis::snapshot {

uint64_t checksum(std::span<const std::byte> data);

// The same over pieces.
class Checksum {
 public:
  Checksum();
  void reset();
  void update(std::span<const std::byte> data);
  uint64_t digest() const;

 private:
  struct State;
  struct Free {
    void operator()(State* state) const;
  };
  std::unique_ptr<State, Free> state_;
};

// 16 lower-case hexadecimal digits.
std::string checksum_text(uint64_t value);

}  // namespace stasis::snapshot
