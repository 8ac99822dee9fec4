// A file mapped for reading whose loss is told instead of killing the process. A page that cannot be had (the device
// fails, the file was cut short) raises SIGBUS; the handler that the first FileMapping installs puts a page of zeros in
// its place and marks the mapping as broken. So: read, then ask intact(), and only then believe what was read. Who
// hands the bytes to the kernel instead, and cannot take them back when it asks afterwards, has them at a second
// address.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/memory.h"
#include "base/range.h"
#include "base/result.h"

namespace stasis {

class FileMapping {
 public:
  // `length` bytes of the file from its start. The descriptor may be closed afterwards. kResourceExhausted if the
  // process has as many guarded mappings as it can (4,096).
  static Result<FileMapping> map(int fd, size_t length);

  FileMapping() = default;  // of nothing: not intact
  FileMapping(FileMapping&& other) noexcept;
  FileMapping& operator=(FileMapping&& other) noexcept;
  FileMapping(const FileMapping&) = delete;
  FileMapping& operator=(const FileMapping&) = delete;
  ~FileMapping();

  // To be read only.
  std::span<const std::byte> bytes() const { return mapping_.bytes(); }
  // The same for system calls only, as what they are to read. Nobody else touches this range, so no page of it is ever
  // replaced: of one that cannot be had the call says EFAULT.
  std::span<const std::byte> for_kernel() const { return for_kernel_.bytes(); }
  // False once any page could not be had: what was read since it was last true may be zeros that the file does not
  // hold. Thread-safe.
  bool intact() const;
  // Which pages of a range of at most 64 (multiples of 4096, within bytes()) are in memory, the first as bit 0: reading
  // those waits for no device. A hole of a file in tmpfs is not, and reading it here would fill it. Told to the file's
  // owner and to root; to anybody else Linux says of each that it is. None if it cannot be found out.
  uint64_t resident_pages(Range range) const;

 private:
  struct Slot;
  friend struct FileMappingGuard;
  FileMapping(Mapping mapping, Mapping for_kernel, Slot* slot)
      : mapping_(std::move(mapping)), for_kernel_(std::move(for_kernel)), slot_(slot) {}
  Mapping mapping_;
  Mapping for_kernel_;
  Slot* slot_ = nullptr;
};

}  // namespace stasis
