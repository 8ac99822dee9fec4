// Little-endian fields of the binary formats (docs/format.md). The reader does not check bounds: its callers compare
// the whole length first.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "base/uuid.h"

namespace stasis::snapshot {

static_assert(std::endian::native == std::endian::little, "tables are copied as they are in memory");

class WireWriter {
 public:
  explicit WireWriter(size_t reserve) { bytes_.reserve(reserve); }
  void u32(uint32_t value) { append(&value, sizeof(value)); }
  void u64(uint64_t value) { append(&value, sizeof(value)); }
  void uuid(const Uuid& value) { append(value.bytes.data(), value.bytes.size()); }
  void append(const void* data, size_t size) {
    const auto* begin = static_cast<const std::byte*>(data);
    bytes_.insert(bytes_.end(), begin, begin + size);
  }
  void set_u32(size_t offset, uint32_t value) { std::memcpy(bytes_.data() + offset, &value, sizeof(value)); }
  std::span<const std::byte> bytes() const { return bytes_; }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

class WireReader {
 public:
  explicit WireReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  uint32_t u32() { return number<uint32_t>(); }
  uint64_t u64() { return number<uint64_t>(); }
  Uuid uuid() {
    Uuid value;
    copy(value.bytes.data(), value.bytes.size());
    return value;
  }
  void copy(void* out, size_t size) {
    if (size == 0) return;
    std::memcpy(out, bytes_.data() + position_, size);
    position_ += size;
  }

 private:
  template <typename T>
  T number() {
    T value = 0;
    copy(&value, sizeof(value));
    return value;
  }
  std::span<const std::byte> bytes_;
  size_t position_ = 0;
};

}  // namespace stasis::snapshot
