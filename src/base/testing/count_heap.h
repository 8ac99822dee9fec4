// Counts what the program takes from the heap, by replacing operator new: for one source file of a program without
// sanitizers, which have an operator new of their own to look after.
#pragma once

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

namespace stasis::testing {

inline std::atomic<size_t> heap_allocations = 0;
inline std::atomic<size_t> heap_bytes = 0;  // held now
inline std::atomic<size_t> heap_peak = 0;   // the most since it was set

// The most bytes that are held at once while `body` runs, above those held before.
template <typename Body>
size_t heap_held_by(Body body) {
  const size_t before = heap_bytes;
  heap_peak = before;
  body();
  return heap_peak - before;
}

}  // namespace stasis::testing

// Not inlined: the compiler would take malloc with delete for a mistake.
__attribute__((noinline)) void* operator new(size_t size) {
  void* memory = std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  ++stasis::testing::heap_allocations;
  const size_t now = stasis::testing::heap_bytes += malloc_usable_size(memory);
  if (now > stasis::testing::heap_peak) stasis::testing::heap_peak = now;
  return memory;
}
__attribute__((noinline)) void operator delete(void* memory) noexcept {
  stasis::testing::heap_bytes -= malloc_usable_size(memory);
  std::free(memory);
}
__attribute__((noinline)) void operator delete(void* memory, size_t /*size*/) noexcept { operator delete(memory); }
