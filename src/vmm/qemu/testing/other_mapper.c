/* A library of take-stacks: maps as much as a stack for a coroutine has, for something else. */
#include <stddef.h>
#include <sys/mman.h>

void* map_for_something_else(size_t length);
void* map_for_something_else(size_t length) {
  return mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
