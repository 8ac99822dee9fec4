// An allocator for large tables of plain records. A table of 1 MiB or more lies on huge pages where the kernel allows
// it, and takes up to 1 MiB more memory for that: a search in 16 MiB of small pages misses the TLB at most of its
// steps, and the 4,096 page faults of filling it cost more than the copy that does. resize() leaves new records
// uninitialised: they are about to be copied over.
#pragma once

#include <cstddef>
#include <limits>
#include <new>
#include <utility>

namespace stasis {

// Memory for a table; throws std::bad_alloc. Given back with the same size.
void* allocate_table(size_t bytes);
void free_table(void* memory, size_t bytes);

template <typename T>
struct TableAllocator {
  using value_type = T;
  TableAllocator() = default;
  template <typename U>
  TableAllocator(const TableAllocator<U>& /*other*/) {}

  T* allocate(size_t count) {
    if (count > std::numeric_limits<size_t>::max() / sizeof(T)) throw std::bad_array_new_length();
    return static_cast<T*>(allocate_table(count * sizeof(T)));
  }
  void deallocate(T* memory, size_t count) { free_table(memory, count * sizeof(T)); }

  template <typename U>
  void construct(U* at) {
    ::new (static_cast<void*>(at)) U;
  }
  template <typename U, typename... Args>
  void construct(U* at, Args&&... args) {
    ::new (static_cast<void*>(at)) U(std::forward<Args>(args)...);
  }
  friend bool operator==(TableAllocator /*a*/, TableAllocator /*b*/) { return true; }
};

}  // namespace stasis
