#include "base/table_allocator.h"

#include <sys/mman.h>

#include <algorithm>

namespace stasis {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kLarge = kHugePage / 2;
constexpr std::align_val_t kAlignment{kHugePage};

}  // namespace

void* allocate_table(size_t bytes) {
  if (bytes < kLarge) return ::operator new(bytes);
  // A tail of half a huge page or more has one of its own; a smaller one keeps small pages.
  const size_t huge = (bytes + kHugePage / 2) / kHugePage * kHugePage;
  void* memory = ::operator new(std::max(bytes, huge), kAlignment);
  (void)::madvise(memory, huge, MADV_HUGEPAGE);  // advice only: small pages do as well
  return memory;
}

void free_table(void* memory, size_t bytes) {
  if (bytes < kLarge) {
    ::operator delete(memory);
  } else {
    ::operator delete(memory, kAlignment);
  }
}

}  // namespace stasis
