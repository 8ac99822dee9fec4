#include "base/table_allocator.h"

#include <sys/mman.h>

namespace stasis {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kLarge = 2 * kHugePage;
constexpr std::align_val_t kAlignment{kHugePage};

}  // namespace

void* allocate_table(size_t bytes) {
  if (bytes < kLarge) return ::operator new(bytes);
  void* memory = ::operator new(bytes, kAlignment);
  // Advice only: small pages do as well. The tail that fills no huge page keeps small ones.
  (void)::madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
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
