// Memory: owned mappings and anonymous memory files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace stasis {

// An owned mmap; unmapped by the destructor.
class Mapping {
 public:
  // Private anonymous memory, zeroed, not yet populated.
  static Result<Mapping> anonymous(size_t length);
  // A file, shared, for reading only.
  static Result<Mapping> shared_read_only(int fd, size_t length);
  // A file, shared, for reading and writing.
  static Result<Mapping> shared(int fd, size_t length);

  Mapping() = default;
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();

  std::span<std::byte> bytes() const { return {address_, length_}; }
  uint64_t address() const { return reinterpret_cast<uint64_t>(address_); }

 private:
  Mapping(std::byte* address, size_t length) : address_(address), length_(length) {}
  static Result<Mapping> map(size_t length, int protection, int flags, int fd);
  static Result<Mapping> map_file(size_t length, int protection, int fd);
  std::byte* address_ = nullptr;
  size_t length_ = 0;
};

// A memfd of `size` bytes, close-on-exec; `name` shows in /proc/PID/maps.
Result<UniqueFd> create_memory_file(const std::string& name, uint64_t size);

// Advice MADV_DONTNEED on anonymous memory, MADV_REMOVE on shared: the range reads as zeros afterwards.
Status discard_anonymous(std::span<std::byte> range);
Status discard_shared(std::span<std::byte> range);

// Brings what this process has mapped there into the host's memory, and keeps it there until it is unmapped, for who
// must never wait for it. An error if any of it cannot be had, or the process may not keep so much (RLIMIT_MEMLOCK).
Status keep_resident(std::span<const std::byte> range);

}  // namespace stasis
