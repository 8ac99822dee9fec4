#include "base/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace stasis {

Result<Mapping> Mapping::map(size_t length, int protection, int flags, int fd) {
  void* address = ::mmap(nullptr, length, protection, flags, fd, 0);
  if (address == MAP_FAILED) return fail_errno(errno, "map " + std::to_string(length) + " bytes");
  return Mapping(static_cast<std::byte*>(address), length);
}

Result<Mapping> Mapping::anonymous(size_t length) {
  return map(length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
}

Result<Mapping> Mapping::shared_read_only(int fd, size_t length) { return map(length, PROT_READ, MAP_SHARED, fd); }

Result<Mapping> Mapping::shared(int fd, size_t length) { return map(length, PROT_READ | PROT_WRITE, MAP_SHARED, fd); }

Mapping::Mapping(Mapping&& other) noexcept
    : address_(std::exchange(other.address_, nullptr)), length_(std::exchange(other.length_, 0)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(address_, other.address_);
  std::swap(length_, other.length_);
  return *this;
}

Mapping::~Mapping() {
  if (address_ != nullptr) ::munmap(address_, length_);
}

Result<UniqueFd> create_memory_file(const std::string& name, uint64_t size) {
  UniqueFd fd(::memfd_create(name.c_str(), MFD_CLOEXEC));
  if (!fd) return fail_errno(errno, "create memory file " + name);
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return fail_errno(errno, "size memory file " + name);
  return fd;
}

Status discard_anonymous(std::span<std::byte> range) {
  if (::madvise(range.data(), range.size(), MADV_DONTNEED) != 0) return fail_errno(errno, "madvise DONTNEED");
  return {};
}

Status discard_shared(std::span<std::byte> range) {
  if (::madvise(range.data(), range.size(), MADV_REMOVE) != 0) return fail_errno(errno, "madvise REMOVE");
  return {};
}

}  // namespace stasis
