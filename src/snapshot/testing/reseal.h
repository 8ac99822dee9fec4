// Puts the right checksums into a file of one of the durable formats (docs/format.md), as a hostile writer would: so
// that tests and fuzzers get behind them. Files that are too short stay as they are.
#pragma once

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "snapshot/crc32c.h"

namespace stasis::snapshot::testing {

class Resealer {
 public:
  explicit Resealer(std::vector<std::byte>& bytes) : bytes_(bytes) {}

  void block_map() {
    if (bytes_.size() < 88) return;
    const size_t table = std::min<size_t>(88 + size_t{get(72)} * 16, bytes_.size());
    put(80, crc32c(all().subspan(table)));
    put(84, crc32c(all().subspan(88, table - 88), crc32c(all().first(84))));
  }
  void layer_sums() {
    if (bytes_.size() < 72) return;
    put(64, crc32c(all().subspan(72)));
    put(68, crc32c(all().first(68)));
  }
  void packed_layer() {
    if (bytes_.size() < 80) return;
    const size_t table = std::min<size_t>(get(64), bytes_.size());
    put(72, crc32c(all().subspan(table)));
    put(76, crc32c(all().first(76)));
  }
  void manifest() {
    if (bytes_.size() < 32) return;
    const uint64_t length = bytes_.size() - 32;
    std::memcpy(bytes_.data() + 16, &length, sizeof(length));
    put(24, crc32c(all().subspan(32)));
    put(28, crc32c(all().first(28)));
  }
  void working_set() {
    if (bytes_.size() < 36) return;
    put(28, crc32c(all().subspan(36)));
    put(32, crc32c(all().first(32)));
  }

 private:
  std::span<const std::byte> all() const { return bytes_; }
  uint32_t get(size_t offset) const {
    uint32_t value = 0;
    std::memcpy(&value, bytes_.data() + offset, sizeof(value));
    return value;
  }
  void put(size_t offset, uint32_t value) { std::memcpy(bytes_.data() + offset, &value, sizeof(value)); }

  std::vector<std::byte>& bytes_;
};

// What a fuzz target of a format does: `check` the input as it comes, and with the right checksums in it.
template <typename Check>
int check_with_and_without_seal(const uint8_t* data, size_t size, Check check, void (Resealer::*seal)()) {
  const auto input = std::as_bytes(std::span(data, size));
  check(input);
  std::vector<std::byte> sealed(input.begin(), input.end());
  (Resealer(sealed).*seal)();
  check(std::span<const std::byte>(sealed));
  return 0;
}

}  // namespace stasis::snapshot::testing
