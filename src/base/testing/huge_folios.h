// Whether a file system keeps what is written at once in folios as large as a huge page, so that a mapping of a file
// takes one with one page fault (XFS, ext4 since Linux 6.16; neither tmpfs nor most others), and whether one did.
#pragma once

#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/memory.h"

namespace stasis::testing {

inline constexpr uint64_t kHugeFolio = 2 << 20;

// What of a process's memory are whole huge pages of files.
inline uint64_t mapped_huge_bytes(pid_t pid) {
  std::ifstream rollup("/proc/" + std::to_string(pid) + "/smaps_rollup");
  std::string word;
  uint64_t kib = 0;
  while (rollup >> word) {
    if (word == "FilePmdMapped:") rollup >> kib;
  }
  return kib << 10;
}

// Maps the file privately, beginning where a huge page may, and reads all of it: how much of it are huge pages.
inline uint64_t huge_bytes_of_mapping(int fd, uint64_t length) {
  const Mapping room = Mapping::anonymous(length + kHugeFolio).value();
  std::byte* start = room.bytes().data() + (kHugeFolio - room.address() % kHugeFolio) % kHugeFolio;
  const uint64_t before = mapped_huge_bytes(::getpid());
  if (::mmap(start, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0) == MAP_FAILED) return 0;
  for (uint64_t at = 0; at < length; at += 4096) (void)*static_cast<volatile std::byte*>(start + at);
  return mapped_huge_bytes(::getpid()) - before;
}

inline bool has_huge_folios(const Path& directory) {
  FileSystem& fs = real_file_system();
  const Path file = directory / "folio";
  const UniqueFd fd = fs.create(file).value();
  const bool written = fs.write_at(fd.get(), 0, std::vector<std::byte>(kHugeFolio, std::byte{1})).has_value();
  const bool huge = written && huge_bytes_of_mapping(fd.get(), kHugeFolio) == kHugeFolio;
  (void)fs.remove(file);
  return huge;
}

}  // namespace stasis::testing
