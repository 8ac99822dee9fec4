// A memory to be read from outside, wherever it is: in a file (a memfd, a VMM's memory file), or in another process
// that has it at some address. Offsets are those of the memory.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/fd.h"
#include "base/file_system.h"
#include "base/range.h"
#include "base/result.h"

namespace stasis {

class MemorySource {
 public:
  // A file, from its start.
  static MemorySource of_file(UniqueFd file) { return {std::move(file), 0, 0}; }
  // What `process` has from `address` on, for who may trace it (it is our child, or we are root). It must be a child of
  // ours that is not reaped before the last read, or ourselves: no other process can have its number then.
  static MemorySource of_process(pid_t process, uint64_t address) { return {{}, process, address}; }

  MemorySource() = default;  // of nothing: cannot be read

  // All of `ranges`, one behind the other, of out.size() bytes in all; or an error: kOutOfRange at the end of a file,
  // kInternal where a process has no memory, or a page of it that cannot be had (whose file was cut short, which the
  // device does not give back), and once it has ended. `out` holds anything then. A page that is missing under a
  // userfaultfd is waited for.
  Status read(FileSystem& fs, std::span<const Range> ranges, std::span<std::byte> out) const;
  // The same of one range, from `offset` on.
  Status read(FileSystem& fs, uint64_t offset, std::span<std::byte> out) const;

 private:
  MemorySource(UniqueFd file, pid_t process, uint64_t address)
      : file_(std::move(file)), process_(process), address_(address) {}
  Status read_file(FileSystem& fs, std::span<const Range> ranges, std::span<std::byte> out) const;
  Status read_process(std::span<const Range> ranges, std::span<std::byte> out) const;
  Status read_at_once(std::span<const Range> ranges, std::span<std::byte> out) const;

  UniqueFd file_;
  pid_t process_ = 0;  // 0: the file
  uint64_t address_ = 0;
};

}  // namespace stasis
